"""Assembles iterations of recurring snapshots by the numbers of their messages.

Newer gateways number the messages of an iteration. These may arrive in any order, the header first, and an iteration
may begin before the last messages of the one before it have arrived.

Thread safety: not thread-safe; an assembler belongs to one reader. Times are passed in.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum

from k2eg_rx.protocol.messages import SnapshotData, SnapshotHeader, SnapshotMessage, SnapshotTail
from k2eg_rx.protocol.snapshots import MAX_SAMPLES, SampleCollection, Snapshot
from k2eg_rx.pv import PVAddress

MAX_OPEN = 4  # iterations: gateways are known to be one ahead; three leave room
_REMEMBERED = 16  # headers of iterations handed over; a rebalance of a group repeats few


class Phase(Enum):
    """How far an iteration has come."""

    UNKNOWN = "unknown"  # none of its messages is held
    OPEN = "open"  # its tail has not arrived
    ENDED = "ended"  # its tail has arrived, others are missing
    READY = "ready"  # all have arrived


class Event(Enum):
    """The meaning of a message for its iteration."""

    PART = "part"  # its number is new
    TAIL = "tail"  # the tail, while others are missing
    LAST = "last"  # its number is new, and no other is missing
    RESTART = "restart"  # a header with which the gateway begins to count again
    DUPLICATE = "duplicate"  # its number has arrived before
    OLD = "old"  # of an iteration handed over before
    STRAY = "stray"  # of no iteration that could be open, or beyond its last number


class Action(Enum):
    """The assembler's action on a message."""

    BEGIN = "begin"  # open its iteration and keep it
    KEEP = "keep"
    RENEW = "renew"  # hand over what is open, then begin
    DROP = "drop"  # and count it by the event


TRANSITIONS: Mapping[tuple[Phase, Event], tuple[Action, Phase]] = {
    (Phase.UNKNOWN, Event.PART): (Action.BEGIN, Phase.OPEN),
    (Phase.UNKNOWN, Event.TAIL): (Action.BEGIN, Phase.ENDED),
    (Phase.OPEN, Event.PART): (Action.KEEP, Phase.OPEN),
    (Phase.OPEN, Event.TAIL): (Action.KEEP, Phase.ENDED),
    (Phase.OPEN, Event.LAST): (Action.KEEP, Phase.READY),
    (Phase.ENDED, Event.PART): (Action.KEEP, Phase.ENDED),
    (Phase.ENDED, Event.LAST): (Action.KEEP, Phase.READY),
    **{(phase, Event.RESTART): (Action.RENEW, Phase.OPEN) for phase in Phase},
    **{(phase, event): (Action.DROP, phase) for phase in Phase for event in (Event.OLD, Event.STRAY)},
    **{(phase, Event.DUPLICATE): (Action.DROP, phase) for phase in Phase if phase is not Phase.UNKNOWN},
}


