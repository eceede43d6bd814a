"""Parser of the command line's arguments."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from k2eg.cli.value_parser import is_number
from k2eg_rx.pv import PVAddress
from k2eg_rx.texts import printable

ENVIRONMENT_VARIABLE = "K2EG_CLI_DEFAULT_ENVIRONMENT"
APP_NAME_VARIABLE = "K2EG_CLI_DEFAULT_APP_NAME"
DEFAULT_APP_NAME = "k2eg-cli"

# A gateway needs 0.3 s for a PV that it connects first; the rest is patience with a PV that may not exist.
_DEFAULT_TIMEOUT = 5.0

_DESCRIPTION = "Reads, writes and watches EPICS process variables through K2EG and Kafka."
_EPILOG = f"""\
environment variables:
  {ENVIRONMENT_VARIABLE}          the environment if -e is not given
  {APP_NAME_VARIABLE}             the application's name if -a is not given
  K2EG_PYTHON_CONFIGURATION_PATH_FOLDER  the folder of the environments (ENV.ini)

exit status: 0 success, 1 failure, 2 usage error, 130 interrupted

try it: `k2eg demo` here, and `k2eg -e demo monitor pva://demo:sine10` in another terminal
"""


class _Parser(argparse.ArgumentParser):
    """Reports an error in one line instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {printable(message)} (help: {self.prog} -h)\n")


def _pv_uri(text: str) -> str:
    try:
        return PVAddress.parse(text).uri
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {text!r}")
    return seconds


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text!r}")
    return number


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"must be a port from 0 to 65535, got {text!r}")
    return int(text)


def _broker(text: str) -> str:
    for address in text.split(","):
        host, colon, port = address.strip().rpartition(":")
        if not (host and colon and port.isdigit()):
            raise argparse.ArgumentTypeError(f"must be host:port, got {text!r}")
    return text


def _global_options(*, default: bool) -> _Parser:
    """Returns the global options; those after the command have no default, which would reset those before it."""
    options = _Parser(add_help=False, allow_abbrev=False, argument_default=None if default else argparse.SUPPRESS)
    options.add_argument(
        "-e", "--environment", metavar="ENV", help=f"the environment (default: ${ENVIRONMENT_VARIABLE})"
    )
    options.add_argument("-a", "--app", metavar="APP", help=f"the application's name (default: {DEFAULT_APP_NAME})")
    off = False if default else argparse.SUPPRESS
    options.add_argument("--debug", action="store_true", default=off, help="show logs and tracebacks")
    options.add_argument("--json", action="store_true", default=off, help="a JSON object per line, for scripts")
    return options


def _output_options() -> _Parser:
    options = _Parser(add_help=False, allow_abbrev=False)
    options.add_argument("--full", action="store_true", help="the PV's whole structure")
    return options


