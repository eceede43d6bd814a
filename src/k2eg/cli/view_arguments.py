"""The arguments of the commands that show or keep the past of PVs."""

from __future__ import annotations

import argparse
from datetime import datetime

from k2eg.cli.arguments import Parser, pv_uri
from k2eg.cli.moments import parse_duration, parse_moment


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _moment(text: str) -> datetime:
    try:
        return parse_moment(text, datetime.now().astimezone())
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_pvs(parser: Parser) -> None:
    """Adds the argument for PVs."""
    parser.add_argument("uris", nargs="+", type=pv_uri, metavar="URI", help="pva://NAME or ca://NAME")


def _check_interval(arguments: argparse.Namespace) -> None:
    """Raises ValueError for an interval that is empty."""
    if arguments.until is not None and arguments.since >= arguments.until:
        raise ValueError(f"--since must be before --until, got {arguments.since} and {arguments.until}")


def _add_interval(parser: Parser) -> None:
    parser.add_argument(
        "--since",
        type=_moment,
        default="1h",
        metavar="TIME",
        help="from when on: 90s, 10m, 1h30m or 2d ago, 06:30, or 2026-11-29T06:30 (default: 1h)",
    )
    parser.add_argument("--until", type=_moment, metavar="TIME", help="up to when, likewise (default: now)")
    parser.set_defaults(check=_check_interval)


def add_history(history: Parser) -> None:
    """Adds the arguments of ``history``."""
    add_pvs(history)
    _add_interval(history)
    history.add_argument(
        "--every", type=_duration, metavar="TIME", help="print the values at regular times, such as each 10s"
    )
    history.add_argument(
        "--gap", type=_duration, metavar="TIME", help="what counts as a gap (default: ten times the usual interval)"
    )
    history.add_argument("--summary", action="store_true", help="print the summary only")
    history.add_argument("--all", action="store_true", help="print all values instead of the newest 20")
    form = history.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print all values, or the summary, as comma-separated values")
    form.add_argument("--parquet", metavar="FILE", help="write all values to a file, which `k2eg replay` reads, too")
