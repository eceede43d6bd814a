"""Parser of the command line's arguments, and the options that commands share.

Imports little, because each use of the command line pays for it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from k2eg.cli.command_table import COMMANDS, load
from k2eg.cli.values.value_parser import is_number
from k2eg_rx.texts import printable

ENVIRONMENT_VARIABLE = "K2EG_CLI_DEFAULT_ENVIRONMENT"
APP_NAME_VARIABLE = "K2EG_CLI_DEFAULT_APP_NAME"
PROTOCOL_VARIABLE = "K2EG_DEFAULT_PROTOCOL"
DEFAULT_APP_NAME = "k2eg-cli"

# Longer than the 10 s that gateways wait for a PV, with room for a busy machine: a PV that does not answer differs
# from a gateway that does not.
_DEFAULT_TIMEOUT = 15.0

_DESCRIPTION = "Reads, writes and watches EPICS process variables through K2EG and Kafka."
_EPILOG = f"""\
environment variables:
  {ENVIRONMENT_VARIABLE}          the environment if -e is not given
  {APP_NAME_VARIABLE}             the application's name if -a is not given
  {PROTOCOL_VARIABLE}                  pva or ca, the protocol of names without one if -p is not given
  K2EG_PYTHON_CONFIGURATION_PATH_FOLDER  the folder of the environments (ENV.ini)

exit status: 0 success, 1 failure of a PV, 2 usage error, 3 no Kafka, 4 no gateway, 5 not verified, 130 interrupted

try it: `k2eg demo` here, and `k2eg -e demo monitor pva://demo:sine10` in another terminal
"""


class Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line.

    Args:
        fill: Adds the arguments of its command.
        options: As of `argparse.ArgumentParser`.
    """

    def __init__(self, fill: Callable[[Parser], object] | None = None, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)
        if fill is not None:
            fill(self)

    def error(self, message: str) -> NoReturn:
        """Prints an error and exits with code 2."""
        self.exit(2, f"{self.prog}: {printable(message)} (help: {self.prog} -h)\n")


class _LaterParser:
    """Stands in for a command's parser, which is made if the command is used: making all takes as long as `k2eg -h`.

    Args:
        options: As of `Parser`.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses arguments, as `argparse.ArgumentParser` does."""
        return Parser(**self._options).parse_known_args(args, namespace)


def pv_uri(text: str) -> str:
    """Returns a PV's URI, or its name, of which `complete_uris` makes a URI when the environment is known."""
    from k2eg.cli.values.pv_names import check_name  # noqa: PLC0415 - not for `k2eg -h`

    try:
        check_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def seconds(text: str) -> float:
    """Returns a duration above 0."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {text!r}")
    return number


def positive(text: str) -> int:
    """Returns a whole number above 0."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text!r}")
    return number


def port(text: str) -> int:
    """Returns a TCP port."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"must be a port from 0 to 65535, got {text!r}")
    return int(text)


def broker(text: str) -> str:
    """Returns addresses of brokers."""
    for address in text.split(","):
        host, colon, number = address.strip().rpartition(":")
        if not (host and colon and number.isdigit()):
            raise argparse.ArgumentTypeError(f"must be host:port, got {text!r}")
    return text


def _add_global_options(parser: Parser, *, default: bool) -> None:
    """Adds the global options; those after the command have no default, which would reset those before it."""
    none = None if default else argparse.SUPPRESS
    off = False if default else argparse.SUPPRESS
    add = parser.add_argument
    add("-e", "--environment", default=none, metavar="ENV", help=f"the environment (default: ${ENVIRONMENT_VARIABLE})")
    add("-a", "--app", default=none, metavar="APP", help=f"the application's name (default: {DEFAULT_APP_NAME})")
    add("--debug", action="store_true", default=off, help="show logs and tracebacks")
    add("--json", action="store_true", default=off, help="a JSON object per line, for scripts")


def add_full_option(parser: Parser) -> None:
    """Adds the option for whole structures."""
    parser.add_argument("--full", action="store_true", help="the PV's whole structure")


def add_timeout_option(parser: Parser) -> None:
    """Adds the option for the time that replies may take."""
    parser.add_argument(
        "-w",
        "--timeout",
        type=seconds,
        default=_DEFAULT_TIMEOUT,
        metavar="SECONDS",
        help="how long to wait for the gateway's answer (default: %(default)g)",
    )


def add_pvs(parser: Parser) -> None:
    """Adds the arguments that name PVs; `k2eg.cli.values.pv_names` makes PVs of them."""
    parser.add_argument(
        "names",
        nargs="*",
        metavar="PV",
        help="NAME, pva://NAME or ca://NAME; Q:{1..20}:I stands for 20 of them, - for a list on standard input",
    )
    parser.add_argument(
        "-f",
        "--file",
        action="append",
        default=[],
        metavar="FILE",
        help="a list of PVs: names, # comments, [groups]; - is standard input",
    )
    parser.add_argument("--group", metavar="NAME", help="only this group of the list")
    add_protocol(parser)
    parser.set_defaults(check=_collect)


def add_protocol(parser: Parser) -> None:
    """Adds the option for the protocol of names without one."""
    parser.add_argument(
        "-p",
        "--protocol",
        choices=("pva", "ca"),
        help=f"the protocol of names without one (default: ${PROTOCOL_VARIABLE}, else pva, then ca)",
    )


def _collect(arguments: argparse.Namespace) -> None:
    from k2eg.cli.values.pv_names import collect  # noqa: PLC0415 - not for `k2eg -h`

    arguments.names = collect(arguments.names, arguments.file, arguments.group)


def build_parser(*, complete: bool = False) -> Parser:
    """Returns the parser of the whole command line.

    Args:
        complete: Whether the parsers of all commands have their arguments at once, as documentation and completion
            need; otherwise a command's are added, and its module imported, when it is used.
    """
    parser = Parser(
        prog="k2eg",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_global_options(parser, default=True)
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    kind: Any = Parser if complete else _LaterParser
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=kind)
    # a command's own short options replace the global ones, which stand before it: `put -a`, `get -e 3`
    for name, command in COMMANDS.items():

        def fill(own: Parser, arguments: str = command.arguments) -> None:
            own.set_defaults(check=None)
            _add_global_options(own, default=False)
            load(arguments)(own)

        commands.add_parser(name, fill=fill, help=command.help, conflict_handler="resolve")
    return parser


def _shield_numbers(words: Sequence[str]) -> list[str]:
    """Keeps argparse, which recognizes -1 and -1.5 only, from treating -1e3 or -inf as an option."""
    # To argparse a word with a blank is never an option, and a blank does not change a number.
    return [f" {word}" if word.startswith("-") and is_number(word) else word for word in words]


def unshielded(word: str) -> str:
    """Returns a word as it was given."""
    return word[1:] if word.startswith(" -") and is_number(word[1:]) else word


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Returns the arguments; options that are missing come from environment variables.

    Raises:
        SystemExit: The arguments are wrong (code 2) or ask for help (code 0); the text is printed.
    """
    parser = build_parser()
    arguments = parser.parse_args(_shield_numbers(words))
    if arguments.version:
        return arguments
    if arguments.command is None:
        parser.error(f"a command is missing: {', '.join(COMMANDS)}")
    if arguments.check is not None:
        try:
            arguments.check(arguments)
        except ValueError as error:
            parser.error(f"{arguments.command}: {error}")
    arguments.environment = arguments.environment or os.environ.get(ENVIRONMENT_VARIABLE) or None
    arguments.app = arguments.app or os.environ.get(APP_NAME_VARIABLE) or DEFAULT_APP_NAME
    return arguments
