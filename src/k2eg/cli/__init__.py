"""The command line: ``k2eg``.

In: the words after ``k2eg``. Out: an exit code; what there is to read on standard output, one line about a failure on
standard error. Runs on the calling thread, which has to be the main one for Ctrl-C to work.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import TYPE_CHECKING

from k2eg.cli.arguments import parse_arguments

if TYPE_CHECKING:
    from k2eg_rx import Settings

__all__ = ["main"]

_FAILED = 1
_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code.

    Args:
        words: The arguments; by default those of the process.
    """
    try:
        arguments = parse_arguments(sys.argv[1:] if words is None else words)
    except SystemExit as left:
        return _code(left)
    try:
        if arguments.version:
            print(f"k2eg {metadata.version('k2eg')}")
            return 0
        _configure_logs(debug=arguments.debug, service=arguments.command == "gateway")
        code = _run(arguments)
        sys.stdout.flush()  # here, where a closed pipe is still expected
    except SystemExit as left:
        return _code(left)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read has seen enough (`| head`). The interpreter would flush once more at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if arguments.debug:
            traceback.print_exc()
        print(f"k2eg: {_one_line(error)}", file=sys.stderr)
        return _FAILED
    else:
        return code
    return 0


def _code(left: SystemExit) -> int:
    return left.code if isinstance(left.code, int) else _FAILED


def _configure_logs(*, debug: bool, service: bool) -> None:
    """Logs go to standard error: all of them, a service's, or none, for a failure is told in one line."""
    if debug or service:
        form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
        logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, format=form)
    else:
        logging.getLogger().addHandler(logging.NullHandler())


def _run(arguments: Namespace) -> int:
    # Imported here: `k2eg -h` and a wrong usage need no Kafka library.
    if arguments.command == "demo":
        from k2eg.cli.demo import demo  # noqa: PLC0415

        demo(arguments)
        return 0
    from k2eg.cli import commands  # noqa: PLC0415
    from k2eg.cli.environment import settings_for  # noqa: PLC0415

    settings = settings_for(arguments)
    if arguments.command == "gateway":
        return commands.gateway(settings)
    command: Callable[[Namespace, Settings], None] = getattr(commands, arguments.command)
    command(arguments, settings)
    return 0


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no more is known"
    # The errors of this package, and bad arguments, are written for people; others are faults.
    if isinstance(error, ValueError) or type(error).__module__.partition(".")[0] in {"k2eg", "k2eg_rx"}:
        return text
    return f"{type(error).__name__}: {text} (more by --debug)"
