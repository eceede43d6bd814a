"""``k2eg history``: prints what Kafka keeps of PVs, after a summary.

Thread safety: the main thread waits; updates are printed on one of the client's threads, in the order of their times.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from tempfile import TemporaryFile
from typing import Any, TextIO

from reactivex import Observable

from k2eg.cli.commands.reading import no_history, read_history, uris_with_history
from k2eg.cli.output import print_lines
from k2eg.cli.printing.columns import aligned
from k2eg.cli.printing.formatting import Formatter, local_time, utc_time
from k2eg.cli.printing.history_grid import HistoryGrid
from k2eg.cli.printing.history_rows import VALUE_COLUMNS, GridRows, Rows, ValueRows, Write, csv_line, value_cells
from k2eg.cli.printing.history_summary import Summarizer, Summary
from k2eg.cli.printing.live_rows import format_age
from k2eg.cli.printing.progress import progress
from k2eg.cli.session import open_connected_client
from k2eg.cli.values.pv_names import targets_of
from k2eg_rx import Client, PVAddress, PVUpdate, Settings
from k2eg_rx.protocol import format_number, nanoseconds_of

_NEWEST = 20  # values that are printed unless more are asked for: a terminal has 24 lines
_COPIED = 65_536  # characters of a read from the temporary file


def history(arguments: Namespace, settings: Settings) -> None:
    """Prints the history of PVs.

    Raises:
        K2EGError: Kafka did not answer.
        CommandError: A PV has no history in this time; the others are printed first.
        ValueError: The file exists.
    """
    with open_connected_client(settings, arguments) as client:
        targets = targets_of(arguments.names, arguments, settings)
        _print(arguments, client, uris_with_history(client, targets, arguments.interval))


def _print(arguments: Namespace, client: Client, given: Sequence[str]) -> None:
    since, until = arguments.interval
    uris = {PVAddress.parse(uri).name: uri for uri in given}
    summaries = {name: Summarizer(name, arguments.gap) for name in uris}
    updates: Observable[PVUpdate] = client.replay_stream(given, since, until)
    if arguments.parquet is not None:
        from k2eg_rx.recording import record  # noqa: PLC0415 - an extra

        updates = updates.pipe(record(arguments.parquet))
    direct = arguments.json or arguments.csv
    with TemporaryFile("w+", encoding="utf-8", newline="\n", errors="backslashreplace") as spooled:
        rows = _rows(arguments, list(uris), print_lines if direct else lambda text: spooled.write(f"{text}\n"))

        count = 0

        def take(update: PVUpdate) -> None:
            nonlocal count
            count += 1
            summaries[update.name].add(update)
            rows.add(update)

        with nullcontext() if direct else progress(lambda: f"{count} updates read"):
            read_history(client, updates, take)
        stop = nanoseconds_of(until)
        rows.end(stop)
        results = [summary.result(stop) for summary in summaries.values()]
        if arguments.summary or not direct:
            _print_summary(results, arguments)
        _copy(spooled)
    if arguments.parquet is not None:
        print_lines(f"{sum(result.count for result in results)} updates in {arguments.parquet}")
    empty = [uris[result.name] for result in results if not result.count]
    if empty:
        raise no_history(empty)


def _rows(arguments: Namespace, names: Sequence[str], write: Write) -> Rows:
    if arguments.summary or arguments.parquet is not None:
        return Rows()
    if arguments.every is not None:
        grid = HistoryGrid(names, nanoseconds_of(arguments.interval[0]), arguments.every)
        return GridRows(grid, names, write, "json" if arguments.json else "csv" if arguments.csv else "text")
    if arguments.json:
        return ValueRows(Formatter(json=True).pv, write)
    if arguments.csv:
        write(csv_line(VALUE_COLUMNS))
        return ValueRows(lambda update: csv_line(value_cells(update)), write)
    formatter = Formatter(name_width=max(map(len, names)))
    return ValueRows(formatter.pv, write, None if arguments.all else _NEWEST)


def _copy(spooled: TextIO) -> None:
    spooled.seek(0)
    rest = ""
    while text := spooled.read(_COPIED):
        lines, newline, rest = (rest + text).rpartition("\n")
        if newline:
            print_lines(lines)


def _print_summary(results: Sequence[Summary], arguments: Namespace) -> None:
    if arguments.json:
        for result in results:
            print_lines(json.dumps(_summary_object(result)))
    elif arguments.csv:
        objects = [_summary_object(result) for result in results]
        print_lines("\n".join(map(csv_line, [objects[0].keys(), *(one.values() for one in objects)])))
    else:
        since, until = arguments.interval
        print_lines(
            f"from {since.astimezone():%Y-%m-%d %H:%M:%S} to {until.astimezone():%Y-%m-%d %H:%M:%S}"
            f" ({format_age((until - since).total_seconds())})"
        )
        print_lines("\n".join(summary_lines(results)))


def _summary_object(result: Summary) -> dict[str, Any]:
    found = asdict(result)
    del found["precision"]
    return found | {"first": utc_time(result.first), "last": utc_time(result.last)}


_HEADINGS = ("PV", "updates", "rate", "first", "gaps", "min", "mean", "max", "units", "in alarm")


def summary_lines(results: Sequence[Summary]) -> list[str]:
    """Returns the lines of a table with a row for each PV; columns without any entry are left out."""
    days = {local_time(time)[:10] for result in results for time in (result.first, result.last) if time is not None}
    shown = slice(11, 19) if len(days) == 1 else slice(0, 19)
    rows = [_HEADINGS, *(_summary_cells(result, shown) for result in results)]
    kept = [index for index in range(len(_HEADINGS)) if index < 2 or any(row[index] for row in rows[1:])]
    return aligned(
        [[row[index] for index in kept] for row in rows], [kept.index(i) for i in (1, 2, 5, 6, 7) if i in kept]
    )


def _summary_cells(result: Summary, shown: slice[int, int]) -> tuple[str, ...]:
    gaps = "" if not result.gaps else f"{result.gaps}, longest {format_age(result.longest_gap)}"
    return (
        result.name,
        str(result.count),
        "" if result.rate is None else f"{result.rate:.3g} Hz",
        local_time(result.first)[shown] if result.first is not None else "",
        gaps,
        *(
            "" if number is None else format_number(number, result.precision)
            for number in (result.least, result.mean, result.greatest)
        ),
        result.units,
        format_age(result.alarm_seconds) if result.alarm_seconds else "",
    )
