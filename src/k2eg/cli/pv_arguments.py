"""The arguments of ``get``, ``put`` and ``monitor``."""

from __future__ import annotations

from k2eg.cli.arguments import Parser, add_full_option, add_pvs, add_timeout_option, positive, pv_uri, seconds


def add_get(parser: Parser) -> None:
    """Adds the arguments of ``get``."""
    add_pvs(parser)
    add_full_option(parser)
    add_timeout_option(parser)


def add_put(parser: Parser) -> None:
    """Adds the arguments of ``put``."""
    parser.add_argument("uri", type=pv_uri, metavar="URI", help="pva://NAME or ca://NAME")
    parser.add_argument(
        "value", metavar="VALUE", help="a number, text, an enum's label or index; a list or an object in JSON"
    )
    parser.add_argument(
        "-c", "--wait", action="store_true", help="wait until the record has completed, as caput -c does"
    )
    parser.add_argument("--string", action="store_true", help="send VALUE as text even if it is a number")
    parser.add_argument("--no-check", action="store_true", help="send VALUE without converting it to the PV's type")
    parser.add_argument(
        "--verify", action="store_true", help="read the PV back, print it, and fail if it has another value"
    )
    add_full_option(parser)
    add_timeout_option(parser)


def add_monitor(parser: Parser) -> None:
    """Adds the arguments of ``monitor``."""
    parser.add_argument("uris", nargs="+", type=pv_uri, metavar="URI", help="pva://NAME or ca://NAME")
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
