"""Join behind `align`: takes updates of several PVs, returns those of one instant. No clock, no I/O.

Each PV has a queue, in which its updates wait in order. The heads of all queues are compared. If all queues have a head
and the heads lie within the tolerance, they are an instant. If one head is past the oldest head, the oldest can never
be matched, since a queue only moves forward. So the result follows from each PV's own sequence, in whatever order the
updates of different PVs arrive, and however far the PVs are apart. A heap of the heads makes it O(log n) for each
update.

A PV that sends nothing leaves its queue empty. It is given up if it has been silent for the grace, in the time in which
the join had nothing to do. In a backlog, PVs arrive one after another, a batch of each: many are silent then, but none
arrives continuously. So an instant is given up by a PV that has arrived for the grace itself, and whose EPICS time has
gone past the instant by the grace, as that of all PVs has in a slow replay. A PV that is not connected, as the stream
says, is not waited for: its values until then are in its queue.

Updates are compared by key: their EPICS time, or their pulse id with wraps counted, so that it grows forever.

Thread safety: none; a joiner belongs to one subscription.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from k2eg_rx.operators.drops import AlignCounts, DropReason, OnDrop
from k2eg_rx.operators.idle_time import IdleTime
from k2eg_rx.operators.pulse_keys import GivenKeys, PulseKeys
from k2eg_rx.protocol import ConnectionEvent, PVUpdate, pulse_id_of
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

_NEVER = -(1 << 80)  # before every time and every pulse
_CLOCK_STEP = 10  # updates in a row before their predecessor that mean the PV's clock was set back
_LOGGED = frozenset((DropReason.EXPIRED, DropReason.DISCONNECTED, DropReason.OVERFLOW))
_HELD_CAPACITY = 1024  # updates of a held PV that no instant has needed yet: 8 s at 120 Hz


@dataclass(frozen=True, slots=True)
class Aligned:
    """The updates of several PVs that belong to one instant.

    Attributes:
        timestamp: EPICS time of the oldest update, held PVs aside, in integer nanoseconds since the Unix epoch.
        pulse_id: Pulse id, or the key that a function for `on` returned; None if updates are joined by time.
        updates: Updates by PV name, in the order in which the PVs were named.
        missing: PVs without an update; empty unless partial instants are requested.
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
        """Returns the value of each PV by name."""
        return {name: update.value for name, update in self.updates.items()}


@dataclass(frozen=True, slots=True)
class JoinOptions:
    """Options of a join. Times in nanoseconds.

    Attributes:
        names: PVs to join, held ones included.
        hold: Maximum age of the last known value, by held PV.
        tolerance: How far apart the times of one instant may be; None by pulse id: any distance.
        grace: How long a PV may be silent.
        partial: Whether incomplete instants are emitted.
        capacity: How many updates may wait.
        mask: Bits of the pulse id in the nanoseconds; 0 does not join by it, None takes those of the first update's
            environment.
        key: Returns the key to join by, if the user gave a function.
    """

    names: tuple[str, ...]
    hold: Mapping[str, float]
    tolerance: int | None
    grace: int
    partial: bool
    capacity: int
    mask: int | None
    key: Callable[[PVUpdate], int | None] | None = None


_Waiting = tuple[int, int, int, PVUpdate]


class _PVQueue:
    """Waiting updates of one PV, as (key, time, arrival, update).

    Attributes:
        number: Index among the joined PVs; -1 for a held PV.
        max_age: Maximum age of a held PV's value; None for a joined PV.
        time: EPICS time of the newest update.
        key: Key of the newest update.
        arrived: Idle time of the join when an update last arrived.
        closed: Instants up to this key were given up without this PV.
        out_of_order: Updates in a row that were before their predecessor.
        keys_back: Updates in a row whose given key was before that of their predecessor.
        is_used: For a held PV: whether its oldest update is part of an instant.
    """

    __slots__ = (
        "arrived",
        "closed",
        "is_used",
        "key",
        "keys_back",
        "max_age",
        "name",
        "number",
        "out_of_order",
        "time",
        "updates",
    )

    def __init__(self, name: str, number: int, max_age: float | None) -> None:
        self.name = name
        self.number = number
        self.max_age = max_age
        self.updates: deque[_Waiting] = deque()
        self.out_of_order = 0
        self.arrived = 0
        self.reset()

    def reset(self) -> None:
        """Returns to the initial state."""
        self.updates.clear()
        self.time = self.key = self.closed = _NEVER
        self.keys_back = 0
        self.is_used = False


