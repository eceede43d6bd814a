"""``k2eg wait``: waits until a PV fulfils a condition, for scripts.

Thread safety: updates are tested on one of the client's threads; the main thread waits.
"""

from __future__ import annotations

from argparse import Namespace

from k2eg.cli.output import print_lines
from k2eg.cli.printing.formatting import format_value
from k2eg.cli.printing.stream_printer import ConnectionReporter, StreamPrinter
from k2eg.cli.session import CommandError, formatter_for, open_client
from k2eg.cli.values.conditions import Condition, ConditionError
from k2eg_rx import Client, ConnectionEvent, PVUpdate, Settings


def wait(arguments: Namespace, settings: Settings) -> None:
    """Waits until a PV fulfils the condition, and prints that value.

    Raises:
        K2EGError: The monitor was refused.
        CommandError: The PV did not fulfil it in time, or its value cannot be compared.
    """
    waiting = _Waiting(arguments.uri, arguments.condition)
    with open_client(settings, arguments) as client:
        client.status_stream().subscribe(ConnectionReporter(of_pvs=False).on_status)
        updates = client.monitor_stream(arguments.uri, connection=True)
        updates.subscribe(waiting.take, waiting.printer.end, waiting.printer.end)
        if not waiting.printer.wait(arguments.timeout):
            raise CommandError(waiting.reason(arguments.timeout, client))
    if waiting.newest is not None:
        print_lines(formatter_for(arguments, [arguments.uri]).pv(waiting.newest))


class _Waiting:
    """Takes updates until one fulfils the condition.

    Written by the client's thread; the main thread reads after the end, or for the reason of a failure.
    """

    def __init__(self, uri: str, condition: Condition) -> None:
        self._uri = uri
        self._condition = condition
        self.newest: PVUpdate | None = None
        self._connection: ConnectionEvent | None = None
        self.printer = StreamPrinter(self._test, None)
        self.take = self.printer.on_next

    def _test(self, item: PVUpdate | ConnectionEvent) -> None:
        if isinstance(item, ConnectionEvent):
            self._connection = item
            return
        self.newest = item
        try:
            is_fulfilled = self._condition.holds(item)
        except ConditionError as error:
            raise CommandError(f"wait for {self._uri} {self._condition.text}: {error}") from error
        if is_fulfilled:
            self.printer.end()

    def reason(self, seconds: float, client: Client) -> str:
        """Returns why the PV has not fulfilled the condition in time."""
        event, newest = self._connection, self.newest
        lost = "" if event is None or event.is_connected else f"{event.state.value.replace('_', ' ')}: {event.reason}"
        text = f"wait for {self._uri} {self._condition.text}: not fulfilled within {seconds:g} s"
        if newest is None:
            return f"{text}; no value: {lost or client.status.reason or 'does the PV exist?'}"
        value = f"{text}; the last value is {format_value(newest)}, {newest.severity.name}"
        return f"{value}; it is {lost}" if lost else value