class _Iteration:
    """The messages of one iteration.

    Attributes:
        index: The iteration's number.
        phase: How far it has come.
        header: Its header, or None.
        tail: Its tail, or None.
        samples: The order of each sample and the sample, as they arrived.
        excess: The number of samples that were not kept.
        problems: Counts the samples that cannot be used, by reason.
        due: The time at which it is handed over without what is missing; None while nothing is overdue.
    """

    __slots__ = (
        "_above",
        "_below",
        "_collection",
        "_is_sorted",
        "due",
        "excess",
        "header",
        "highest",
        "index",
        "phase",
        "problems",
        "samples",
        "tail",
    )

    def __init__(self, index: int, collection: SampleCollection) -> None:
        self._collection = collection
        self.problems: Counter[str] = Counter()
        self.index = index
        self.phase = Phase.OPEN
        self.header: SnapshotHeader | None = None
        self.tail: SnapshotTail | None = None
        self.samples: list[tuple[tuple[int, int], SnapshotData]] = []
        self.excess = 0
        self.due: float | None = None
        self.highest = 1
        self._below = 0  # all numbers up to this one have arrived
        self._above: set[int] = set()  # those beyond the first gap
        self._is_sorted = True

    def number_of(self, message: SnapshotMessage) -> int:
        """Returns a message's number; one without follows those that have arrived."""
        if isinstance(message, SnapshotHeader):
            return 1
        total = message.total_messages if isinstance(message, SnapshotTail) else None
        return message.msg_seq or total or self.highest + 1

    def has(self, number: int) -> bool:
        """Returns whether a number has arrived."""
        return number <= self._below or number in self._above

    def is_full(self) -> bool:
        """Returns whether so many numbers have arrived out of order that no more are kept."""
        return len(self._above) >= MAX_SAMPLES

    def total(self, tail: SnapshotTail | None = None) -> int | None:
        """Returns the number of messages, as its tail, or one that arrives, tells it; None without a tail."""
        if self.tail is not None:
            return self.highest
        return None if tail is None else max(self.number_of(tail), self.highest)

    def arrived(self) -> int:
        """Returns how many numbers have arrived."""
        return self._below + len(self._above)

    def missing(self) -> int:
        """Returns how many messages are missing; without a tail, how many are known to be."""
        unsent = 0 if self.tail is None else self.tail.missing_messages
        return unsent + max((self.total() or self.highest + 1) - self.arrived(), 0)

    def keep(self, message: SnapshotMessage, *, excess: bool) -> None:
        """Takes a message whose number is new; `excess` drops its sample."""
        number = self.number_of(message)
        if isinstance(message, SnapshotHeader):
            self.header = message
        elif isinstance(message, SnapshotTail):
            self.tail = message
        elif excess:
            self.excess += 1
        else:
            order = (message.submission_seq or 0, number)
            self._is_sorted = self._is_sorted and (not self.samples or self.samples[-1][0] < order)
            self.samples.append((order, message))
            if self._is_sorted:  # now rather than all at once at the end, which would delay other records
                self._add(message)
        self.highest = max(self.highest, number)
        self._above.add(number)
        while self._below + 1 in self._above:
            self._below += 1
            self._above.remove(self._below)

    def _add(self, sample: SnapshotData) -> None:
        problem = self._collection.add(sample.pv_name, sample.data)
        if problem:
            self.problems[problem] += 1

    def collected(self) -> SampleCollection:
        """Returns the samples, by partial push, then by number."""
        if not self._is_sorted:
            self._collection.start()
            self.problems.clear()
            self.samples.sort(key=lambda sample: sample[0])
            for _, sample in self.samples:
                self._add(sample)
        self._collection.excess += self.excess
        return self._collection

    def times(self) -> tuple[int, int]:
        """Returns the times of header and tail, or of the messages next to them."""
        if self.header is not None and self.tail is not None:
            return self.header.timestamp, self.tail.timestamp
        ends = [message.timestamp for message in (self.header, self.tail) if message is not None]
        stamps = sorted([message.timestamp for _, message in self.samples] + ends) or [0]
        return (stamps[0] if self.header is None else ends[0]), (stamps[-1] if self.tail is None else ends[-1])


