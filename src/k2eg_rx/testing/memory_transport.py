"""Kafka in memory, for tests: a broker and the transports that share it::

    broker = MemoryBroker()
    client = Client("test", "my-script", settings=settings, transport=MemoryTransport(broker))

Thread safety: as over Kafka; sources, sinks and status events have a thread each, or share that of a stepper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future

from k2eg_rx.kafka import StatusEvents
from k2eg_rx.testing.memory_broker import MemoryBroker, Offsets
from k2eg_rx.testing.memory_history import MemoryHistory
from k2eg_rx.testing.memory_sink import MemorySink
from k2eg_rx.testing.memory_source import MemorySource
from k2eg_rx.testing.stepper import SteppedStatusEvents, Stepper
from k2eg_rx.transport import History, Presence, Receiver, RecordSink, RecordSource, TransportStatus

__all__ = ["MemoryBroker", "MemoryTransport"]


class MemoryPresence:
    """Makes an application present from construction to `close`; a `Presence`.

    Args:
        broker: The broker.
        app_name: The application.
    """

    def __init__(self, broker: MemoryBroker, app_name: str) -> None:
        self._leave = [lambda: broker.leave(app_name)]
        broker.enter(app_name)

    def close(self, timeout: float) -> None:  # noqa: ARG002 - nothing to wait for
        """Ends the presence; see `Presence.close`."""
        while self._leave:
            self._leave.pop()()


class MemoryTransport:
    """A connection to an in-memory broker; a `Transport`. Any number of them may share a broker.

    Args:
        broker: The broker.
        stepper: Runs the transport's parts instead of threads.
    """

    def __init__(self, broker: MemoryBroker, stepper: Stepper | None = None) -> None:
        self._broker = broker
        self._stepper = stepper
        self._status_events = StatusEvents() if stepper is None else SteppedStatusEvents(stepper)
        broker.watch(self._status_events.announce)

    def replies(self, receiver: Receiver, topic: str) -> tuple[RecordSource, Future[None]]:
        """Returns a source for a reply topic and the future of `read(topic)`; creates the topic if it is missing."""
        source = MemorySource(self._broker, receiver, Offsets(), "k2eg-replies", self._stepper)
        return source, source.read(topic, required=True)

    def events(self, receiver: Receiver, group_name: str | None) -> RecordSource:
        """Returns a source for event topics; see `Transport.events`.

        Raises:
            ValueError: The group name is empty.
        """
        if group_name is None:
            return MemorySource(self._broker, receiver, Offsets(), "k2eg-events", self._stepper)
        if not group_name:
            raise ValueError("group_name must not be empty: leave it out to receive every event")
        with self._broker.changed:
            group = self._broker.group(group_name)
        return MemorySource(self._broker, receiver, group, "k2eg-events", self._stepper)

    def history(self, topics: Sequence[str]) -> History:
        """Returns a reader of past records; see `Transport.history`."""
        return MemoryHistory(self._broker, topics)

    def sink(self, *, linger: float = 0.0) -> RecordSink:  # noqa: ARG002 - no requests are saved here
        """Returns a sink, which does not linger."""
        return MemorySink(self._broker, self._stepper)

    def presence(self, topic: str, app_name: str) -> Presence:  # noqa: ARG002 - presence is not per topic here
        """Adds the application to `MemoryBroker.present`; see `Transport.presence`."""
        return MemoryPresence(self._broker, app_name)

    def on_status(self, listener: Callable[[TransportStatus], None]) -> None:
        """Calls the listener with the current status, then with each change, on thread ``k2eg-status``."""
        self._status_events.listen(listener)

    def close(self, timeout: float) -> None:
        """Ends the status thread. Idempotent."""
        self._broker.unwatch(self._status_events.announce)
        self._status_events.close(timeout)
