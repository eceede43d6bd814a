"""An in-memory Kafka broker: topics, partitions, offsets, consumer groups and outages.

Thread safety: the condition `changed` guards all state and is notified of each change. No callback but status
listeners runs while it is held.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable
from itertools import count

from k2eg_rx.errors import TransportError
from k2eg_rx.transport import ConnectionState, Headers, Record, TransportStatus

Partition = tuple["Topic", int]


class Topic:
    """A topic: a list of records per partition. A topic that is deleted and created again is a new object."""

    def __init__(self, name: str, partitions: int) -> None:
        self.name = name
        self.partitions: list[list[Record]] = [[] for _ in range(partitions)]
        self._unkeyed = count()

    def append(
        self,
        value: bytes | None,
        key: bytes | None,
        headers: Headers,
        time_ms: int = -1,
        *,
        is_append_time: bool = False,
        partition: int | None = None,
    ) -> None:
        """Adds a record to a partition, that of its key by default; without a key, to the partitions in turn."""
        number = next(self._unkeyed) if key is None else zlib.crc32(key)
        partition = number % len(self.partitions) if partition is None else partition
        records = self.partitions[partition]
        encoded = tuple((name, text.encode() if isinstance(text, str) else text) for name, text in headers)
        record = Record(self.name, partition, len(records), key, value, encoded, time_ms, is_append_time)
        records.append(record)


class Offsets:
    """The positions of a source without a group. The caller holds the broker's lock."""

    def __init__(self) -> None:
        self.next: dict[Partition, int] = {}  # partitions that are missing here are read from the beginning

    def join(self, topic: str, source: object) -> None:
        """Registers a source as reader of a topic."""

    def leave(self, topic: str, source: object) -> None:  # noqa: ARG002 - there is one source
        """Removes a source as reader of a topic."""
        self.next = {key: offset for key, offset in self.next.items() if key[0].name != topic}

    def start_at_end(self, topic: Topic) -> None:
        """Sets the positions to the end of a topic."""
        self.next.update(((topic, number), len(records)) for number, records in enumerate(topic.partitions))

    def start_at_beginning(self, name: str) -> None:
        """Reads a topic that does not exist yet from its beginning."""

    def may_take(self, partition: Partition, source: object) -> bool:  # noqa: ARG002 - there is one source
        """Whether the source may read a partition now."""
        return True

    def mark_taken(self, partition: Partition, end: int) -> None:
        """Marks the records before an offset as taken by a source."""
        self.next[partition] = end

    def mark_received(self, partition: Partition, end: int) -> None:
        """Marks the records before an offset as received."""


