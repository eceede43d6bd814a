"""The interfaces of a transport: sources, sinks and histories of records.

`k2eg_rx.kafka` implements them over librdkafka, `k2eg_rx.testing` in memory; one contract suite (`tests/contract`) runs
over both, and a transport of a site's own should pass it.

Thread safety: a `RecordSource` owns one thread, the poll thread, and calls its `Receiver` only there. Its own methods
may be called on any thread and return at once, except `close`. A `History` is used by one thread, on which it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

from k2eg_rx.errors import TransportError
from k2eg_rx.protocol import Headers, Record
from k2eg_rx.texts import printable

Partition = tuple[str, int]  # a topic's name and the number of one of its partitions
Offsets = Mapping[Partition, int]


class MissingTopicError(TransportError):
    """A topic does not exist, or was deleted.

    Attributes:
        topic: Its name.
    """

    def __init__(self, text: str, topic: str) -> None:
        super().__init__(text, topic)
        self.topic = topic

    def __str__(self) -> str:
        return printable(str(self.args[0]))


class TransientError(TransportError):
    """The broker is away or overloaded; the same request may succeed later."""


class RecordTooLargeError(TransportError):
    """A record is larger than the broker or the topic accepts. It was not stored."""


class UnconfirmedError(TransportError):
    """A record was sent but not confirmed: the broker may have stored it. It is not sent again."""


class SourceClosedError(TransportError):
    """A source was closed before a topic's offsets were resolved."""


class ConnectionState(Enum):
    """The state of the connection to the broker.

    Attributes:
        CONNECTING: No broker has answered yet.
        UP: A broker answers.
        DOWN: No broker answers, or it refuses the client.
    """

    CONNECTING = "connecting"
    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class TransportStatus:
    """The state of the connection to the broker, and its reason.

    Attributes:
        connection: The state.
        reason: What is wrong and what to do about it; empty while nothing is.
        refused: Whether retrying is useless until a password, a certificate or an ACL is changed: the broker refuses
            this client, or this client does not trust the broker.
    """

    connection: ConnectionState
    reason: str = ""
    refused: bool = False


# Takes the keys of a batch and a function from a record's index in it to the size of its value. Returns the indices of
# the records to receive, in order, having counted the others as conflated; None: all.
ConflationFilter = Callable[[Sequence[bytes | None], Callable[[int], int]], Iterable[int] | None]


class InlineWork(Protocol):
    """The subscriber calls that a batch of records has caused, for the thread that received it."""

    @property
    def completed(self) -> int:
        """How many calls were made. Any thread."""
        ...

    def run(self) -> None:
        """Makes the calls on the calling thread, for a few milliseconds; then passes the rest on."""
        ...

    def pass_on(self) -> None:
        """Leaves the calls that have not begun to other threads. Any thread; idempotent."""
        ...


class FloodHints(Protocol):
    """How a receiver wants a flood of records. A source may ignore the hints; a receiver may inherit the defaults.

    Called on the poll thread.
    """

    def collect_inline(self) -> InlineWork | None:
        """Collects the subscriber calls that the next `receive` causes. Called by a source that runs them itself.

        Returns:
            The calls, which the caller has to run after `receive`. A subscriber may block in them, so another thread
            should go on to poll meanwhile. None if the receiver does not support it.
        """
        return None

    def prefer_small_batches(self) -> bool:
        """Whether batches should be small for now, with pauses between them, for the sake of a request in flight."""
        return False

    def conflation_filter(self) -> ConflationFilter | None:
        """Returns the filter for the next batch, which leaves out updates that a newer one replaces; None: no filter.

        Called before each batch.
        """
        return None


