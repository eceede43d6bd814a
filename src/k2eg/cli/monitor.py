"""``k2eg monitor``: prints the updates of PVs.

Thread safety: updates are printed on the client's worker threads, in order; the main thread waits.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from reactivex import Observable

from k2eg.cli.output import print_lines, print_note
from k2eg.cli.session import CommandError, formatter_for, open_client, until_signal
from k2eg.cli.stream_printer import ConnectionReporter, StreamPrinter
from k2eg_rx import Client, ConnectionEvent, ConnectionState, PVAddress, PVUpdate, Settings

_NOTICE_SECONDS = 3.0  # a gateway connects a PV within one second; after three, the PV is worth a note


def monitor(arguments: Namespace, settings: Settings) -> None:
    """Prints the updates of PVs until the count or duration is reached, or a signal ends it.

    Raises:
        K2EGError: The monitor could not be activated.
        CommandError: A PV sent no update within the timeout.
    """
    uris: Sequence[str] = arguments.uris
    formatter = formatter_for(arguments, uris)
    silent = {PVAddress.parse(uri).name: uri for uri in uris}

    unshown = set[str]()

    def show(update: PVUpdate | ConnectionEvent) -> None:
        if isinstance(update, ConnectionEvent):
            if not update.is_connected:
                print_lines(formatter.connection(update))
            return
        silent.pop(update.name, None)
        try:
            text = formatter.pv(update)
        except Exception as error:  # of one PV: the others go on
            if update.name not in unshown:
                print_note(f"{update.name} has a value that cannot be shown: {error}")
            unshown.add(update.name)
            return
        print_lines(text)

    printer = StreamPrinter(show, arguments.count, lambda item: isinstance(item, PVUpdate))
    reporter = ConnectionReporter(of_pvs=arguments.json)  # the lines of scripts are those of values
    with until_signal(), open_client(settings, arguments) as client:
        client.status_stream().subscribe(reporter.on_status)
        updates: Observable[Any] = client.monitor_many_stream(
            uris, overflow=arguments.overflow, connection=not arguments.json
        )
        updates.subscribe(printer.on_next, printer.end, printer.end)
        _wait_for_updates(printer, silent, client, arguments)


def _wait_for_updates(printer: StreamPrinter, silent: dict[str, str], client: Client, arguments: Namespace) -> None:
    timeout, duration = arguments.timeout, arguments.duration
    steps = sorted({_NOTICE_SECONDS} | {seconds for seconds in (timeout, duration) if seconds})
    waited = 0.0
    for step in steps:
        if printer.wait(step - waited):
            return
        waited = step
        names = ", ".join(list(silent.values()))
        connected = client.status.connection is ConnectionState.UP
        if step == timeout and names:
            why = client.status.reason or "does the PV exist?"
            raise CommandError(f"monitor of {names}: no update within {timeout:g} s; {why}")
        if step == duration:
            printer.end()
            return
        if step == _NOTICE_SECONDS and names and connected:
            print_note(f"still waiting for a first update of {names}")
    printer.wait()
