"""The seam to Kafka: what the rest of the library needs of it, and no more.

`k2eg_rx.kafka` implements it over librdkafka, `k2eg_rx.testing` in memory; one contract suite runs over both.

A `RecordSource` owns one thread (the *pump*): it reads, and calls its `Receiver` there, a batch at a time.
Everybody else talks to it by `read`, `release`, `wake` and `close`, which may be called on any thread and
return at once (but for `close`).

A `History` is the other way round: it reads what topics still hold, when it is asked, on the thread that asks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

from k2eg_rx.errors import TransportError
from k2eg_rx.protocol import Headers, Record

Partition = tuple[str, int]  # a topic's name and the number of a partition of it
Offsets = Mapping[Partition, int]


class MissingTopicError(TransportError):
    """A topic does not exist, or not any more.

    Attributes:
        topic: Its name.
    """

    def __init__(self, text: str, topic: str) -> None:
        super().__init__(text, topic)
        self.topic = topic

    def __str__(self) -> str:
        return str(self.args[0])


class SourceClosedError(TransportError):
    """A source was closed before a topic's position was fixed: whoever closed it knows."""


class ConnectionState(Enum):
    """How it stands with the broker."""

    CONNECTING = "connecting"
    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class TransportStatus:
    """The state of the connection to the broker, and why.

    Attributes:
        connection: The state.
        reason: In words, what is wrong and what to do about it; empty while all is well.
        refused: Whether waiting is of no use: the broker refuses this program, or this program does not trust the
            broker. Somebody has to change a password, a certificate or an ACL.
    """

    connection: ConnectionState
    reason: str = ""
    refused: bool = False


# Takes the keys of a batch, and what tells the size of a body by its number there. Returns the numbers of those whose
# records are to be made and received, in order; the rest has been counted as left out. None: all.
ConflationFilter = Callable[[Sequence[bytes | None], Callable[[int], int]], Iterable[int] | None]


class Work(Protocol):
    """What is to be done about a batch that was received: subscribers are to be called."""

    @property
    def done(self) -> int:
        """How much of it is done; any thread may ask."""
        ...

    def run(self) -> None:
        """Does it, on the caller's thread."""
        ...

    def pass_on(self) -> None:
        """Leaves to others all of it that is not begun. Any thread."""
        ...


class Receiver(Protocol):
    """Where a source's records go. All methods are called by the source only, one at a time.

    One that has no use for the last four inherits them.
    """

    def ready(self) -> bool:
        """Whether another batch is welcome. While it is not, the source reads nothing, and asks again on `wake`."""
        ...

    def receive(self, records: Sequence[Record]) -> None:
        """Takes a batch, in order per partition. Must neither raise nor block."""
        ...

    def gather_work(self) -> Work | None:
        """Called before `receive`, by a source that offers its own thread for what `receive` makes to do.

        Returns:
            That work, which the caller has to run after `receive`. It may take long; another thread may go on to read
            and to receive meanwhile. None if nothing is left to the caller.
        """
        return None

    def prefer_small_batches(self) -> bool:
        """Whether batches are to be small for now, since somebody else needs the processor between them."""
        return False

    def conflation_filter(self) -> ConflationFilter | None:
        """Called before each batch. Returns what tells which of its records are wanted; None if all may be."""
        return None

    def reclaim_undelivered(self, partitions: Collection[Partition]) -> Offsets:  # noqa: ARG002
        """Called by a source that shares its topics, before partitions go to whichever member of the group.

        Returns:
            From where on what was received of them has been of no use yet. Nor will it be, for whoever gets a partition
            reads on from there.
        """
        return {}


class RecordSource(Protocol):
    """Reads topics, from an exact start, on a thread of its own.

    Attributes:
        on_gone: Called with a topic that was deleted while it was read, on a thread of the source's; must not block.
    """

    on_gone: Callable[[str], None]

    def read(self, topic: str) -> Future[None]:
        """Adds a topic, without disturbing the others.

        It is read from its end as it is now; one that does not exist yet, from its beginning once it appears.
        Reading a topic that is being read already changes nothing.

        Returns:
            A future that is done when the position is fixed; every record that is produced from then on will be
            received. It fails with `TransportError`.
        """
        ...

    def release(self, topic: str) -> None:
        """Stops reading a topic. A record of it that was read already may still be received."""
        ...

    def release_for_rebalance(self, topics: Collection[str], unused: Callable[[], Offsets]) -> None:
        """Stops reading topics, and has the source's group read on from where they were of use.

        Args:
            topics: Their names.
            unused: Called at once, when nothing that is received of the topics any more counts. Returns from where on
                what was received before was of no use, by topic and partition.
        """
        ...

    def wake(self) -> None:
        """Makes the source ask its receiver again whether it is ready."""
        ...

    def lag(self) -> int:
        """How many records of the topics read are in Kafka and not received yet, as far as known."""
        ...

    def close(self, timeout: float) -> None:
        """Stops the thread and leaves. Idempotent; at most `timeout` seconds."""
        ...