class Receiver(FloodHints, Protocol):
    """Takes the records of one source. All methods are called on its poll thread, one at a time.

    Attributes:
        judges_age: Whether it asks `RecordSource.is_live`.
    """

    judges_age: bool = False

    def ready(self) -> bool:
        """Whether the receiver takes another batch. While it does not, the source does not read; `wake` asks again."""
        ...

    def receive(self, records: Sequence[Record]) -> None:
        """Takes a batch of records, in offset order per partition. Must neither raise nor block."""
        ...

    def commit_first(self, values: Sequence[bytes | None]) -> bool:  # noqa: ARG002
        """Whether the records with these values must not be received again by any member of the group.

        The source then commits their offsets before it passes them to `receive`; see `RecordSource.owns`.
        """
        return False

    def reclaim_undelivered(self, partitions: Collection[Partition]) -> Offsets:  # noqa: ARG002
        """Drops the records of partitions that no subscriber was called with. Called before a group gives them up.

        Returns:
            The lowest offset of the dropped records per partition, from which the partition's next owner reads on.
        """
        return {}

    def on_revoked(self, partitions: Collection[Partition], *, handed_over: bool) -> None:
        """Ends the receiver's right to act on records of partitions, which other members of the group may read now.

        Args:
            partitions: The partitions.
            handed_over: Whether the offsets that `reclaim_undelivered` returned just before are committed. Otherwise
                the session has expired or the commit failed: what was committed earlier is not received again.
        """


class Assignment(NamedTuple):
    """What a source reads.

    Attributes:
        partitions: The number of partitions; 0 for a member of a group that has more members than partitions.
        number: How often partitions were assigned, this time included.
        owned: The partitions.
    """

    partitions: int
    number: int
    owned: frozenset[Partition] = frozenset()


class RecordSource(Protocol):
    """Reads topics from exact offsets, on a poll thread of its own.

    Attributes:
        on_gone: Called with the name of a topic that was deleted while it was read, on a thread of the source; must
            not block.
    """

    on_gone: Callable[[str], None]

    def read(self, topic: str) -> Future[None]:
        """Starts to read a topic; topics that are being read already are not disturbed. Idempotent.

        Reading starts at the topic's end at the time of the call, or at its beginning if the topic does not exist yet
        and appears later.

        Returns:
            A future that completes when the start offsets are resolved; every record produced from then on is
            received. It fails with `TransportError`, or `SourceClosedError` if the source is closed before.
        """
        ...

    def release(self, topic: str) -> None:
        """Stops reading a topic. Records that were fetched already may still be received."""
        ...

    def release_for_rebalance(self, topics: Collection[str], unused: Callable[[], Offsets]) -> None:
        """Stops reading topics of a group, and commits the offsets from which the group reads on.

        Args:
            topics: Their names.
            unused: Called once records of the topics are no longer received; returns the lowest offset per partition
                of the records that were received in vain.
        """
        ...

    def wake(self) -> None:
        """Calls the receiver's `ready` again."""
        ...

    def lag(self) -> int:
        """Returns how many records of the topics are on the broker but not received yet, as far as known."""
        ...

    def is_behind(self) -> bool:
        """Whether so many records are not received yet that topics may be far apart. Any thread."""
        ...

    def assignment(self) -> Assignment | None:
        """Returns what is read; None before offsets are resolved, and while a group assigns its partitions anew."""
        ...

    def owns(self, partition: Partition, offset: int) -> bool:
        """Whether no other member of the group has received a record, or can receive it from now on.

        It holds for a while after a commit that covers the record. Any thread; does not wait for the broker.
        """
        ...

    def in_session(self) -> bool:
        """Whether the group cannot have given this member's partitions to others without its consent.

        It holds for a while after a commit (see `confirm`), and for a source without a group always. Any thread; does
        not wait for the broker.
        """
        ...

    def is_live(self, partition: Partition, offset: int) -> bool:
        """Whether a record was certainly written within the last seconds, whatever its time stamp says.

        Called in `Receiver.receive` with one of its records. False if that is not known, for example after an outage.
        """
        ...

    def confirm(self, done: Callable[[], None]) -> None:
        """Commits the offsets of received records, so that `owns` holds for them again if they are still this member's.

        Args:
            done: Called after the attempt, on a thread of the source; must not block.
        """
        ...

    def close(self, timeout: float) -> None:
        """Stops the thread and leaves the group, in at most `timeout` seconds. Idempotent."""
        ...


