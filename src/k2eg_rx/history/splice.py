"""Joins the history of PVs to their live updates without gap or duplicate.

A subscriber is attached to the live routes before its topics' ends are resolved. All records before those ends are read
as history; all later ones arrive live. Live updates are held meanwhile, as many as may be queued for a subscriber. If
there are more, the oldest are spilled: Kafka keeps them, and the history is read further, up to them. So a subscriber
that is slower than its PVs stays in the history, and delays no other.

Thread safety: live updates come on the poll thread, history on the thread of its task.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

from k2eg_rx.delivery import ReplayGate, SubscriberInput
from k2eg_rx.history.merging import Merge
from k2eg_rx.history.reader import HistoryQuery
from k2eg_rx.history.selection import Selection
from k2eg_rx.history.tasks import Wakeup
from k2eg_rx.protocol import PVUpdate, repeats
from k2eg_rx.transport import Partition, Record, Span

_MIN_HELD = 512  # one batch must not be spilled only because the subscriber's capacity is small
_RECHECK = 1.0  # seconds to a step in case a wake-up was missed


class Splice:
    """The input of live updates while a subscriber gets history; a `SubscriberInput`.

    State belongs to the lock until `join`, then to the poll thread.

    Args:
        queue: The subscriber's.
        capacity: How many live updates may be queued for the subscriber; so many are held, but at least a batch.
    """

    newest_only = False  # which event is the newest is not known while history is read

    def __init__(self, queue: SubscriberInput[PVUpdate], capacity: int) -> None:
        self._queue = queue
        self._capacity = max(capacity, _MIN_HELD)
        self._lock = threading.Lock()
        self._held: deque[PVUpdate] = deque()
        self._spilled: dict[Partition, Span] = {}
        self._joined = False
        self._handover: dict[Partition, tuple[int, int]] = {}  # end of the history and its latest Kafka time stamp
        self._last: dict[str, Record] = {}  # of each PV, until its first live update
        self._reported: frozenset[str] = frozenset()
        self.ended = threading.Event()
        self.wakeup = Wakeup()

    def count_conflated(self, count: int) -> None:
        """Does nothing: nothing is conflated here."""

    def offer(self, items: Sequence[PVUpdate]) -> None:
        """Takes live updates; see `SubscriberInput.offer`."""
        with self._lock:
            if not self._joined:
                self._hold(items)
                return
        if self._handover or self._last:
            items = [item for item in items if self._is_new(item)]
        if items:
            self._queue.offer(items)

    def _hold(self, items: Sequence[PVUpdate]) -> None:
        self._held.extend(items)
        while len(self._held) > self._capacity:
            record = self._held.popleft().record
            partition = record[:2]
            span = self._spilled.get(partition, Span(record.offset, 0))
            self._spilled[partition] = Span(span.begin, max(span.end, record.offset + 1))

    def finish(self, error: Exception | None = None) -> None:
        """Ends the stream, even if history is left; see `SubscriberInput.finish`."""
        self._queue.finish(error)
        self.ended.set()
        self.wakeup.notify()

    def cancel_and_drain(self) -> Sequence[object]:
        """Ends the stream; returns held updates too. See `SubscriberInput.cancel_and_drain`."""
        with self._lock:
            held, self._held = list(self._held), deque()
        return [*self._queue.cancel_and_drain(), *held]

    def reclaim_undelivered(self, is_wanted: Callable[[PVUpdate], bool]) -> Sequence[PVUpdate]:  # noqa: ARG002
        """Returns nothing: a member of a group reads no history. See `SubscriberInput.reclaim_undelivered`."""
        return ()

    def spilled(self) -> Mapping[Partition, Span]:
        """Returns the offsets of the live updates that were spilled, which have to be read as history."""
        with self._lock:
            return dict(self._spilled)

    def join(self, read: Mapping[Partition, Span], merge: Merge, selection: Selection, gate: ReplayGate) -> bool:
        """Goes live, unless more was spilled than read; returns whether it does.

        Args:
            read: The spilled offsets that were read as history.
            merge: What was read.
            selection: What was reported.
            gate: The queue's; joined to the common gate.
        """
        with self._lock:
            if self._spilled != read:
                return False
            self._handover = {partition: end for partition, end in merge.covered().items() if end[0] > 0}
            self._last = dict(selection.last)
            self._reported = frozenset(selection.last)
            live = [*selection.before(), *(update for update in self._held if self._is_new(update))]
            self._held.clear()
            if live:
                self._queue.offer(live)
            gate.join()
            self._joined = True
        return True

    def _is_new(self, update: PVUpdate) -> bool:
        """Whether an update was not delivered as history already, as the poll thread may be behind the history reader.

        A topic that was deleted and created again begins with low offsets; its records are younger than all that were
        read.
        """
        record = update.record
        handover = self._handover.get(record[:2])
        if handover is not None:
            if record.offset >= handover[0]:
                del self._handover[record[:2]]
            elif update.name in self._reported and record.timestamp_ms <= handover[1]:
                return False
        last = self._last.pop(update.name, None)
        return last is None or not repeats(record, last)


class CatchUp:
    """The task that reads history until it reaches the live updates; a `StepTask`. Belongs to its steps' thread.

    Args:
        query: Reads the history; patient.
        splice: Holds live updates meanwhile.
        queue: The subscriber's.
        gate: The queue's.
        positions: Complete when the start offsets of the live updates are resolved.
    """

    def __init__(
        self,
        query: HistoryQuery,
        splice: Splice,
        queue: SubscriberInput[PVUpdate],
        gate: ReplayGate,
        positions: Sequence[Future[None]],
    ) -> None:
        self._query = query
        self._splice = splice
        self._queue = queue
        self._gate = gate
        self._positions = list(positions)
        self._merge: Merge | None = None
        self._read: Mapping[Partition, Span] = {}
        self.wakeup = splice.wakeup
        self.ended = splice.ended
        gate.on_open = self.wakeup.notify
        for position in positions:
            position.add_done_callback(lambda _: self.wakeup.notify())

    def step(self) -> float | None:
        """Reads a slice of history, or goes live; see `StepTask.step`."""
        self._positions = [position for position in self._positions if not _is_resolved(position)]
        if self._positions:
            return _RECHECK
        if self._merge is None:
            self._merge = self._query.begin()
            return self._query.pause
        if not self._gate.is_open():
            self._query.suspend()
            return _RECHECK
        updates = self._query.advance(self._merge)
        if updates:
            self._queue.offer([timed.update for timed in updates])
        elif self._merge.is_done:
            return self._go_live(self._merge)
        return self._query.pause

    def _go_live(self, merge: Merge) -> float | None:
        if self._splice.join(self._read, merge, self._query.selection, self._gate):
            return None
        self._read = self._splice.spilled()
        merge.extend(self._read)
        return 0.0

    def fail(self, error: Exception) -> None:
        """Fails the subscriber's stream."""
        self._queue.finish(error)

    def close(self) -> None:
        """Closes the query."""
        self._query.close()


def _is_resolved(position: Future[None]) -> bool:
    """Whether a start offset is resolved.

    Raises:
        TransportError: It cannot be resolved.
    """
    if position.done():
        position.result()
        return True
    return False