class Joiner:
    """Joins updates. Raises what decoding an update or `on_drop` raises, and must not be used afterwards.

    Args:
        options: What to join, and how.
        counts: Counters to fill.
        idle: The time in which the join waits for updates.
        on_drop: Called with each dropped update and the reason.
    """

    def __init__(
        self, options: JoinOptions, counts: AlignCounts, idle: IdleTime, on_drop: OnDrop | None = None
    ) -> None:
        self._names = options.names
        self._partial, self._grace, self._capacity = options.partial, options.grace, options.capacity
        by_time = options.mask == 0 and options.key is None
        self._mask = options.mask
        self._pulses: PulseKeys | None = None  # made with the first update, which may have to tell the mask
        self._given = None if options.key is None else GivenKeys(options.key)
        self._key_tolerance = options.tolerance or 0 if by_time else 0  # of the keys of one instant
        self._time_tolerance = None if by_time else options.tolerance  # of its times; by time, keys suffice
        self._slack = options.tolerance or 0  # how much newer than its oldest update an instant may be
        self._counts = counts
        self._on_drop = on_drop
        self._idle = idle
        named = [name for name in options.names if name not in options.hold]
        self._joined = [_PVQueue(name, number, None) for number, name in enumerate(named)]
        self._held = [_PVQueue(name, -1, options.hold[name]) for name in options.names if name in options.hold]
        self._queues = {pv.name: pv for pv in chain(self._joined, self._held)}
        self._heads: list[tuple[int, int]] = []  # heap: key of each joined PV's oldest update, and the PV's number
        self._highest_head = _NEVER  # highest key among the heads
        self._waiting = 0  # updates in the queues of joined PVs
        self._lost: dict[str, _PVQueue] = {}  # joined PVs that are not connected
        self._time = _NEVER  # newest time of a joined PV
        self._leader = self._joined[0]  # the PV with that time
        self._done = _NEVER  # time of the newest instant that was removed
        self._logged: set[DropReason] = set()

    def feed(self, item: PVUpdate | ConnectionEvent) -> Iterable[Aligned]:
        """Adds an update or a connection's event. Returns the instants that it completes or closes, oldest first."""
        arrival = self._idle.enter()
        ready = self._add(item, arrival) if isinstance(item, PVUpdate) else self._connect(item, arrival)
        if ready:
            return self._emitted(ready)
        self._idle.leave()
        return ready

    def _emitted(self, ready: Sequence[Aligned]) -> Iterator[Aligned]:
        yield from ready
        self._idle.leave()

    def _connect(self, event: ConnectionEvent, arrival: int) -> Sequence[Aligned]:
        pv = self._queues.get(event.name)
        if pv is None or pv.max_age is not None:
            return ()
        if event.is_connected:
            self._lost.pop(pv.name, None)
            return ()
        self._lost[pv.name] = pv
        return self._decide(pv, arrival)

    def _add(self, update: PVUpdate, arrival: int) -> Sequence[Aligned]:
        self._counts.received += 1
        pv = self._queues.get(update.name)
        if pv is None:
            self._drop(update, DropReason.UNNAMED)
            return ()
        pv.arrived = arrival
        if self._lost:
            self._lost.pop(pv.name, None)
        time = update.timestamp
        if time is None:
            self._drop(update, DropReason.NO_TIME)
            return ()
        key = self._key_of(pv, time, update)
        if isinstance(key, DropReason):
            self._drop(update, key)
            return ()
        waiting = pv.updates
        waiting.append((key, time, arrival, update))
        if pv.max_age is not None:
            self._trim(pv)
            return ()
        self._waiting += 1
        if len(waiting) == 1:
            self._push_head(pv)
        return self._decide(pv, arrival)

    def finish(self) -> Sequence[Aligned]:
        """Ends the join at the source's completion. Returns the remaining instants if partial ones are requested."""
        ready: list[Aligned] = []
        while self._heads:
            self._give_up(DropReason.ENDED, ready)
        self.abandon()
        return ready

    def abandon(self) -> Sequence[Aligned]:
        """Ends the join at the source's failure: drops all waiting updates. Returns no instants."""
        for pv in self._queues.values():
            self._empty(pv, DropReason.ENDED)
        self._heads, self._highest_head, self._waiting = [], _NEVER, 0
        return ()

    def _key_of(self, pv: _PVQueue, time: int, update: PVUpdate) -> int | DropReason:
        """Returns the key of an update, or the reason to drop it."""
        if time <= pv.time:
            if time == pv.time:
                return DropReason.DUPLICATE
            pv.out_of_order += 1
            if pv.out_of_order < _CLOCK_STEP:
                return DropReason.OUT_OF_ORDER
            self._restart(pv)
        pv.out_of_order = 0
        previous, pv.time = pv.time, time
        if pv.max_age is not None:
            return time
        key = self._joined_by(pv, time, previous, update)
        if time >= self._time:
            self._time, self._leader = time, pv
        elif pv is self._leader:  # its clock was set back
            self._leader = max(self._joined, key=lambda other: other.time)
            self._time = self._leader.time
        if isinstance(key, DropReason):
            return key
        pv.key = key
        return DropReason.LATE if key <= pv.closed else key

    def _joined_by(self, pv: _PVQueue, time: int, previous: int, update: PVUpdate) -> int | DropReason:
        """Returns the key of an update: its time, its pulse id, or what the user's function returns."""
        if self._given is not None:
            return self._given_key(self._given, pv, update)
        if self._mask == 0:
            return time
        if self._pulses is None:
            self._mask = self._mask or update.address.pulse_id_mask
            self._pulses = PulseKeys(self._mask, self._grace)
        return self._pulses.key_of(time, previous, pv.key, self._time)

    def _given_key(self, keys: GivenKeys, pv: _PVQueue, update: PVUpdate) -> int | DropReason:
        key = keys.key_of(update, pv.key)
        pv.keys_back = pv.keys_back + 1 if key is DropReason.OUT_OF_ORDER else 0
        if pv.keys_back < _CLOCK_STEP:
            return key
        time = pv.time
        self._restart(pv)  # the PV counts anew
        pv.time = time
        return keys.key_of(update, pv.key)

    def _decide(self, fed: _PVQueue, arrival: int) -> Sequence[Aligned]:
        """Removes complete instants and those that can no longer complete. Returns what to emit."""
        ready: list[Aligned] = []
        while self._heads:
            lowest, number = self._heads[0]
            is_full = len(self._heads) == len(self._joined)
            is_final = is_full or bool(self._lost and self._lacks_only_lost())
            is_passed = self._highest_head - lowest > self._key_tolerance
            if is_full and not is_passed:
                self._complete(ready)
            elif is_passed and (is_final or not self._partial):
                self._give_up(DropReason.UNMATCHED, ready)
            elif is_final:
                self._give_up(DropReason.DISCONNECTED, ready)
            elif self._is_expired(self._joined[number].updates[0], fed, arrival):
                self._give_up(DropReason.EXPIRED, ready)
            elif self._waiting > self._capacity:
                self._give_up(DropReason.OVERFLOW, ready)
            else:
                break
        return ready

    def _lacks_only_lost(self) -> bool:
        """Whether each PV without an update is known not to be connected."""
        missing = sum(not pv.updates for pv in self._lost.values())
        return len(self._heads) + missing == len(self._joined)

    def _is_expired(self, head: _Waiting, fed: _PVQueue, arrival: int) -> bool:
        """Whether the PVs without an update are silent, and an instant need not wait for them any more."""
        latest = arrival - self._grace  # of arrivals that are the grace ago
        return (
            self._time - head[1] > self._grace + self._slack
            and head[2] <= latest
            and bool(fed.updates)
            and fed.updates[0][2] <= latest
            and all(pv.updates or pv.arrived <= latest for pv in self._joined)
        )

    def _complete(self, ready: list[Aligned]) -> None:
        """Removes the head of every queue as an instant."""
        self._waiting -= len(self._joined)
        self._emit({pv.name: pv.updates.popleft() for pv in self._joined}, ready)
        self._rebuild()

    def _give_up(self, reason: DropReason, ready: list[Aligned]) -> None:
        """Removes the oldest head: drops it, or emits what there is of its instant."""
        if reason in _LOGGED and reason not in self._logged:
            self._log_first(reason)
        lowest = self._heads[0][0]
        limit = lowest + self._key_tolerance if self._partial else lowest
        queues = [self._joined[heapq.heappop(self._heads)[1]]]
        while self._partial and self._heads and self._heads[0][0] <= limit:
            queues.append(self._joined[heapq.heappop(self._heads)[1]])
        if not self._heads:
            self._highest_head = _NEVER
        taken = {pv.name: pv.updates.popleft() for pv in queues}
        self._waiting -= len(taken)
        for pv in queues:
            if pv.updates:
                self._push_head(pv)
        if self._partial or reason is not DropReason.UNMATCHED:
            for pv in self._joined:
                if pv.name not in taken:
                    pv.closed = max(pv.closed, limit)
        if self._partial:
            self._emit(taken, ready)
            return
        for _, time, _, update in taken.values():
            self._done = max(self._done, time)
            self._drop(update, reason)

    def _log_first(self, reason: DropReason) -> None:
        """Logs the first instant that is given up for a reason; `AlignCounts` has the number."""
        self._logged.add(reason)
        missing = [pv.name for pv in self._joined if not pv.updates]
        _log.warning(
            "align gives up an instant, others will only be counted: reason=%s waiting=%d missing=%d first=%s",
            reason,
            self._waiting,
            len(missing),
            missing[0] if missing else "none",
        )

    def _emit(self, taken: Mapping[str, _Waiting], ready: list[Aligned]) -> None:
        """Adds an instant of the removed updates and the held values to `ready`."""
        times = [time for _, time, _, _ in taken.values()]
        oldest, newest = min(times), max(times)
        self._done = max(self._done, oldest)
        updates = {name: update for name, (_, _, _, update) in taken.items()}
        if self._time_tolerance is not None and newest - oldest > self._time_tolerance:
            self._drop_all(updates, DropReason.UNMATCHED)
            return
        held = [pv for pv in self._held if self._holds(pv, newest)]
        if len(held) < len(self._held) and not self._partial:
            self._drop_all(updates, DropReason.NOT_HELD)
            return
        counts = self._counts
        counts.used += len(updates)
        for pv in held:
            counts.used += not pv.is_used
            pv.is_used = True
            updates[pv.name] = pv.updates[0][3]
        missing: tuple[str, ...] = ()
        if len(updates) < len(self._names):
            missing = tuple(name for name in self._names if name not in updates)
            counts.partial += 1
        if missing or held:
            updates = {name: updates[name] for name in self._names if name in updates}
        counts.instants += 1
        pulse_id = pulse_id_of(oldest, self._mask) if self._mask else None
        if self._given is not None:
            pulse_id = next(iter(taken.values()))[0]
        ready.append(Aligned(oldest, pulse_id, updates, missing))

    def _holds(self, pv: _PVQueue, time: int) -> bool:
        """Whether a held PV has a value for an instant, which then is the head of its queue."""
        limit = time + self._slack
        while len(pv.updates) > 1 and pv.updates[1][1] <= limit:
            self._supersede(pv, DropReason.SUPERSEDED)
        return bool(pv.updates) and pv.max_age is not None and 0 <= limit - pv.updates[0][1] <= pv.max_age + self._slack

    def _trim(self, pv: _PVQueue) -> None:
        """Removes values of a held PV that no instant can need any more."""
        waiting = pv.updates
        oldest = self._joined[self._heads[0][1]].updates[0][1] if self._heads else self._done
        while len(waiting) > 1 and waiting[1][1] <= oldest:
            self._supersede(pv, DropReason.SUPERSEDED)
        if len(waiting) > _HELD_CAPACITY:
            self._supersede(pv, DropReason.OVERFLOW)

    def _supersede(self, pv: _PVQueue, reason: DropReason) -> None:
        update = pv.updates.popleft()[3]
        if not pv.is_used:
            self._drop(update, reason)
        pv.is_used = False

    def _restart(self, pv: _PVQueue) -> None:
        """Drops the waiting updates of a PV whose clock was set back."""
        self._waiting -= len(pv.updates) if pv.max_age is None else 0
        self._empty(pv, DropReason.CLOCK_STEP)
        pv.reset()
        self._rebuild()

    def _empty(self, pv: _PVQueue, reason: DropReason) -> None:
        while pv.updates:
            self._supersede(pv, reason)

    def _push_head(self, pv: _PVQueue) -> None:
        key = pv.updates[0][0]
        heapq.heappush(self._heads, (key, pv.number))
        self._highest_head = max(self._highest_head, key)

    def _rebuild(self) -> None:
        self._heads = [(pv.updates[0][0], pv.number) for pv in self._joined if pv.updates]
        heapq.heapify(self._heads)
        self._highest_head = max((key for key, _ in self._heads), default=_NEVER)

    def _drop_all(self, updates: Mapping[str, PVUpdate], reason: DropReason) -> None:
        for update in updates.values():
            self._drop(update, reason)

    def _drop(self, update: PVUpdate, reason: DropReason) -> None:
        self._counts.dropped[reason] += 1
        if self._on_drop is not None:
            self._on_drop(update, reason)