class RecordSink(Protocol):
    """Sends records. Methods may be called on any thread and never wait for the broker, except `close`."""

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        on_delivery: Callable[[TransportError | None], None] | None = None,
        timestamp_ms: int | None = None,
        still_wanted: Callable[[], bool] | None = None,
        partition: int | None = None,
    ) -> None:
        """Queues a record. Records of one topic and key are sent in the order of the calls, each at most once.

        Args:
            topic: The topic.
            value: The record's value; None for a tombstone.
            key: The record's key, which also selects the partition.
            headers: Kafka headers.
            on_delivery: Called once, on the sink's own thread, with None when the broker has the record, or with the
                error: `UnconfirmedError` if the broker may have it, any other if it does not, such as
                `MissingTopicError` or `RecordTooLargeError`. Must not block.
            timestamp_ms: The record's Kafka time stamp in Unix milliseconds; None: the time of the call.
            still_wanted: Asked, on any thread, right before the record is sent: if not, it is not sent but reported
                with an error. Must not block.
            partition: The partition, instead of the one that the key selects.

        Raises:
            MissingTopicError: The topic does not exist.
            RecordTooLargeError: The record is too large for the client's own limit.
            TransportError: The queue is full (the cause is a `BufferError`), or the sink is closed.
        """
        ...

    def close(self, timeout: float) -> None:
        """Sends what is queued, for at most `timeout` seconds. Idempotent."""
        ...


class Presence(Protocol):
    """A live member of a consumer group that reads nothing: it shows a gateway that an application is running."""

    def close(self, timeout: float) -> None:
        """Leaves the group, in at most `timeout` seconds. Idempotent."""
        ...


class Span(NamedTuple):
    """A range of offsets in a partition.

    Attributes:
        begin: The first offset.
        end: The offset after the last.
    """

    begin: int
    end: int


class Excerpt(NamedTuple):
    """Records that were read from some partitions.

    Attributes:
        records: The records, in offset order per partition.
        ends: The partitions whose end was reached, with the next offset to be written there.
    """

    records: Sequence[Record]
    ends: Mapping[Partition, int]


class History(Protocol):
    """Reads the records that topics still hold, independently of any `RecordSource`.

    All calls come from one thread and return soon after the given timeout. Beyond a prefetch of bounded size nothing is
    read in advance.
    """

    def locate(self, start_ms: int, stop_ms: int | None, timeout: float) -> Mapping[Partition, Span] | None:
        """Returns the offsets of an interval of time, for every partition of the topics that exist.

        Args:
            start_ms: Start of the interval by the records' Kafka time stamps, Unix milliseconds. A broker that cannot
                look up times gives the partition's beginning.
            stop_ms: End of the interval, exclusive. The partition's current end if None, or if no record is as late.
            timeout: Seconds to wait for the broker.

        Returns:
            The offsets; None if the broker did not answer in time.

        Raises:
            TransportError: Retrying is useless.
        """
        ...

    def read(self, wanted: Mapping[Partition, int], timeout: float) -> Excerpt:
        """Returns some records of partitions, perhaps none.

        Args:
            wanted: The partitions to read, with the next offset. Where that record was deleted (retention), reading
                goes on with the oldest. Partitions that are left out are not read.
            timeout: Seconds to wait for the first record.

        Raises:
            TransportError: Retrying is useless.
        """
        ...

    def close(self) -> None:
        """Releases the connection. Idempotent."""
        ...


class Transport(Protocol):
    """Makes the connections of one client or gateway to a broker. The caller closes what it makes.

    Methods may be called on any thread.
    """

    def replies(self, receiver: Receiver, topic: str) -> tuple[RecordSource, Future[None]]:
        """Returns a source for a reply topic, and the future of its `read`. Creates the topic if it does not exist."""
        ...

    def events(self, receiver: Receiver, group_name: str | None) -> RecordSource:
        """Returns a source for event topics.

        Args:
            receiver: Takes its records.
            group_name: None: the source receives every record of its topics. A name: the sources of that name share
                the records by Kafka's group protocol, and start at the group's committed offsets.
        """
        ...

    def history(self, topics: Sequence[str]) -> History:
        """Returns a reader of what topics still hold. Called on the thread that uses it.

        Raises:
            TransportError: It cannot be made.
        """
        ...

    def sink(self, *, linger: float = 0.0) -> RecordSink:
        """Returns a sink.

        Args:
            linger: Seconds for which it may keep a record, to send it with others in one request.
        """
        ...

    def presence(self, topic: str, app_name: str) -> Presence:
        """Returns a live member of the application's consumer group, subscribed to a topic that it does not read."""
        ...

    def on_status(self, listener: Callable[[TransportStatus], None]) -> None:
        """Calls a listener with the present state and each change, in order, on a thread of the transport.

        The listener must not block.
        """
        ...

    def close(self, timeout: float) -> None:
        """Closes what the transport itself holds, in at most `timeout` seconds. Idempotent."""
        ...
