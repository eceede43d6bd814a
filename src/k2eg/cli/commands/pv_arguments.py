"""The arguments of ``get``, ``put`` and ``monitor``."""

from __future__ import annotations

import argparse

from k2eg.cli.arguments import (
    Parser,
    add_full_option,
    add_protocol,
    add_pvs,
    add_timeout_option,
    positive,
    seconds,
    unshielded,
)
from k2eg.cli.printing.display import add_display


def add_get(parser: Parser) -> None:
    """Adds the arguments of ``get``."""
    add_pvs(parser)
    add_display(parser)
    parser.add_argument("-c", action="store_true", help="no effect: a get waits for the server, as caget -c does")
    add_full_option(parser)
    add_timeout_option(parser)


def add_put(parser: Parser) -> None:
    """Adds the arguments of ``put``."""
    add = parser.add_argument
    add("words", nargs="+", metavar="PV VALUE... | PV=VALUE...", help="the PV and its value, or several PV=VALUE")
    add("-a", "--array", action="store_true", help="VALUE begins with the number of elements, as for caput -a")
    add("-c", "--wait", action="store_true", help="wait until the record has completed, as caput -c does")
    add("-n", "--number", action="store_true", help="VALUE is an enum's index, even if a label is the same")
    add("-s", "-S", "--string", action="store_true", help="send VALUE as text even if it is a number")
    add("--dry-run", action="store_true", help="read, check and show, but write nothing")
    add("--no-check", action="store_true", help="send VALUE without reading the PV first and without conversion")
    add("--verify", action="store_true", help="fail (exit status 5) if another value is read back")
    add("--tolerance", type=_tolerance, metavar="X", help="the difference that --verify accepts: 0.5, or 1%%")
    add("-t", "--terse", action="store_true", help="print the new value only")
    add_protocol(parser)
    add_full_option(parser)
    add_timeout_option(parser)
    parser.set_defaults(check=_check_put)


def _tolerance(text: str) -> tuple[float, bool]:
    from k2eg.cli.values.put_values import parse_tolerance  # noqa: PLC0415 - not for help

    try:
        return parse_tolerance(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _check_put(arguments: argparse.Namespace) -> None:
    """Makes the values of each PV from the words. Raises ValueError if they are none."""
    from k2eg.cli.values.pv_names import check_name  # noqa: PLC0415 - not for help

    words = [unshielded(word) for word in arguments.words]
    if arguments.tolerance is not None and not arguments.verify:
        raise ValueError("--tolerance needs --verify")
    if arguments.dry_run and (arguments.no_check or arguments.verify):
        raise ValueError("--dry-run writes nothing: it needs neither --verify nor --no-check")
    name, *values = words
    if "=" not in name:
        if not values:
            raise ValueError(f"the following arguments are required: a VALUE for {name}")
        if arguments.array:
            count, *values = values
            if not count.isdigit() or int(count) != len(values):
                raise ValueError(f"-a needs the number of elements before them, got {count} and {len(values)} of them")
        arguments.values = {name: values}
    else:
        pairs = [word.partition("=") for word in words]
        wrong = [word for word, (_, sign, _) in zip(words, pairs, strict=True) if not sign]
        if wrong or arguments.array:
            raise ValueError(f"all words must be PV=VALUE, or the first one a PV, got {', '.join(wrong) or '-a'}")
        arguments.values = {pv: [value] for pv, _, value in pairs}
        if len(arguments.values) != len(pairs):
            raise ValueError("each PV may be given once")
    for pv in arguments.values:
        check_name(pv)


def _mask(text: str) -> str:
    """Returns which changes are printed."""
    if not text or set(text) - set("valp"):
        raise argparse.ArgumentTypeError(f"must be v, a or va, got {text!r}")
    if set(text) & set("lp"):
        raise argparse.ArgumentTypeError(
            f"must be v, a or va, got {text!r}: gateways publish changes of values and alarms, not those that are for"
            " archives (l), and properties (p) only with them"
        )
    return text


def add_monitor(parser: Parser) -> None:
    """Adds the arguments of ``monitor``."""
    add_pvs(parser)
    add_display(parser)
    parser.add_argument(
        "-m",
        dest="mask",
        type=_mask,
        default="va",
        metavar="MASK",
        help="v prints changes of the value only, a those of the alarm; l and p of camonitor do not exist here"
        " (default: %(default)s)",
    )
    parser.add_argument("--count", type=positive, metavar="N", help="stop after N updates")
    parser.add_argument("--duration", type=seconds, metavar="SECONDS", help="stop after this time")
    parser.add_argument("--timeout", type=seconds, metavar="SECONDS", help="fail if a PV sends no update in this time")
    parser.add_argument(
        "--overflow",
        choices=("block", "latest", "drop_oldest"),
        default="block",
        help="if printing is slower than the updates: lose none, print only the newest of each PV, or drop the oldest"
        " (default: %(default)s)",
    )
    add_full_option(parser)


def add_info(parser: Parser) -> None:
    """Adds the arguments of ``info``."""
    add_pvs(parser)
    add_timeout_option(parser)
