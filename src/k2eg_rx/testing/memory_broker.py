"""The broker of the transport in memory: topics, partitions, offsets, consumer groups, and its ups and downs.

In: records and requests, from any thread. Out: records, to those who ask. All state belongs to `changed`, the broker's
lock; who waits for something waits on it. Nobody else's code is called while it is held.
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
    """A topic: a list of records per partition. A topic that is made again after it was deleted is another one."""

    def __init__(self, name: str, partitions: int) -> None:
        self.name = name
        self.partitions: list[list[Record]] = [[] for _ in range(partitions)]
        self._unkeyed = count()

    def append(self, value: bytes, key: bytes | None, headers: Headers, now_ms: int = -1) -> None:
        """Adds a record to the partition that its key selects; without a key, to one after the other."""
        number = next(self._unkeyed) if key is None else zlib.crc32(key)
        partition = number % len(self.partitions)
        records = self.partitions[partition]
        wired = tuple((name, text.encode() if isinstance(text, str) else text) for name, text in headers)
        records.append(Record(self.name, partition, len(records), key, value, wired, now_ms))


class Offsets:
    """Where a source is that reads alone. With the broker's lock held."""

    def __init__(self) -> None:
        self.next: dict[Partition, int] = {}  # what is not in it is read from its beginning

    def join(self, topic: str, source: object) -> None:
        """Takes note that a source reads a topic."""

    def leave(self, topic: str, source: object) -> None:  # noqa: ARG002 - it is the only one
        """Takes note that it does not any more."""
        self.next = {key: offset for key, offset in self.next.items() if key[0].name != topic}

    def pin(self, topic: Topic) -> None:
        """Starts at the end of a topic."""
        self.next.update(((topic, number), len(records)) for number, records in enumerate(topic.partitions))

    def await_topic(self, name: str) -> None:
        """Starts at the beginning of a topic that is not there yet."""

    def may_take(self, partition: Partition, source: object) -> bool:  # noqa: ARG002 - it is the only one
        """Whether the source may have the records of a partition now."""
        return True

    def took(self, partition: Partition, end: int) -> None:
        """Takes note that it has all before an offset in hand."""
        self.next[partition] = end

    def received(self, partition: Partition, end: int) -> None:
        """Takes note that it has received all before an offset."""


class Group(Offsets):
    """Where a consumer group is; the readers of a topic share its partitions, each has one reader at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._readers: dict[str, list[object]] = {}
        self._in_hand: set[Partition] = set()
        self._awaited: set[str] = set()

    def join(self, topic: str, source: object) -> None:
        """Takes note that a source reads a topic."""
        self._readers.setdefault(topic, []).append(source)

    def leave(self, topic: str, source: object) -> None:
        """Takes note that it does not any more."""
        self._readers[topic].remove(source)

    def pin(self, topic: Topic) -> None:
        """Starts at the end of a topic, where the group has not been there yet, nor has waited for it."""
        for number, records in enumerate(topic.partitions):
            self.next.setdefault((topic, number), 0 if topic.name in self._awaited else len(records))

    def await_topic(self, name: str) -> None:
        """Starts at the beginning of a topic that is not there yet."""
        self._awaited.add(name)

    def may_take(self, partition: Partition, source: object) -> bool:
        """Whether the source may have the records of a partition now."""
        topic, number = partition
        readers = self._readers[topic.name]
        return readers[number % len(readers)] is source and partition not in self._in_hand

    def took(self, partition: Partition, end: int) -> None:  # noqa: ARG002 - the group is not there yet
        """Takes note that a source has some in hand: nobody else gets more before it has received them."""
        self._in_hand.add(partition)

    def received(self, partition: Partition, end: int) -> None:
        """Takes note that it has received all before an offset."""
        self.next[partition] = end
        self._in_hand.discard(partition)


class MemoryBroker:
    """A broker in memory.

    Args:
        partitions: How many partitions a topic has that is made by sending to it.
        creates_topics: Whether it makes topics when somebody sends to them or wants replies on them; if not, they have
            to be made by `create_topic`.
        clock: Unix time in seconds, for the time stamps of records.
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
        """Whether it can be reached."""
        return self._status.connection is ConnectionState.UP

    def go_down(self, reason: str = "the broker went down") -> None:
        """Makes it unreachable: nothing is read, what is sent waits, positions wait to be fixed."""
        self._become(TransportStatus(ConnectionState.DOWN, reason))

    def come_up(self) -> None:
        """Makes it reachable again."""
        self._become(TransportStatus(ConnectionState.UP))

    def _become(self, status: TransportStatus) -> None:
        with self.changed:
            self._status = status
            for listener in self._listeners:
                listener(status)
            self.changed.notify_all()

    def watch(self, listener: Callable[[TransportStatus], None]) -> None:
        """Has a transport's announcements told of each change, and of the present state."""
        with self.changed:
            self._listeners.append(listener)
            listener(self._status)

    def unwatch(self, listener: Callable[[TransportStatus], None]) -> None:
        """Ends that."""
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
        """Returns the names of the topics there are."""
        with self.changed:
            return sorted(self._topics)

    def records(self, name: str) -> list[Record]:
        """Returns a topic's records, partition by partition; none if there is no such topic."""
        with self.changed:
            topic = self._topics.get(name)
            return [record for records in topic.partitions for record in records] if topic else []

    def present(self) -> list[str]:
        """Returns the names of the applications that are present at the moment."""
        with self.changed:
            return sorted(self._present)

    def topic(self, name: str) -> Topic | None:
        """Returns a topic, if there is one; with the lock held."""
        return self._topics.get(name)

    def group(self, name: str) -> Group:
        """Returns a consumer group; with the lock held."""
        return self._groups.setdefault(name, Group())

    def append(self, name: str, value: bytes, key: bytes | None, headers: Headers) -> TransportError | None:
        """Adds a record; returns why it cannot."""
        with self.changed:
            if self.creates_topics:
                self.create_topic(name)
            topic = self._topics.get(name)
            if topic is None:
                return TransportError(f"not sent to {name!r}: topic {name!r} does not exist")
            topic.append(value, key, headers, int(self._clock() * 1000))
            self.changed.notify_all()
            return None

    def enter(self, app_name: str) -> None:
        """Takes note that an application is present."""
        with self.changed:
            self._present.append(app_name)

    def leave(self, app_name: str) -> None:
        """Takes note that it is not any more."""
        with self.changed:
            self._present.remove(app_name)
