"""``k2eg monitor``: prints the updates of PVs.

Thread safety: updates are printed on the client's worker threads, in order; the main thread waits.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops

from k2eg.cli.commands.reading import SEARCH_SECONDS, Answer, answers, fallback_note
from k2eg.cli.output import print_lines, print_note, print_value
from k2eg.cli.printing.display import display_of
from k2eg.cli.printing.formatting import Formatter
from k2eg.cli.printing.stream_printer import ConnectionReporter, StreamPrinter
from k2eg.cli.session import CommandError, ExitCode, open_client, until_signal
from k2eg.cli.values.pv_names import Target, targets_of
from k2eg_rx import Client, ConnectionEvent, ConnectionState, PVUpdate, Settings

_NOTICE_SECONDS = 3.0  # a gateway connects a PV within one second; after three, the PV is worth a note
_COLLECT_SECONDS = 0.2  # for PVs that are found, to monitor them together


class _Shown:
    """Prints the updates of PVs, and knows those that had none.

    Args:
        targets: The PVs.
        formatter: Formats them.
    """

    def __init__(self, targets: Sequence[Target], formatter: Formatter) -> None:
        self._targets = {target.uri: target for target in targets}
        self._targets |= {target.other: target for target in targets if target.is_open}
        self._formatter = formatter
        self._silent = dict.fromkeys(targets)
        self._unshown = set[str]()

    @property
    def silent(self) -> list[str]:
        """The PVs without an update."""
        return [target.text for target in list(self._silent)]

    def show(self, update: PVUpdate | ConnectionEvent) -> None:
        """Prints an update, or that a PV is not connected."""
        if isinstance(update, ConnectionEvent):
            if not update.is_connected:
                print_lines(self._formatter.connection(update))
            return
        self._silent.pop(self._targets[update.address.uri], None)
        try:
            print_value(self._formatter, update)
        except OSError:
            raise
        except Exception as error:  # of one PV: the others go on
            if update.name not in self._unshown:
                print_note(f"{update.name} has a value that cannot be shown: {error}")
            self._unshown.add(update.name)


class Mask:
    """Decides which updates are printed: those that change the value, the alarm, or all.

    Called on one of the client's threads at a time.

    Args:
        mask: `v` for changes of the value, `a` for those of severity, status and message, both for all updates.
    """

    def __init__(self, mask: str) -> None:
        self._has_value, self._has_alarm = "v" in mask, "a" in mask
        self._last: dict[str, object] = {}

    def __call__(self, update: PVUpdate | ConnectionEvent) -> bool:
        """Returns whether an update is printed; connections always are."""
        if isinstance(update, ConnectionEvent) or (self._has_value and self._has_alarm):
            return True
        # numbers that are not equal to themselves, NaN, are equal as text
        new = repr(update.value) if self._has_value else update.alarm
        old = self._last.get(update.address.uri)
        self._last[update.address.uri] = new
        return old != new


def monitor(arguments: Namespace, settings: Settings) -> None:
    """Prints the updates of PVs until the count or duration is reached, or a signal ends it.

    Raises:
        K2EGError: The monitor could not be activated.
        CommandError: A PV sent no update within the timeout or the duration.
    """
    targets = targets_of(arguments.names, arguments, settings)
    formatter = display_of(arguments, [target.uri for target in targets])
    shown = _Shown(targets, formatter)
    printer = StreamPrinter(shown.show, arguments.count, lambda item: isinstance(item, PVUpdate))
    has_lines = not (arguments.json or arguments.csv or arguments.terse)  # those of scripts are values only
    reporter = ConnectionReporter(of_pvs=not has_lines)
    if head := formatter.head():
        print_lines(head)
    with until_signal(), open_client(settings, arguments) as client:
        client.status_stream().subscribe(reporter.on_status)
        updates = updates_of(client, targets, overflow=arguments.overflow, connection=has_lines)
        updates = updates.pipe(ops.filter(Mask(arguments.mask)))
        updates.subscribe(printer.on_next, printer.end, printer.end)
        _wait_for_updates(printer, shown, client, arguments)


def updates_of(client: Client, targets: Sequence[Target], *, overflow: str, connection: bool) -> Observable[Any]:
    """Returns the updates of PVs; those without a protocol are monitored over the one that answers.

    Args:
        client: The client.
        targets: The PVs.
        overflow: As of `monitor_many_stream`.
        connection: Whether to emit changes of connections, too.
    """

    def stream(uris: Sequence[str]) -> Observable[Any]:
        many: Observable[Any] = client.monitor_many_stream(uris, overflow=overflow, connection=connection)
        return many

    def found(batch: list[Answer]) -> Observable[Any]:
        if note := fallback_note(batch):
            print_note(note)
        return stream([answer.target.uri if answer.data is None else answer.uri for answer in batch])

    searched = [target for target in targets if target.is_open]
    known = [target.uri for target in targets if not target.is_open]
    streams = [stream(known)] if known else []
    if searched:
        batches = answers(client, searched, SEARCH_SECONDS).pipe(
            ops.buffer_with_time_or_count(_COLLECT_SECONDS, len(searched)), ops.filter(bool)
        )
        streams.append(batches.pipe(ops.flat_map(found)))
    return rx.merge(*streams)


def _wait_for_updates(printer: StreamPrinter, shown: _Shown, client: Client, arguments: Namespace) -> None:
    timeout, duration = arguments.timeout, arguments.duration
    steps = sorted({_NOTICE_SECONDS} | {seconds for seconds in (timeout, duration) if seconds})
    waited = 0.0
    for step in steps:
        if printer.wait(step - waited):
            return
        waited = step
        silent = shown.silent
        if silent and step in (timeout, duration):
            printer.end()
            raise _silence(silent, step, client)
        if step == duration:
            printer.end()
            return
        if step == _NOTICE_SECONDS and silent and client.status.connection is ConnectionState.UP:
            print_note(f"still waiting for a first update of {', '.join(silent)}")
    printer.wait()


def _silence(silent: Sequence[str], seconds: float, client: Client) -> CommandError:
    """Returns the error for PVs without an update."""
    status = client.status
    if status.connection is not ConnectionState.UP and status.reason:
        why, code = status.reason, ExitCode.NO_KAFKA
    elif status.silent_since is not None:
        why, code = "no gateway answers: is one running? it must read the same command topic", ExitCode.NO_GATEWAY
    else:
        why, code = status.reason or "does the PV exist?", ExitCode.FAILED
    return CommandError(f"monitor of {', '.join(silent)}: no update within {seconds:g} s; {why}", code)
