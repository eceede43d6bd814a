"""The record source of the in-memory broker.

Thread safety: methods on any thread; the receiver is called on the source's thread, or on the stepper's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future

from k2eg_rx.errors import TransportError
from k2eg_rx.testing.memory_broker import MemoryBroker, Offsets, Partition
from k2eg_rx.testing.stepper import Stepper
from k2eg_rx.texts import get_logger
from k2eg_rx.transport import Assignment, Receiver, Record, SourceClosedError
from k2eg_rx.transport import Offsets as Unused

_log = get_logger(__name__)

_MAX_BATCH = 500  # as over Kafka


class MemorySource:
    """Reads topics of the broker; a `RecordSource`. The broker's lock guards all state.

    Args:
        broker: The broker.
        receiver: Takes the records.
        offsets: The positions of this source, or of its consumer group.
        name: The thread's name.
        stepper: Runs the source instead of a thread of its own.
    """

    def __init__(
        self, broker: MemoryBroker, receiver: Receiver, offsets: Offsets, name: str, stepper: Stepper | None = None
    ) -> None:
        self._broker = broker
        self._receiver = receiver
        self._offsets = offsets
        self._reads: dict[str, Future[None]] = {}
        self._unresolved: set[str] = set()
        self._woken = False
        self._closed = False
        self.on_gone: Callable[[str], None] = lambda _: None
        self._thread: threading.Thread | None = None
        self._remove_step: Callable[[], None] = lambda: None
        if stepper is not None:
            self._remove_step = stepper.add_step(self._step)
        else:
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()

    def read(self, topic: str, *, required: bool = False) -> Future[None]:
        """Adds a topic; see `RecordSource.read`.

        Args:
            topic: The topic.
            required: Whether to create the topic if it is missing, or fail if the broker creates no topics.
        """
        with self._broker.changed:
            known = self._reads.get(topic)
            if known is not None:
                return known
            future: Future[None] = Future()
            future.set_running_or_notify_cancel()
            error = self._error_for(topic, required=required)
            if error is None:
                self._reads[topic] = future
                self._unresolved.add(topic)
                self._offsets.join(topic, self)
                self._broker.changed.notify_all()
        if error is not None:
            future.set_exception(error)
        self._resolve_positions()
        return future

    def _error_for(self, topic: str, *, required: bool) -> TransportError | None:
        if self._closed:
            return TransportError("the source is closed")
        if required and self._broker.creates_topics:
            self._broker.create_topic(topic)
        if required and self._broker.topic(topic) is None:
            return TransportError(f"topic {topic!r} is missing and this broker does not create topics")
        return None

    def _resolve_positions(self) -> None:
        """Sets the start positions of new topics, if the broker is up."""
        with self._broker.changed:
            if not self._broker.is_up:
                return
            futures = [self._reads[topic] for topic in self._unresolved]
            for name in self._unresolved:
                topic = self._broker.topic(name)
                if topic is None:
                    self._offsets.start_at_beginning(name)
                else:
                    self._offsets.start_at_end(topic)
            self._unresolved.clear()
        for future in futures:
            future.set_result(None)

    def release(self, topic: str) -> None:
        """Stops reading a topic; see `RecordSource.release`."""
        with self._broker.changed:
            future = self._drop(topic)
        if future is not None:
            future.set_exception(TransportError(f"topic {topic!r} was released before it could be read"))

    def release_for_rebalance(self, topics: Collection[str], unused: Callable[[], Unused]) -> None:
        """Stops reading topics; see `RecordSource.release_for_rebalance`."""
        with self._broker.changed:
            for (name, partition), offset in unused().items():
                known = self._broker.topic(name)
                if known is not None:
                    at = (known, partition)
                    self._offsets.next[at] = min(offset, self._offsets.next.get(at, offset))
            for topic in topics:
                self.release(topic)

    def _drop(self, topic: str) -> Future[None] | None:
        """Stops reading a topic; returns its future if it is still pending."""
        future = self._reads.pop(topic, None)
        if future is None:
            return None
        self._offsets.leave(topic, self)
        self._broker.changed.notify_all()
        if topic not in self._unresolved:
            return None
        self._unresolved.remove(topic)
        return future

    def wake(self) -> None:
        """Checks again whether the receiver is ready; see `RecordSource.wake`."""
        with self._broker.changed:
            self._woken = True
            self._broker.changed.notify_all()

    def lag(self) -> int:
        """Returns the number of unread records; see `RecordSource.lag`."""
        with self._broker.changed:
            return sum(
                max(len(topic.partitions[number]) - self._offsets.next.get((topic, number), 0), 0)
                for topic, number in self._partitions()
            )

    def is_behind(self) -> bool:
        """Returns False; see `RecordSource.is_behind`."""
        return False

    def assignment(self) -> Assignment | None:
        """Returns what is read; see `RecordSource.assignment`."""
        with self._broker.changed:
            owned = frozenset((topic.name, number) for topic, number in self._partitions())
            return Assignment(len(owned), 1, owned) if self._reads and not self._unresolved else None

    def owns(self, partition: tuple[str, int], offset: int) -> bool:  # noqa: ARG002 - positions never expire
        """Returns True: a partition has one reader until its records are received; see `RecordSource.owns`."""
        return True

    def in_session(self) -> bool:
        """Returns True; see `RecordSource.in_session`."""
        return True

    def is_live(self, partition: tuple[str, int], offset: int) -> bool:  # noqa: ARG002 - time stamps are right here
        """Returns False, so that the age is that of the time stamp; see `RecordSource.is_live`."""
        return False

    def confirm(self, done: Callable[[], None]) -> None:
        """See `RecordSource.confirm`."""
        done()

    def close(self, timeout: float) -> None:
        """Stops reading and ends the thread; see `RecordSource.close`."""
        with self._broker.changed:
            self._closed = True
            self._broker.changed.notify_all()
        if self._thread is None:
            self._remove_step()
            self._end()
        elif self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._closed:
            self._poll(wait=True)
        self._end()

    def _step(self) -> bool:
        return self._poll(wait=False)

    def _poll(self, *, wait: bool) -> bool:
        """Delivers a batch and returns whether there was one; with `wait`, waits if there is none."""
        self._resolve_positions()
        ready = self._is_ready()
        with self._broker.changed:
            records, ends = self._take() if ready and self._broker.is_up else ([], {})
            idle = not (records or self._woken or self._closed or (self._unresolved and self._broker.is_up))
            if idle and wait:
                self._broker.changed.wait()
            self._woken = False
        if records:
            self._deliver(records, ends)
        return bool(records)

    def _end(self) -> None:
        with self._broker.changed:
            pending = [future for topic in list(self._reads) if (future := self._drop(topic)) is not None]
        for future in pending:
            future.set_exception(SourceClosedError("the source is closed"))

    def _is_ready(self) -> bool:
        try:
            return self._receiver.ready()
        except Exception:
            _log.exception("receiver.ready failed")
            return True

    def _partitions(self) -> list[Partition]:
        topics = [topic for name in self._reads if (topic := self._broker.topic(name)) is not None]
        return [(topic, number) for topic in topics for number in range(len(topic.partitions))]

    def _take(self) -> tuple[list[Record], dict[Partition, int]]:
        records: list[Record] = []
        ends: dict[Partition, int] = {}
        for partition in self._partitions():
            topic, number = partition
            start = self._offsets.next.get(partition, 0)
            batch = topic.partitions[number][start : start + _MAX_BATCH - len(records)]
            if batch and topic.name not in self._unresolved and self._offsets.may_take(partition, self):
                ends[partition] = start + len(batch)
                self._offsets.mark_taken(partition, ends[partition])
                records.extend(batch)
        return records, ends

    def _deliver(self, records: Sequence[Record], ends: Mapping[Partition, int]) -> None:
        try:
            self._receiver.receive(records)
        except Exception:
            _log.exception("receiver failed: records=%d first=%s", len(records), records[0][:3])
        with self._broker.changed:
            for partition, end in ends.items():
                self._offsets.mark_received(partition, end)
            self._broker.changed.notify_all()