class Group(Offsets):
    """The positions of a consumer group; each partition of a topic has one reader at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._readers: dict[str, list[object]] = {}
        self._taken: set[Partition] = set()
        self._awaited: set[str] = set()

    def join(self, topic: str, source: object) -> None:
        """Registers a source as reader of a topic."""
        self._readers.setdefault(topic, []).append(source)

    def leave(self, topic: str, source: object) -> None:
        """Removes a source as reader of a topic."""
        self._readers[topic].remove(source)

    def start_at_end(self, topic: Topic) -> None:
        """Sets positions to the end of a topic, unless the group has some or has waited for the topic."""
        for number, records in enumerate(topic.partitions):
            self.next.setdefault((topic, number), 0 if topic.name in self._awaited else len(records))

    def start_at_beginning(self, name: str) -> None:
        """Reads a topic that does not exist yet from its beginning."""
        self._awaited.add(name)

    def may_take(self, partition: Partition, source: object) -> bool:
        """Whether the source may read a partition now."""
        topic, number = partition
        readers = self._readers[topic.name]
        return readers[number % len(readers)] is source and partition not in self._taken

    def mark_taken(self, partition: Partition, end: int) -> None:  # noqa: ARG002 - the position moves when the records are received
        """Marks a partition as taken: no source reads it before the records are received."""
        self._taken.add(partition)

    def mark_received(self, partition: Partition, end: int) -> None:
        """Marks the records before an offset as received."""
        self.next[partition] = end
        self._taken.discard(partition)


class MemoryBroker:
    """An in-memory broker.

    Args:
        partitions: Number of partitions of topics created by sending to them.
        creates_topics: Whether sending to a topic or reading replies from it creates it, as ``auto.create.topics``;
            otherwise `create_topic` must be called.
        clock: Returns Unix time in seconds, for the timestamps of records.
    """

    def __init__(
        self, partitions: int = 1, *, creates_topics: bool = True, clock: Callable[[], float] = time.time
    ) -> None:
        self.changed = threading.Condition()
        self._clock = clock
        self.creates_topics = creates_topics
        self._partitions = partitions
        self._topics: dict[str, Topic] = {}
        self._groups: dict[str, Group] = {}
        self._present: list[str] = []
        self._status = TransportStatus(ConnectionState.UP)
        self._listeners: list[Callable[[TransportStatus], None]] = []

    @property
    def is_up(self) -> bool:
        """Whether the broker is reachable."""
        return self._status.connection is ConnectionState.UP

    def go_down(self, reason: str = "the broker went down") -> None:
        """Makes the broker unreachable: nothing is read, records to send and new readers wait."""
        self._set_status(TransportStatus(ConnectionState.DOWN, reason))

    def come_up(self) -> None:
        """Makes the broker reachable again."""
        self._set_status(TransportStatus(ConnectionState.UP))

    def _set_status(self, status: TransportStatus) -> None:
        with self.changed:
            self._status = status
            for listener in self._listeners:
                listener(status)
            self.changed.notify_all()

    def watch(self, listener: Callable[[TransportStatus], None]) -> None:
        """Calls the listener with the current status, then with each change."""
        with self.changed:
            self._listeners.append(listener)
            listener(self._status)

    def unwatch(self, listener: Callable[[TransportStatus], None]) -> None:
        """Removes a listener."""
        with self.changed:
            if listener in self._listeners:
                self._listeners.remove(listener)

    def create_topic(self, name: str, partitions: int | None = None) -> None:
        """Makes a topic; one that is there stays as it is."""
        with self.changed:
            if name not in self._topics:
                self._topics[name] = Topic(name, partitions or self._partitions)
                self.changed.notify_all()

    def delete_topic(self, name: str) -> None:
        """Deletes a topic and its records."""
        with self.changed:
            self._topics.pop(name, None)
            self.changed.notify_all()

    def topics(self) -> list[str]:
        """Returns the names of all topics."""
        with self.changed:
            return sorted(self._topics)

    def records(self, name: str) -> list[Record]:
        """Returns a topic's records, partition by partition; an empty list if the topic does not exist."""
        with self.changed:
            topic = self._topics.get(name)
            return [record for records in topic.partitions for record in records] if topic else []

    def present(self) -> list[str]:
        """Returns the names of the applications with an open `Presence`."""
        with self.changed:
            return sorted(self._present)

    def topic(self, name: str) -> Topic | None:
        """Returns a topic or None. The caller holds the lock."""
        return self._topics.get(name)

    def group(self, name: str) -> Group:
        """Returns a consumer group. The caller holds the lock."""
        return self._groups.setdefault(name, Group())

    def append(
        self,
        name: str,
        value: bytes | None,
        key: bytes | None,
        headers: Headers,
        timestamp_ms: int | None = None,
        *,
        partition: int | None = None,
    ) -> TransportError | None:
        """Adds a record, by default with the time of the call; returns the error if that fails."""
        with self.changed:
            if self.creates_topics:
                self.create_topic(name)
            topic = self._topics.get(name)
            if topic is None:
                return TransportError(f"not sent to {name!r}: topic {name!r} does not exist")
            now_ms = int(self._clock() * 1000)
            is_append_time = timestamp_ms is None
            time_ms = now_ms if timestamp_ms is None else timestamp_ms
            topic.append(value, key, headers, time_ms, is_append_time=is_append_time, partition=partition)
            self.changed.notify_all()
            return None

    def enter(self, app_name: str) -> None:
        """Adds an application to the present ones."""
        with self.changed:
            self._present.append(app_name)

    def leave(self, app_name: str) -> None:
        """Removes an application from the present ones."""
        with self.changed:
            self._present.remove(app_name)
