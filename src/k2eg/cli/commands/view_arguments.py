"""The arguments of the commands that show or keep the past of PVs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from k2eg.cli.arguments import (
    Parser,
    add_full_option,
    add_protocol,
    add_pvs,
    add_timeout_option,
    positive,
    pv_uri,
)
from k2eg.cli.printing.moments import parse_duration, parse_moment

if TYPE_CHECKING:
    from k2eg.cli.values.conditions import Condition
    from k2eg.cli.values.restoring import Tolerance


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def moment(text: str) -> datetime:
    """Returns the time that a text stands for."""
    try:
        return parse_moment(text, datetime.now().astimezone())
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _set_interval(arguments: argparse.Namespace) -> None:
    """Sets the interval. Its end is now unless it is given, as `since` is relative to now.

    Raises:
        ValueError: It is empty.
    """
    since, until = arguments.since, arguments.until or datetime.now().astimezone()
    if since >= until:
        raise ValueError(f"--since must be before --until, got {since} and {until}")
    arguments.interval = since, until


def _add_interval(parser: Parser, check: Callable[[argparse.Namespace], object]) -> None:
    """Adds the options for an interval.

    Args:
        parser: Of the command.
        check: Checks its other arguments.
    """

    def check_all(arguments: argparse.Namespace) -> None:
        check(arguments)
        _set_interval(arguments)

    parser.add_argument(
        "--since",
        type=moment,
        default="1h",
        metavar="TIME",
        help="from when on: 90s, 10m, 1h30m or 2d ago, 06:30, or 2026-11-29T06:30 (default: 1h)",
    )
    parser.add_argument("--until", type=moment, metavar="TIME", help="up to when, likewise (default: now)")
    parser.set_defaults(check=check_all)


def add_history(history: Parser) -> None:
    """Adds the arguments of ``history``."""
    add_pvs(history)
    _add_interval(history, history.get_default("check"))
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


def _condition(text: str) -> Condition:
    from k2eg.cli.values.conditions import parse_condition  # noqa: PLC0415 - needs the library

    try:
        return parse_condition(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_wait(wait: Parser) -> None:
    """Adds the arguments of ``wait``."""
    wait.add_argument("uri", type=pv_uri, metavar="PV", help="NAME, pva://NAME or ca://NAME")
    add_protocol(wait)
    wait.add_argument(
        "condition",
        type=_condition,
        metavar="CONDITION",
        help="'> 5', '>= 1 and < 3', '== On', 'severity < MAJOR', with and, or, not, ( and ); text in quotes",
    )
    wait.add_argument(
        "--timeout", type=_duration, default=60.0, metavar="TIME", help="when to give up: 90s, 10m (default: 60s)"
    )
    add_full_option(wait)


def add_record(record: Parser) -> None:
    """Adds the arguments of ``record``."""
    add_pvs(record)
    record.add_argument("-o", "--output", required=True, metavar="FILE", help="the Parquet file; it must not exist")
    record.add_argument("--since", type=moment, metavar="TIME", help="begin with what Kafka keeps since then")
    record.add_argument("--duration", type=_duration, metavar="TIME", help="stop after this time, such as 10m")
    record.add_argument("--count", type=positive, metavar="N", help="stop after N updates")


def add_replay(replay: Parser) -> None:
    """Adds the arguments of ``replay``."""
    replay.add_argument("files", nargs="+", metavar="FILE", help="the first file of a recording, or a folder of them")
    replay.add_argument(
        "--speed",
        type=_factor,
        metavar="X",
        help="1 for the recorded speed, 60 for an hour in a minute; else at once",
    )
    replay.add_argument("--only", action="append", metavar="PV", help="replay this PV; may be repeated")
    add_full_option(replay)


def _factor(text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return factor


def _tolerance(text: str) -> Tolerance:
    from k2eg.cli.values.restoring import Tolerance  # noqa: PLC0415 - needs the library

    try:
        return Tolerance.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _add_tolerance(parser: Parser) -> None:
    parser.add_argument(
        "--tolerance",
        type=_tolerance,
        default="0",
        metavar="X",
        help="numbers this near are the same: 0.01, or 1%% of the saved value (default: 0)",
    )


def add_diff(diff: Parser) -> None:
    """Adds the arguments of ``diff``."""
    diff.add_argument("files", nargs="+", metavar="FILE", help="of `k2eg snapshot -o`; with a second one, compare both")
    _add_tolerance(diff)
    add_timeout_option(diff)
    diff.set_defaults(check=_check_files)


def _check_files(arguments: argparse.Namespace) -> None:
    if len(arguments.files) > 2:
        raise ValueError(f"one file or two are compared, got {len(arguments.files)}")


def add_restore(restore: Parser) -> None:
    """Adds the arguments of ``restore``."""
    restore.add_argument("file", metavar="FILE", help="of `k2eg snapshot -o`")
    restore.add_argument("--dry-run", action="store_true", help="show what would be written, and write nothing")
    restore.add_argument(
        "--only", action="append", metavar="PATTERN", help="only PVs like this, such as 'QUAD:*'; may be repeated"
    )
    _add_tolerance(restore)
    restore.add_argument("--rate", type=_factor, default=10.0, metavar="HZ", help="values a second (default: 10)")
    restore.add_argument("--yes", action="store_true", help="do not ask")
    add_timeout_option(restore)


def add_trigger(trigger: Parser) -> None:
    """Adds the arguments of ``trigger``."""
    trigger.add_argument("name", metavar="NAME", help="of a snapshot that was started with --triggered")
    trigger.add_argument(
        "--tag",
        dest="tags",
        action="append",
        type=_tag,
        default=[],
        metavar="KEY=TEXT",
        help="for the snapshot; may be repeated",
    )
    add_timeout_option(trigger)


def add_stop(stop: Parser) -> None:
    """Adds the arguments of ``stop``."""
    stop.add_argument("name", metavar="NAME", help="of a recurring snapshot")
    add_timeout_option(stop)


def _tag(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not (key and sign):
        raise argparse.ArgumentTypeError(f"must be KEY=TEXT, got {text!r}")
    return key, value


def add_strip(strip: Parser) -> None:
    """Adds the arguments of ``strip``."""
    add_pvs(strip)
    collect = strip.get_default("check")
    add = strip.add_argument
    add(
        "--since",
        type=moment,
        default="10m",
        metavar="TIME",
        help="begin with what Kafka keeps since then: 90s, 10m, 1h30m ago, or 06:30 (default: 10m)",
    )
    add("--own", action="store_true", help="a scale for each PV, instead of one for all")
    add("--log", action="store_true", help="logarithmic scales")
    add("--range", type=_range, metavar="LOW:HIGH", help="the range of values to show, such as 0:100, -5:5")
    add(
        "--gap",
        type=_duration,
        metavar="TIME",
        help="how long a PV may be silent before its line ends (default: ten times the usual interval)",
    )
    add("--once", action="store_true", help="print one chart as text, and end")
    add("--until", type=moment, metavar="TIME", help="with --once: up to when (default: now)")

    def check(arguments: argparse.Namespace) -> None:
        from k2eg.cli.charts.chart_files import is_chart_file, read_chart_file  # noqa: PLC0415 - not for help

        arguments.file_curves = [
            curve for file in arguments.file if is_chart_file(file) for curve in read_chart_file(file)
        ]
        arguments.names += [curve.name for curve in arguments.file_curves]
        arguments.file = [file for file in arguments.file if not is_chart_file(file)]
        collect(arguments)
        if arguments.until is not None and not arguments.once:
            raise ValueError("--until needs --once: a chart on a terminal goes on")
        _set_interval(arguments)

    strip.set_defaults(check=check)


def add_top(top: Parser) -> None:
    """Adds the arguments of ``top``."""
    add_pvs(top)
    top.add_argument("--alarms", action="store_true", help="only PVs that are in alarm or have no valid value")
    top.add_argument(
        "--sort",
        choices=("given", "name", "severity", "value", "age", "rate"),
        default="given",
        help="the order (default: as given)",
    )
    top.add_argument(
        "--stale",
        type=_duration,
        metavar="TIME",
        help="mark PVs without an update for this long (default: ten times the usual interval)",
    )


def _range(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        first, last = float(low), float(high)
    except ValueError:
        first = last = 0.0
    if not (first < last and last - first < float("inf")):
        raise argparse.ArgumentTypeError(f"must be LOW:HIGH, the lower number first, got {text!r}")
    return first, last
