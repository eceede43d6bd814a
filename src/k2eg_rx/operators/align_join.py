"""The join behind `align`: updates of several PVs in, those that belong to one instant out. Pure; one joiner belongs
to one reader.

Each PV has a lane, in which its updates wait in order. The oldest of each lane are compared: if all lanes have one and
they lie together, they are an instant; if one lane is past the oldest of all, that one can never be matched, for a
lane does not go back. So what is emitted follows from each PV's own sequence, in whatever order the PVs' updates come
in between, as long as none is later than the grace. A heap of the lanes' heads makes it O(log n) per update.

By time the place of an update in its lane, its key, is its EPICS time; by pulse it is its pulse id with the wraps
counted, so that ids go on for ever and are compared for equality.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from k2eg_rx.operators.drops import AlignCounts, DropReason, OnDrop
from k2eg_rx.protocol import NANOSECONDS, PVUpdate

_NEVER = -(1 << 80)  # before every time and every pulse
_STEPS = 10  # so many updates in a row before their predecessor: no stragglers, the clock was set back
_MOST_HELD = 1024  # of one held PV while no instant needs them: 8 s at 120 Hz


@dataclass(frozen=True, slots=True)
class Aligned:
    """The updates of several PVs that belong to one instant.

    Attributes:
        timestamp: EPICS time of the oldest of them, held ones aside, in integer nanoseconds since the Unix epoch.
        pulse_id: Their pulse id; None if they were joined by time.
        updates: By PV name, in the order in which the PVs were named.
        missing: The PVs without an update; none unless partial instants are asked for.
    """

    timestamp: int
    pulse_id: int | None
    updates: Mapping[str, PVUpdate]
    missing: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether every PV has an update."""
        return not self.missing

    def values(self) -> dict[str, Any]:
        """Returns the plain value of each PV."""
        return {name: update.value for name, update in self.updates.items()}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to join, and how. Times in nanoseconds.

    Attributes:
        names: The PVs, held ones included.
        hold: Of which PVs the last known value counts, and how old it may be.
        tolerance: How far apart the times of one instant may be; None by pulse: as far as they are.
        grace: How far behind the newest time an update may come.
        partial: Whether incomplete instants are emitted.
        most: How many updates may wait.
        mask: Where the pulse id is in the nanoseconds; 0 joins by time.
    """

    names: tuple[str, ...]
    hold: Mapping[str, float]
    tolerance: int | None
    grace: int
    partial: bool
    most: int
    mask: int


class _Lane:
    """One PV's updates that wait, as (key, time, update).

    Attributes:
        time: EPICS time of the newest.
        key: Key of the newest.
        closed: Up to which key instants were emitted without this PV.
        behind: How many in a row were before their predecessor.
        is_used: Of a held PV: whether its oldest is part of an instant.
    """

    __slots__ = ("age", "behind", "closed", "is_used", "key", "name", "number", "queue", "time")

    def __init__(self, name: str, number: int, age: float | None) -> None:
        self.name = name
        self.number = number
        self.age = age
        self.queue: deque[tuple[int, int, PVUpdate]] = deque()
        self.behind = 0
        self.forget()

    def forget(self) -> None:
        """Starts afresh."""
        self.queue.clear()
        self.time = self.key = self.closed = _NEVER
        self.is_used = False


class Joiner:
    """Joins updates. Raises what decoding an update or `on_drop` raises, and is of no use thereafter.

    Args:
        plan: What to join, and how.
        counts: What is to be kept up to date.
        on_drop: Called with what is dropped, and why.
    """

    def __init__(self, plan: Plan, counts: AlignCounts, on_drop: OnDrop | None = None) -> None:
        self._names = plan.names
        self._partial, self._grace, self._most = plan.partial, plan.grace, plan.most
        self._mask = plan.mask
        self._shift = (plan.mask & -plan.mask).bit_length() - 1 if plan.mask else 0
        self._span = 0 if plan.mask else plan.tolerance or 0  # of the keys of one instant
        self._spread = plan.tolerance if plan.mask else None  # of their times, where keys do not tell
        self._slack = plan.tolerance or 0  # how much newer what belongs to an instant may be
        self._counts = counts
        self._on_drop = on_drop
        named = [name for name in plan.names if name not in plan.hold]
        self._joined = [_Lane(name, number, None) for number, name in enumerate(named)]
        self._held = [_Lane(name, -1, plan.hold[name]) for name in plan.names if name in plan.hold]
        self._lanes = {lane.name: lane for lane in chain(self._joined, self._held)}
        self._heads: list[tuple[int, int]] = []  # heap: key of each lane's oldest, number of the lane
        self._highest = _NEVER  # of the heads' keys
        self._waiting = 0  # in the joined lanes
        self._time = _NEVER  # the newest of the joined lanes' newest times
        self._leader = self._joined[0]  # whose it is
        self._pulse = 0  # the highest key by pulse

    def feed(self, update: PVUpdate) -> Sequence[Aligned]:
        """Takes an update in. Returns the instants that are decided thereby, oldest first."""
        self._counts.received += 1
        lane = self._lanes.get(update.name)
        if lane is None:
            self._drop(update, DropReason.UNNAMED)
            return ()
        time = update.timestamp
        if time is None:
            self._drop(update, DropReason.NO_TIME)
            return ()
        key = self._place(lane, time)
        if isinstance(key, DropReason):
            self._drop(update, key)
            return ()
        queue = lane.queue
        queue.append((key, time, update))
        if lane.age is not None:
            self._trim(lane)
            return ()
        self._waiting += 1
        if len(queue) == 1:
            self._show_head(lane)
        return self._decide()

    def finish(self) -> Sequence[Aligned]:
        """Gives up waiting, for no more will come. Returns the instants that are left, if partial ones are wanted."""
        ready: list[Aligned] = []
        while self._heads:
            self._give_up(DropReason.ENDED, ready)
        self.abandon()
        return ready

    def abandon(self) -> Sequence[Aligned]:
        """Drops all that waits. Returns nothing to be emitted."""
        for lane in self._lanes.values():
            self._empty(lane, DropReason.ENDED)
        self._heads, self._highest, self._waiting = [], _NEVER, 0
        return ()

    def _place(self, lane: _Lane, time: int) -> int | DropReason:
        """Returns the key of an update, or why it has no place."""
        if time <= lane.time:
            if time == lane.time:
                return DropReason.DUPLICATE
            lane.behind += 1
            if lane.behind < _STEPS:
                return DropReason.OUT_OF_ORDER
            self._restart(lane)
        lane.behind = 0
        lane.time = time
        if lane.age is not None:
            return time
        is_ahead = time > self._time + self._grace
        if time >= self._time:
            self._time, self._leader = time, lane
        elif lane is self._leader:  # its clock was set back
            self._leader = max(self._joined, key=lambda other: other.time)
            self._time = self._leader.time
        key = self._pulse_key(lane, time, is_ahead) if self._mask else time
        if isinstance(key, DropReason):
            return key
        lane.key = key
        return DropReason.LATE if time < self._time - self._grace or key <= lane.closed else key

    def _pulse_key(self, lane: _Lane, time: int, is_ahead: bool) -> int | DropReason:
        """Returns the pulse id with the wraps counted: the nearest to the newest one, for both are of the recent past;
        later than it after a pause, or when the ids of a PV go back though its time goes on (they were reset)."""
        pulse = (time % NANOSECONDS & self._mask) >> self._shift  # of the nanoseconds, not of the whole time
        top = self._mask >> self._shift
        if pulse == top:
            return DropReason.NO_PULSE
        count = top + 1
        forward = (pulse - self._pulse) % count
        key = self._pulse + forward - (count if forward > count // 2 else 0)
        if is_ahead or key < lane.key:
            key = self._pulse + count + forward
        elif key == lane.key:
            return DropReason.DUPLICATE
        self._pulse = max(self._pulse, key)
        return key

    def _decide(self) -> Sequence[Aligned]:
        """Takes out what is complete and what has waited in vain. Returns what is to be emitted."""
        ready: list[Aligned] = []
        while self._heads:
            lowest, number = self._heads[0]
            is_full = len(self._heads) == len(self._joined)
            is_passed = self._highest - lowest > self._span
            if is_full and not is_passed:
                self._complete(ready)
            elif is_passed and (is_full or not self._partial):
                self._give_up(DropReason.UNMATCHED, ready)
            elif self._time - self._joined[number].queue[0][1] > self._grace + self._slack:
                self._give_up(DropReason.EXPIRED, ready)
            elif self._waiting > self._most:
                self._give_up(DropReason.OVERFLOW, ready)
            else:
                break
        return ready

    def _complete(self, ready: list[Aligned]) -> None:
        """Takes the oldest of every lane as an instant."""
        self._waiting -= len(self._joined)
        self._emit({lane.name: lane.queue.popleft() for lane in self._joined}, ready)
        self._rebuild()

    def _give_up(self, reason: DropReason, ready: list[Aligned]) -> None:
        """Takes out the oldest of all: dropped, or emitted with what there is of its instant."""
        lowest = self._heads[0][0]
        limit = lowest + self._span if self._partial else lowest
        lanes = [self._joined[heapq.heappop(self._heads)[1]]]
        while self._partial and self._heads and self._heads[0][0] <= limit:
            lanes.append(self._joined[heapq.heappop(self._heads)[1]])
        if not self._heads:
            self._highest = _NEVER
        taken = {lane.name: lane.queue.popleft() for lane in lanes}
        self._waiting -= len(taken)
        for lane in lanes:
            if lane.queue:
                self._show_head(lane)
        if not self._partial:
            for _, _, update in taken.values():
                self._drop(update, reason)
            return
        for lane in self._joined:
            if lane.name not in taken:
                lane.closed = max(lane.closed, limit)
        self._emit(taken, ready)

    def _emit(self, taken: Mapping[str, tuple[int, int, PVUpdate]], ready: list[Aligned]) -> None:
        """Adds an instant of what was taken out of the lanes, and of what is held."""
        times = [time for _, time, _ in taken.values()]
        oldest, newest = min(times), max(times)
        updates = {name: update for name, (_, _, update) in taken.items()}
        if self._spread is not None and newest - oldest > self._spread:
            self._drop_all(updates, DropReason.UNMATCHED)
            return
        held = [lane for lane in self._held if self._holds(lane, newest)]
        if len(held) < len(self._held) and not self._partial:
            self._drop_all(updates, DropReason.NOT_HELD)
            return
        counts = self._counts
        counts.used += len(updates)
        for lane in held:
            counts.used += not lane.is_used
            lane.is_used = True
            updates[lane.name] = lane.queue[0][2]
        missing: tuple[str, ...] = ()
        if len(updates) < len(self._names):
            missing = tuple(name for name in self._names if name not in updates)
            counts.partial += 1
        if missing or held:
            updates = {name: updates[name] for name in self._names if name in updates}
        counts.instants += 1
        ready.append(Aligned(oldest, oldest % NANOSECONDS & self._mask if self._mask else None, updates, missing))

    def _holds(self, lane: _Lane, time: int) -> bool:
        """Whether a held PV has a value for an instant; it is the oldest of its lane then."""
        limit = time + self._slack
        while len(lane.queue) > 1 and lane.queue[1][1] <= limit:
            self._supersede(lane, DropReason.SUPERSEDED)
        return bool(lane.queue) and lane.age is not None and 0 <= limit - lane.queue[0][1] <= lane.age + self._slack

    def _trim(self, lane: _Lane) -> None:
        """Forgets the values of a held PV that no instant can need any more."""
        queue = lane.queue
        while len(queue) > 1 and queue[1][1] <= self._time - self._grace:
            self._supersede(lane, DropReason.SUPERSEDED)
        if len(queue) > _MOST_HELD:
            self._supersede(lane, DropReason.OVERFLOW)

    def _supersede(self, lane: _Lane, reason: DropReason) -> None:
        update = lane.queue.popleft()[2]
        if not lane.is_used:
            self._drop(update, reason)
        lane.is_used = False

    def _restart(self, lane: _Lane) -> None:
        """Forgets what waits of a PV whose clock was set back."""
        self._waiting -= len(lane.queue) if lane.age is None else 0
        self._empty(lane, DropReason.CLOCK_STEP)
        lane.forget()
        self._rebuild()

    def _empty(self, lane: _Lane, reason: DropReason) -> None:
        while lane.queue:
            self._supersede(lane, reason)

    def _show_head(self, lane: _Lane) -> None:
        key = lane.queue[0][0]
        heapq.heappush(self._heads, (key, lane.number))
        self._highest = max(self._highest, key)

    def _rebuild(self) -> None:
        self._heads = [(lane.queue[0][0], lane.number) for lane in self._joined if lane.queue]
        heapq.heapify(self._heads)
        self._highest = max((key for key, _ in self._heads), default=_NEVER)

    def _drop_all(self, updates: Mapping[str, PVUpdate], reason: DropReason) -> None:
        for update in updates.values():
            self._drop(update, reason)

    def _drop(self, update: PVUpdate, reason: DropReason) -> None:
        self._counts.dropped[reason] += 1
        if self._on_drop is not None:
            self._on_drop(update, reason)
