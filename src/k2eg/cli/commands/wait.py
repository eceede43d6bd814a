"""``k2eg wait``: waits until a PV fulfils a condition, for scripts.

Thread safety: the main thread waits and tests the updates.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops

from k2eg.cli.output import print_lines
from k2eg.cli.printing.formatting import format_value
from k2eg.cli.printing.stream_printer import ConnectionReporter
from k2eg.cli.session import CommandError, formatter_for, open_client
from k2eg.cli.values.conditions import Condition, ConditionError
from k2eg_rx import Client, ConnectionEvent, PVUpdate, Settings, first


def wait(arguments: Namespace, settings: Settings) -> None:
    """Waits until a PV fulfils the condition, and prints that value.

    Raises:
        K2EGError: The monitor was refused.
        CommandError: The PV did not fulfil it in time, or its value cannot be compared.
    """
    waiting = _Waiting(arguments.uri, arguments.condition)
    with open_client(settings, arguments) as client:
        client.status_stream().subscribe(ConnectionReporter(of_pvs=False).on_status)
        updates: Observable[Any] = client.monitor_stream(arguments.uri, connection=True)
        over: Observable[Any] = rx.timer(arguments.timeout).pipe(ops.map(lambda _: None))
        found: PVUpdate | None = first(rx.merge(updates.pipe(ops.filter(waiting.is_over_with)), over))
        if found is None:
            raise CommandError(waiting.reason(arguments.timeout, client))
    print_lines(formatter_for(arguments, [arguments.uri]).pv(found))


class _Waiting:
    """Tests updates, and knows why none has fulfilled the condition. Main thread.

    Args:
        uri: The PV.
        condition: What it must fulfil.
    """

    def __init__(self, uri: str, condition: Condition) -> None:
        self._uri = uri
        self._condition = condition
        self._newest: PVUpdate | None = None
        self._connection: ConnectionEvent | None = None

    def is_over_with(self, item: PVUpdate | ConnectionEvent) -> bool:
        """Returns whether an item is an update that fulfils the condition.

        Raises:
            CommandError: Its value cannot be compared.
        """
        if isinstance(item, ConnectionEvent):
            self._connection = item
            return False
        self._newest = item
        try:
            return self._condition.holds(item)
        except ConditionError as error:
            raise CommandError(f"wait for {self._uri} {self._condition.text}: {error}") from error

    def reason(self, seconds: float, client: Client) -> str:
        """Returns why the PV has not fulfilled the condition in time."""
        event, newest = self._connection, self._newest
        lost = "" if event is None or event.is_connected else f"{event.state.value.replace('_', ' ')}: {event.reason}"
        text = f"wait for {self._uri} {self._condition.text}: not fulfilled within {seconds:g} s"
        if newest is None:
            return f"{text}; no value: {lost or client.status.reason or 'does the PV exist?'}"
        value = f"{text}; the last value is {format_value(newest)}, {newest.severity.name}"
        return f"{value}; it is {lost}" if lost else value
