"""Past and present of some PVs, put together without gap or duplicate.

In: live updates, on the thread of the event pump; updates of the past, on the thread that reads them. Out: both to one
subscriber's inlet, the past first.

The subscriber is attached to the live routes before it is asked where the topics end. All that is in Kafka before
those ends is the past, and read; all that comes after them has to come live. What comes live meanwhile is held back, as
many updates as may wait for a subscriber. If there are more, the oldest are let go, and the past is read a little
further, up to them: Kafka keeps them, memory does not. So a subscriber that is slower than the PV stays with the past
for as long as it is, and nobody else waits for it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

from k2eg_rx.delivery import ReplayGate, SubscriberInput
from k2eg_rx.history.merging import Merge
from k2eg_rx.history.reader import Reading
from k2eg_rx.history.selection import Selection
from k2eg_rx.history.tasks import Wakeup
from k2eg_rx.protocol import PVUpdate, repeats
from k2eg_rx.transport import Partition, Record, Span

# What a pump hands over at a time must not be read back only because a subscriber has asked for little to wait.
_LEAST_HELD = 512
_LOOK = 1.0  # seconds until a look whether the bell was missed


class Splice:
    """The inlet of live updates of a subscriber that is still hearing the past.

    Belongs to the lock until it is joined; from then on only the pump's thread comes here.

    Args:
        inlet: The subscriber's.
        capacity: How many live updates may wait for the subscriber; so many are held back, or what comes at a time.
    """

    def __init__(self, inlet: SubscriberInput[PVUpdate], capacity: int) -> None:
        self._inlet = inlet
        self._capacity = max(capacity, _LEAST_HELD)
        self._lock = threading.Lock()
        self._held: deque[PVUpdate] = deque()
        self._let_go: dict[Partition, Span] = {}
        self._joined = False
        self._seams: dict[Partition, tuple[int, int]] = {}  # the end of the past, and the latest of Kafka's times there
        self._last: dict[str, Record] = {}  # of each PV, until its first live update
        self._told: frozenset[str] = frozenset()
        self.over = threading.Event()
        self.bell = Wakeup()

    newest_only = False  # which event is the newest is not known while the past is told

    def count_conflated(self, count: int) -> None:
        """Takes note of what was left out: nothing ever is, here; see `SubscriberInput.count_conflated`."""

    def offer(self, items: Sequence[PVUpdate]) -> None:
        """Takes live updates; see `SubscriberInput.offer`."""
        with self._lock:
            if not self._joined:
                self._hold(items)
                return
        if self._seams or self._last:
            items = [item for item in items if self._is_new(item)]
        if items:
            self._inlet.offer(items)

    def _hold(self, items: Sequence[PVUpdate]) -> None:
        self._held.extend(items)
        while len(self._held) > self._capacity:
            record = self._held.popleft().record
            partition = record[:2]
            span = self._let_go.get(partition, Span(record.offset, 0))
            self._let_go[partition] = Span(span.begin, max(span.end, record.offset + 1))

    def finish(self, error: Exception | None = None) -> None:
        """Ends the stream, whatever is left of the past; see `SubscriberInput.finish`."""
        self._inlet.finish(error)
        self.over.set()
        self.bell.ring()

    def cancel_and_drain(self) -> Sequence[object]:
        """Ends the stream; see `SubscriberInput.cancel_and_drain`. What is held back was not handed over either."""
        with self._lock:
            held, self._held = list(self._held), deque()
        return [*self._inlet.cancel_and_drain(), *held]

    def reclaim_undelivered(self, is_wanted: Callable[[PVUpdate], bool]) -> Sequence[PVUpdate]:  # noqa: ARG002
        """Returns nothing: a member of a group reads no history; see `SubscriberInput.reclaim_undelivered`."""
        return ()

    def let_go(self) -> Mapping[Partition, Span]:
        """Returns which parts of the present have become the past because they could not be held."""
        with self._lock:
            return dict(self._let_go)

    def join(self, read: Mapping[Partition, Span], merge: Merge, selection: Selection, sluice: ReplayGate) -> bool:
        """Goes live, unless there is more to be read: then nothing happens, and False is returned.

        Args:
            read: The parts that were let go and have been read since.
            merge: What was read.
            selection: What was told.
            sluice: Joined to the valve that the event pump heeds.
        """
        with self._lock:
            if self._let_go != read:
                return False
            self._seams = {partition: seam for partition, seam in merge.covered().items() if seam[0] > 0}
            self._last = dict(selection.last)
            self._told = frozenset(selection.last)
            present = [*selection.before(), *(update for update in self._held if self._is_new(update))]
            self._held.clear()
            if present:
                self._inlet.offer(present)
            sluice.join()
            self._joined = True
        return True

    def _is_new(self, update: PVUpdate) -> bool:
        """Whether it was not told as the past already.

        The pump may be behind the reader of the past. A topic that was made again begins with low offsets once more;
        its records are younger than all that were read.
        """
        record = update.record
        seam = self._seams.get(record[:2])
        if seam is not None:
            if record.offset >= seam[0]:
                del self._seams[record[:2]]
            elif update.name in self._told and record.timestamp_ms <= seam[1]:
                return False
        last = self._last.pop(update.name, None)
        return last is None or not repeats(record.value, last.value)


class CatchUp:
    """The tale of a subscriber's way from the past to the present.

    Belongs to the thread that takes its steps, but for what belongs to the splice.

    Args:
        reading: What is read.
        splice: Where live updates are held back meanwhile.
        inlet: The subscriber's.
        sluice: The valve of the subscriber's mailbox.
        positions: Done when the live updates are certain to come.
    """

    def __init__(
        self,
        reading: Reading,
        splice: Splice,
        inlet: SubscriberInput[PVUpdate],
        sluice: ReplayGate,
        positions: Sequence[Future[None]],
    ) -> None:
        self._reading = reading
        self._splice = splice
        self._inlet = inlet
        self._sluice = sluice
        self._positions = list(positions)
        self._merge: Merge | None = None
        self._read: Mapping[Partition, Span] = {}
        self.bell = splice.bell
        self.over = splice.over
        sluice.on_open = self.bell.ring
        for position in positions:
            position.add_done_callback(lambda _: self.bell.ring())

    def step(self) -> float | None:
        """Does a little; see `StepTask.step`."""
        self._positions = [position for position in self._positions if not _is_fixed(position)]
        if self._positions:
            return _LOOK
        if self._merge is None:
            self._merge = self._reading.begin()
            return self._reading.pause
        if not self._sluice.is_open():
            self._reading.rest()
            return _LOOK
        told = self._reading.advance(self._merge, patient=True)
        if told:
            self._inlet.offer([update for _, update in told])
        elif self._merge.is_done:
            return self._go_live(self._merge)
        return self._reading.pause

    def _go_live(self, merge: Merge) -> float | None:
        if self._splice.join(self._read, merge, self._reading.selection, self._sluice):
            return None
        self._read = self._splice.let_go()
        merge.extend(self._read)
        return 0.0

    def fail(self, error: Exception) -> None:
        """Told that the past cannot be read."""
        self._inlet.finish(error)

    def close(self) -> None:
        """Gives back what it read with."""
        self._reading.close()


def _is_fixed(position: Future[None]) -> bool:
    """Whether a position is fixed.

    Raises:
        TransportError: It will never be.
    """
    if position.done():
        position.result()
        return True
    return False
