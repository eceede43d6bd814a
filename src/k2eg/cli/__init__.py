"""The command line ``k2eg``.

Results go to standard output; a failure is one line on standard error, or one for each reason, and an exit code of
`k2eg.cli.session.ExitCode`.

Thread safety: main thread only, where Python handles Ctrl-C.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import stat
import sys
from argparse import Namespace
from collections.abc import Sequence

import k2eg_rx
from k2eg.cli.arguments import parse_arguments
from k2eg.cli.command_table import COMMANDS, load
from k2eg.cli.output import escape_what_encodings_lack, print_lines, print_note
from k2eg_rx.texts import LineFormatter, traceback_text

__all__ = ["main"]

_FAILED = 1
_INTERRUPTED = 130  # 128 + SIGINT, the convention of shells


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code.

    Args:
        words: The arguments; by default ``sys.argv[1:]``.
    """
    try:
        arguments = parse_arguments(sys.argv[1:] if words is None else words)
    except SystemExit as exit_:
        return _code(exit_)
    escape_what_encodings_lack()
    try:
        if arguments.version:
            print(f"k2eg {k2eg_rx.__version__}")
            return 0
        if not COMMANDS[arguments.command].has_logs:
            _configure_logs(debug=arguments.debug)
        code = _run(arguments)
        if code == 0:
            from k2eg.cli.seen_pvs import remember  # noqa: PLC0415 - not for `k2eg -h`

            remember(arguments)
        sys.stdout.flush()  # here, where BrokenPipeError is handled
    except SystemExit as exit_:
        return _code(exit_)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as error:
        if isinstance(error, OSError) and _is_output_closed(error):
            # The interpreter flushes once more at exit, which must not fail.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        if arguments.debug:
            print_lines(traceback_text(error), sys.stderr)
        for line in _lines(error):
            print_note(line)
        return _exit_code(error)
    else:
        return code


def _is_output_closed(error: OSError) -> bool:
    """Returns whether an error says that the reader has ended (`| head`), or that the terminal was closed."""
    is_terminal = stat.S_ISCHR(os.fstat(sys.stdout.fileno()).st_mode)
    return error.errno == errno.EPIPE or (error.errno == errno.EIO and is_terminal)


def _code(exit_: SystemExit) -> int:
    return exit_.code if isinstance(exit_.code, int) else _FAILED


def _configure_logs(*, debug: bool) -> None:
    """Sends logs to standard error with --debug, otherwise nowhere."""
    if debug:
        handler = logging.StreamHandler()
        handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.basicConfig(level=logging.DEBUG, handlers=[handler])
    else:
        logging.getLogger().addHandler(logging.NullHandler())


def _run(arguments: Namespace) -> int:
    command = COMMANDS[arguments.command]
    run = load(command.run)
    if not gc.isenabled():  # while the program started
        gc.freeze()  # modules are not garbage
        gc.enable()
    if not command.has_environment:
        return run(arguments) or 0
    from k2eg.cli.environment import settings_for  # noqa: PLC0415 - not for `k2eg -h`
    from k2eg.cli.values.pv_names import complete_uris  # noqa: PLC0415

    settings = settings_for(arguments)
    complete_uris(arguments, settings)
    return run(arguments, settings) or 0


def _exit_code(error: Exception) -> int:
    from k2eg.cli.session import ExitCode  # noqa: PLC0415 - not for `k2eg -h`

    return ExitCode.of(error)


def _lines(error: Exception) -> list[str]:
    from k2eg.cli.session import CommandError  # noqa: PLC0415

    return str(error).splitlines() if isinstance(error, CommandError) else [_one_line(error)]


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no details"
    # Texts of bad arguments, missing extras and this package's errors are for users; other errors are bugs.
    if isinstance(error, ValueError | ModuleNotFoundError) or type(error).__module__.startswith(("k2eg.", "k2eg_rx.")):
        return text
    return f"{type(error).__name__}: {text} (details: --debug)"