def _timeout_option() -> _Parser:
    options = _Parser(add_help=False, allow_abbrev=False)
    options.add_argument(
        "--timeout",
        type=_seconds,
        default=_DEFAULT_TIMEOUT,
        metavar="SECONDS",
        help="how long to wait for the gateway's answer (default: %(default)g)",
    )
    return options


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the whole command line."""
    parser = _Parser(
        prog="k2eg",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        parents=[_global_options(default=True)],
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    shared = _global_options(default=False)
    timed = [shared, _output_options(), _timeout_option()]

    get = commands.add_parser("get", parents=timed, allow_abbrev=False, help="read PVs")
    get.add_argument("uris", nargs="+", type=_pv_uri, metavar="URI", help="pva://NAME or ca://NAME")

    put = commands.add_parser("put", parents=timed, allow_abbrev=False, help="write a PV")
    put.add_argument("uri", type=_pv_uri, metavar="URI", help="pva://NAME or ca://NAME")
    put.add_argument(
        "value", metavar="VALUE", help="a number, text, an enum's label or index; a list or an object in JSON"
    )
    put.add_argument("-c", "--wait", action="store_true", help="wait until the record has completed, as caput -c does")
    put.add_argument("--string", action="store_true", help="send VALUE as text even if it is a number")
    put.add_argument("--no-check", action="store_true", help="send VALUE without converting it to the PV's type")
    put.add_argument(
        "--verify", action="store_true", help="read the PV back, print it, and fail if it has another value"
    )

    monitor = commands.add_parser(
        "monitor", parents=[shared, _output_options()], allow_abbrev=False, help="print updates until Ctrl-C"
    )
    monitor.add_argument("uris", nargs="+", type=_pv_uri, metavar="URI", help="pva://NAME or ca://NAME")
    monitor.add_argument("--count", type=_positive, metavar="N", help="stop after N updates")
    monitor.add_argument("--duration", type=_seconds, metavar="SECONDS", help="stop after this time")
    monitor.add_argument(
        "--timeout", type=_seconds, metavar="SECONDS", help="fail if a PV sends no update in this time"
    )
    monitor.add_argument(
        "--overflow",
        choices=("block", "latest", "drop_oldest"),
        default="block",
        help="if printing is slower than the updates: lose none, print only the newest of each PV, or drop the oldest"
        " (default: %(default)s)",
    )

    _add_snapshot(commands.add_parser("snapshot", parents=timed, allow_abbrev=False, help="acquire PVs together"))

    _add_gateway(commands.add_parser("gateway", parents=[shared], allow_abbrev=False, help="run a gateway"))

    demo = commands.add_parser(
        "demo", parents=[shared], allow_abbrev=False, help="run a broker, an IOC and a gateway, and show live PVs"
    )
    demo.add_argument("--tour", action="store_true", help="run each operation once, print the results, and exit")
    demo.add_argument(
        "--kafka", type=_broker, metavar="HOST:PORT", help="use this Kafka broker instead of an embedded one"
    )
    demo.add_argument("--list", action="store_true", help="print what PVs there are, and exit")
    demo.add_argument(
        "--db", type=Path, action="append", default=[], metavar="FILE", help="serve the records of this database too"
    )
    for protocol, name in {"pva": "PVAccess", "ca": "Channel Access"}.items():
        demo.add_argument(
            f"--{protocol}",
            type=_broker,
            action="append",
            default=[],
            metavar="HOST:PORT",
            help=f"serve the PVs of this IOC too, over {name}",
        )
    return parser


def _add_gateway(gateway: argparse.ArgumentParser) -> None:
    gateway.add_argument(
        "--config",
        metavar="FILE",
        help="the deployed gateway's configuration, name=value lines, instead of an environment; its variables"
        " EPICS_K2EG_... are read too, and alone if neither FILE nor ENV is given",
    )
    gateway.add_argument(
        "--set", action="append", metavar="NAME=VALUE", help="an option of the deployed gateway; overrides the others"
    )
    gateway.add_argument(
        "--print-config",
        action="store_true",
        help="print the effective configuration as an environment file, without secrets, and exit",
    )
    gateway.add_argument(
        "--processes",
        type=_positive,
        metavar="N",
        help="run N gateways of the group, each in a process of its own, and start them again (default: 1)",
    )
    gateway.add_argument("--log-format", choices=("text", "json"), help="how logs are written (default: text)")
    gateway.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), help="the least level (default: info)"
    )
    gateway.add_argument(
        "--metrics-port",
        type=_port,
        metavar="N",
        help="serve metrics and health over HTTP: /metrics, /healthz, /readyz (0: not, the default)",
    )
    gateway.add_argument("--metrics-host", metavar="H", help="the address to serve them on (default: 127.0.0.1)")


def _add_snapshot(snapshot: argparse.ArgumentParser) -> None:
    snapshot.add_argument("uris", nargs="+", type=_pv_uri, metavar="URI", help="pva://NAME or ca://NAME")
    snapshot.add_argument(
        "--window", type=_positive, metavar="MSEC", help="how long a one-shot snapshot waits for values"
    )
    snapshot.add_argument("--every", type=_positive, metavar="MSEC", help="take a recurring snapshot until Ctrl-C")
    snapshot.add_argument("--name", help="the recurring snapshot's name (default: a unique one)")
    snapshot.add_argument("--count", type=_positive, metavar="N", help="stop after N snapshots")
    snapshot.add_argument(
        "--all-values", action="store_true", help="all values of the window instead of the last (type timedbuffered)"
    )
    snapshot.add_argument(
        "--push", type=_positive, metavar="MSEC", help="with --all-values: publish partial results at this interval"
    )


def _shield_numbers(words: Sequence[str]) -> list[str]:
    """Keeps argparse, which recognizes -1 and -1.5 only, from treating -1e3 or -inf as an option."""
    # To argparse a word with a blank is never an option, and a blank does not change a number.
    return [f" {word}" if word.startswith("-") and is_number(word) else word for word in words]


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
        parser.error("a command is missing: get, put, monitor, snapshot, gateway or demo")
    if arguments.command == "snapshot" and arguments.every is None:
        for option in ("name", "count", "all_values", "push"):
            if getattr(arguments, option):
                parser.error(
                    f"snapshot: --{option.replace('_', '-')} needs --every, which makes the snapshot recurring"
                )
    if arguments.command == "snapshot" and arguments.every is not None and arguments.window is not None:
        parser.error("snapshot: --window is for one-shot snapshots; the window of a recurring one is --every")
    if arguments.command == "gateway" and arguments.config is not None and arguments.environment is not None:
        parser.error("gateway: give -e ENV or --config FILE, not both")
    arguments.environment = arguments.environment or os.environ.get(ENVIRONMENT_VARIABLE) or None
    arguments.app = arguments.app or os.environ.get(APP_NAME_VARIABLE) or DEFAULT_APP_NAME
    return arguments