class NumberAssembler:
    """Assembles `Snapshot`s from messages with numbers.

    An iteration is handed over when its numbers are complete, after those before it; or incomplete, when it is overdue:
    `wait` seconds after its tail or a message of a later iteration, when `MAX_OPEN` others are open, or when the
    gateway begins to count again.

    Args:
        name: The name of the snapshots.
        addresses: The requested PVs.
        max_samples: The bound on the samples of all open iterations together.
        counts: Counts what is dropped, and incomplete iterations.
        wait: Seconds that missing messages are waited for.
    """

    def __init__(
        self, name: str, addresses: Iterable[PVAddress], max_samples: int, counts: Counter[str], wait: float
    ) -> None:
        self.open: dict[int, _Iteration] = {}
        self._name = name
        self._collection = SampleCollection(addresses, max_samples)
        self._max_samples = max_samples
        self._counts = counts
        self._wait = wait
        self._held = 0  # samples of all open iterations
        self._passed: int | None = None  # the highest iteration that cannot be opened any more; None before a header
        self._handed_over: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)

    @property
    def deadline(self) -> float | None:
        """The time at which the first open iteration is overdue, or None."""
        return self.open[min(self.open)].due if self.open else None

    def feed(self, message: SnapshotMessage, now: float) -> Sequence[Snapshot]:
        """Processes a message. Returns the snapshots that are handed over."""
        iteration = self.open.get(message.iter_index)
        event = self._event(message, iteration)
        action, phase = TRANSITIONS[Phase.UNKNOWN if iteration is None else iteration.phase, event]
        if action is Action.DROP:
            self._counts[event.value] += 1
            return ()
        snapshots: list[Snapshot] = []
        if action is Action.RENEW:
            snapshots += self.flush()
            self._passed = message.iter_index - 1
        if iteration is None or action is Action.RENEW:
            iteration = self._begin(message.iter_index, now)
        self._keep(iteration, message)
        iteration.phase = phase
        if phase is Phase.ENDED and iteration.due is None:
            iteration.due = now + self._wait
        while len(self.open) > MAX_OPEN:
            snapshots.append(self._hand_over(min(self.open)))
        return [*snapshots, *self.expire(-math.inf)] if phase is Phase.READY or snapshots else snapshots

    def expire(self, now: float) -> list[Snapshot]:
        """Hands over the iterations, in order, up to the first that is neither ready nor overdue."""
        snapshots: list[Snapshot] = []
        while self.open:
            first = self.open[min(self.open)]
            if first.phase is not Phase.READY and (first.due is None or first.due > now):
                break
            snapshots.append(self._hand_over(first.index))
        return snapshots

    def flush(self) -> list[Snapshot]:
        """Hands over all open iterations."""
        return [self._hand_over(index) for index in sorted(self.open)]

    def discard(self) -> None:
        """Drops all open iterations; continues as a reader that joins late."""
        self.open.clear()
        self._held, self._passed = 0, None

    def _event(self, message: SnapshotMessage, iteration: _Iteration | None) -> Event:
        if isinstance(message, SnapshotHeader):
            return self._event_of_header(message, iteration)
        if iteration is None:
            newest = max(self.open, default=self._passed)
            if newest is None or message.iter_index >= newest + MAX_OPEN:
                return Event.STRAY
            if self._passed is not None and message.iter_index <= self._passed:
                return Event.OLD
            return Event.TAIL if isinstance(message, SnapshotTail) else Event.PART
        tail = message if isinstance(message, SnapshotTail) else None
        header, number = iteration.header, iteration.number_of(message)
        if tail is not None and header is not None and tail.snapshot_name != header.snapshot_name:
            return Event.STRAY
        if iteration.has(number) or (tail is not None and iteration.tail is not None):
            return Event.DUPLICATE
        total = iteration.total(tail)
        if number == 1 or iteration.is_full() or (tail is None and total is not None and number > total):
            return Event.STRAY
        return self._completion(iteration, total, Event.PART if tail is None else Event.TAIL)

    def _event_of_header(self, header: SnapshotHeader, iteration: _Iteration | None) -> Event:
        if iteration is not None:
            if iteration.header is None:
                return self._completion(iteration, iteration.total(), Event.PART)
            return Event.DUPLICATE if iteration.header.timestamp == header.timestamp else Event.RESTART
        if (header.iter_index, header.timestamp) in self._handed_over:
            return Event.OLD
        return Event.PART if self._passed is None or header.iter_index > self._passed else Event.RESTART

    @staticmethod
    def _completion(iteration: _Iteration, total: int | None, otherwise: Event) -> Event:
        return Event.LAST if total is not None and iteration.arrived() + 1 >= total else otherwise

    def _begin(self, index: int, now: float) -> _Iteration:
        if self._passed is None:
            self._passed = index - 1
        iteration = self.open[index] = _Iteration(index, self._collection.empty())
        for earlier in self.open.values():  # what is missing of them comes after later messages, if it comes
            if earlier.due is None and earlier.index < max(self.open):
                earlier.due = now + self._wait
        return iteration

    def _keep(self, iteration: _Iteration, message: SnapshotMessage) -> None:
        if not isinstance(message, SnapshotData):
            iteration.keep(message, excess=False)
            return
        excess = self._held >= self._max_samples
        iteration.keep(message, excess=excess)
        if excess:
            self._counts["excess"] += 1
        else:
            self._held += 1

    def _hand_over(self, index: int) -> Snapshot:
        iteration = self.open.pop(index)
        self._passed = index
        self._held -= len(iteration.samples)
        self._collection = iteration.collected()  # knows which fields the gateway sends under their own name
        self._counts.update(iteration.problems)
        header, tail, (begin, end) = iteration.header, iteration.tail, iteration.times()
        missing = iteration.missing()
        self._counts.update(["incomplete"] if missing else [])
        if header is not None:
            self._handed_over.append((index, header.timestamp))
        return self._collection.snapshot(
            self._name,
            0 if tail is None else tail.error,
            "" if tail is None else tail.error_message,
            tags=None if header is None else header.tags,
            timestamp=end,
            iteration=index,
            header_timestamp=begin,
            tail_timestamp=end,
            missing=missing,
        )
