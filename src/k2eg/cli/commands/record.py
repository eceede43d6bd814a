"""``k2eg record`` and ``k2eg replay``: PVs to a Parquet file, and back.

Thread safety: updates are counted on one of the client's threads; the main thread waits.
"""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from typing import Any

from reactivex import Observable
from reactivex import operators as ops
from reactivex.subject import Subject

from k2eg.cli.output import print_lines, print_note
from k2eg.cli.printing.formatting import Formatter
from k2eg.cli.printing.stream_printer import ConnectionReporter, StreamPrinter
from k2eg.cli.session import CommandError, open_client, until_signal
from k2eg.cli.values.pv_names import targets_of
from k2eg_rx import PVAddress, PVData, PVUpdate, Settings, Snapshot
from k2eg_rx import recording as files


def record(arguments: Namespace, settings: Settings) -> None:
    """Records PVs to a file until the count or duration is reached, or a signal ends it.

    Raises:
        K2EGError: A monitor was refused, or the file could not be written.
        CommandError: A PV sent nothing; the others are recorded.
        ValueError: The file exists.
        ModuleNotFoundError: The extra ``recording`` is not installed.
    """
    uris = [target.uri for target in targets_of(arguments.names, arguments, settings)]
    counts = Counter[str]()

    def count(update: PVUpdate) -> None:
        counts[update.name] += 1

    stop = Subject[None]()
    recorder = files.record(arguments.output)  # before anything is monitored: it may refuse the file
    printer = StreamPrinter(count, None)
    with open_client(settings, arguments) as client:
        client.status_stream().subscribe(ConnectionReporter().on_status)
        updates: Observable[PVUpdate] = client.monitor_many_stream(uris, since=arguments.since)
        if arguments.count is not None:
            updates = updates.pipe(ops.take(arguments.count))
        # the end comes through the stream, since a file that is completed by a disposal hides its errors
        updates.pipe(ops.take_until(stop), recorder).subscribe(printer.on_next, printer.end, printer.end)
        with until_signal():
            printer.wait(arguments.duration)
        stop.on_next(None)
        printer.wait()
    total = sum(counts.values())
    print_note(f"{total} updates of {len(counts)} PVs in {arguments.output}")
    silent = [uri for uri in uris if PVAddress.parse(uri).name not in counts]
    if silent and (arguments.count is None or total < arguments.count):
        raise CommandError(f"record: no update of {', '.join(silent)}; does the PV exist?")


def replay(arguments: Namespace) -> None:
    """Prints recorded items.

    Raises:
        RecordingError: A file is damaged, or no recording.
        ValueError: A file does not exist.
        ModuleNotFoundError: The extra ``recording`` is not installed.
    """
    width = 0

    def show(item: PVData | Snapshot) -> None:
        nonlocal width
        if isinstance(item, Snapshot):
            print_lines(Formatter(json=arguments.json, full=arguments.full).snapshot(item))
            return
        width = max(width, len(item.name))
        print_lines(Formatter(json=arguments.json, full=arguments.full, name_width=width).pv(item))

    printer = StreamPrinter(show, None)
    items: Observable[Any] = files.replay_file(arguments.files, speed=arguments.speed, pvs=arguments.only)
    with until_signal():
        reading = items.subscribe(printer.on_next, printer.end, printer.end)
        try:
            printer.wait()
        finally:
            reading.dispose()