class RecordSink(Protocol):
    """Sends records. Any thread; never blocks on the broker."""

    def send(
        self,
        topic: str,
        value: bytes,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        on_delivery: Callable[[TransportError | None], None] | None = None,
    ) -> None:
        """Queues a record.

        Args:
            topic: Where to.
            value: The body.
            key: The key; it also selects the partition.
            headers: Kafka headers.
            on_delivery: Called once, on the sink's own thread, with None or what went wrong; that is a
                `MissingTopicError` if the topic is not there.

        Raises:
            MissingTopicError: The topic is not there.
            TransportError: The queue is full or the sink is closed.
        """
        ...

    def close(self, timeout: float) -> None:
        """Sends what is queued, for at most `timeout` seconds. Idempotent."""
        ...


class Presence(Protocol):
    """Stands in a consumer group so that a gateway sees that somebody listens."""

    def close(self, timeout: float) -> None:
        """Leaves the group. Idempotent."""
        ...


class Span(NamedTuple):
    """A part of a partition.

    Attributes:
        begin: The offset of its first record.
        end: The offset after its last record.
    """

    begin: int
    end: int


class Excerpt(NamedTuple):
    """What was read of some partitions.

    Attributes:
        records: The records, in order per partition.
        ends: The partitions whose end was reached, with the offset of the record that will come next there.
    """

    records: Sequence[Record]
    ends: Mapping[Partition, int]


class History(Protocol):
    """Reads what topics still hold, and disturbs no `RecordSource`.

    All calls come from one thread, that of who reads, and take little longer than the seconds they are given. Nothing
    is read in advance beyond a prefetch of bounded size, so who does not ask keeps Kafka waiting.
    """

    def locate(self, start_ms: int, stop_ms: int | None, timeout: float) -> Mapping[Partition, Span] | None:
        """Returns where the records of a time lie, for every partition of the topics that are there.

        Args:
            start_ms: Since when, by Kafka's own time stamps, Unix milliseconds. A broker that cannot look up times
                gives the partition's beginning.
            stop_ms: Until when; None for the end as it is now. Also the end if nothing is as late as that.
            timeout: Seconds after which it gives up and returns None: the broker did not answer.

        Raises:
            TransportError: It is of no use to ask again.
        """
        ...

    def read(self, wanted: Mapping[Partition, int], timeout: float) -> Excerpt:
        """Returns some records of partitions, perhaps none.

        Args:
            wanted: The offset to read from, for each partition from which records are welcome. If some there were
                deleted, it goes on with the oldest there is. A partition that is left out keeps its records.
            timeout: Seconds to wait for a first one.

        Raises:
            TransportError: It is of no use to ask again.
        """
        ...

    def close(self) -> None:
        """Leaves. Idempotent."""
        ...


class Transport(Protocol):
    """Makes the parts of a client's or a gateway's way to Kafka. What it makes, its user closes."""

    def replies(self, receiver: Receiver, topic: str) -> tuple[RecordSource, Future[None]]:
        """Returns a source for a reply topic, and the future of `read(topic)`. Creates the topic if it is missing."""
        ...

    def events(self, receiver: Receiver, group_name: str | None) -> RecordSource:
        """Returns a source for event topics.

        Args:
            receiver: Where its records go.
            group_name: None: every record of the topics is received. Given: the sources of that name share them
                through Kafka's group protocol, and go on where the group left off.
        """
        ...

    def history(self, topics: Sequence[str]) -> History:
        """Returns what reads the past of topics; called on the thread that then uses it.

        Raises:
            TransportError: It cannot be made.
        """
        ...

    def sink(self) -> RecordSink:
        """Returns a sink."""
        ...

    def presence(self, topic: str, app_name: str) -> Presence:
        """Returns a live member of a consumer group of the application, subscribed to the topic, reading nothing."""
        ...

    def on_status(self, listener: Callable[[TransportStatus], None]) -> None:
        """Has the listener called with each change of the connection's state, on a thread of the transport's."""
        ...

    def close(self, timeout: float) -> None:
        """Closes what the transport itself holds. Idempotent."""
        ...
