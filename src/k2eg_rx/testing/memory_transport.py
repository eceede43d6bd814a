"""Kafka in memory, for tests of what uses this library: a broker, and the transports that share it.

In: records, by a transport's sink. Out: the same records, to the sources that read their topics, each on a thread of
its own; reports of delivery, on the sink's thread.

    broker = MemoryBroker()
    client = Client("test", "my-script", settings=settings, transport=MemoryTransport(broker))

With a stepper it has no threads: everything is done on the thread that drives it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future

from k2eg_rx.kafka import StatusEvents, check_group_name
from k2eg_rx.testing.memory_broker import MemoryBroker, Offsets
from k2eg_rx.testing.memory_history import MemoryHistory
from k2eg_rx.testing.memory_sink import MemorySink
from k2eg_rx.testing.memory_source import MemorySource
from k2eg_rx.testing.stepper import SteppedStatusEvents, Stepper
from k2eg_rx.transport import History, Presence, Receiver, RecordSink, RecordSource, TransportStatus

__all__ = ["MemoryBroker", "MemoryTransport"]


class MemoryPresence:
    """An application that is present.

    Args:
        broker: Where.
        app_name: Which.
    """

    def __init__(self, broker: MemoryBroker, app_name: str) -> None:
        self._leave = [lambda: broker.leave(app_name)]
        broker.enter(app_name)

    def close(self, timeout: float) -> None:  # noqa: ARG002 - there is nothing to wait for
        """Leaves; see `Presence.close`."""
        while self._leave:
            self._leave.pop()()


class MemoryTransport:
    """A way to a broker in memory; a `Transport`. Any number of them may share a broker.

    Args:
        broker: The broker.
        stepper: Given, it drives the transport's parts in place of their threads.
    """

    def __init__(self, broker: MemoryBroker, stepper: Stepper | None = None) -> None:
        self._broker = broker
        self._stepper = stepper
        self._announcements = StatusEvents() if stepper is None else SteppedStatusEvents(stepper)
        broker.watch(self._announcements.announce)

    def replies(self, receiver: Receiver, topic: str) -> tuple[RecordSource, Future[None]]:
        """Returns a source for a reply topic, and the future of `read(topic)`. Makes the topic if it is missing."""
        source = MemorySource(self._broker, receiver, Offsets(), "k2eg-replies", self._stepper)
        return source, source.read(topic, required=True)

    def events(self, receiver: Receiver, group_name: str | None) -> RecordSource:
        """Returns a source for event topics; see `Transport.events`.

        Raises:
            ValueError: The group may not be called that.
        """
        if group_name is None:
            return MemorySource(self._broker, receiver, Offsets(), "k2eg-events", self._stepper)
        check_group_name(group_name)
        with self._broker.changed:
            group = self._broker.group(group_name)
        return MemorySource(self._broker, receiver, group, "k2eg-events", self._stepper)

    def history(self, topics: Sequence[str]) -> History:
        """Returns what reads the past of topics; see `Transport.history`."""
        return MemoryHistory(self._broker, topics)

    def sink(self) -> RecordSink:
        """Returns a sink."""
        return MemorySink(self._broker, self._stepper)

    def presence(self, topic: str, app_name: str) -> Presence:  # noqa: ARG002 - no gateway looks at topics here
        """Makes the application one of `MemoryBroker.present`."""
        return MemoryPresence(self._broker, app_name)

    def on_status(self, listener: Callable[[TransportStatus], None]) -> None:
        """Has the listener called with the present state, and then with each change of it, on ``k2eg-status``."""
        self._announcements.listen(listener)

    def close(self, timeout: float) -> None:
        """Ends the transport's own thread. Idempotent."""
        self._broker.unwatch(self._announcements.announce)
        self._announcements.close(timeout)
