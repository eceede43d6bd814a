"""Assembles iterations of recurring snapshots whose messages have no numbers and arrive in order, by a state table.

Thread safety: not thread-safe; an assembler belongs to one reader.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import Enum

from k2eg_rx.protocol.messages import SnapshotData, SnapshotHeader, SnapshotMessage, SnapshotTail
from k2eg_rx.protocol.snapshots import MAX_SAMPLES, SampleCollection, Snapshot
from k2eg_rx.pv import PVAddress


class State(Enum):
    """The state of an assembler."""

    IDLE = "idle"  # no header seen since the last tail
    OPEN = "open"  # between a header and its tail


class Event(Enum):
    """The meaning of a message in the assembler's state."""

    HEADER = "header"  # starts an iteration
    AGAIN = "again"  # repeats the open iteration's header
    OLD = "old"  # repeats the header of the last complete iteration
    DATA = "data"  # a sample of the open iteration
    TAIL = "tail"  # ends the open iteration
    STRAY = "stray"  # a sample or a tail of an iteration that is not open


class Action(Enum):
    """The assembler's action on a message."""

    OPEN = "open"
    REOPEN = "reopen"  # drop the open iteration, count it as incomplete, open the new one
    RESTART = "restart"  # drop the samples of the open iteration, which is sent again
    ADD = "add"
    EMIT = "emit"
    DROP = "drop"


TRANSITIONS: Mapping[tuple[State, Event], tuple[Action, State]] = {
    (State.IDLE, Event.HEADER): (Action.OPEN, State.OPEN),
    (State.IDLE, Event.OLD): (Action.DROP, State.IDLE),
    (State.IDLE, Event.STRAY): (Action.DROP, State.IDLE),
    (State.OPEN, Event.HEADER): (Action.REOPEN, State.OPEN),
    (State.OPEN, Event.AGAIN): (Action.RESTART, State.OPEN),
    (State.OPEN, Event.OLD): (Action.DROP, State.OPEN),
    (State.OPEN, Event.DATA): (Action.ADD, State.OPEN),
    (State.OPEN, Event.TAIL): (Action.EMIT, State.IDLE),
    (State.OPEN, Event.STRAY): (Action.DROP, State.OPEN),
}


class ArrivalAssembler:
    """Assembles `Snapshot`s from messages without numbers, which arrive in order.

    Equal samples within an iteration are kept: a repeated message cannot be distinguished from a PV that was read again
    without a change. An iteration that Kafka delivers twice is emitted once.

    Attributes:
        state: The current state.
        counts: What was dropped, by reason: iterations without a tail (``incomplete``); messages without a header
            (``stray``); headers of an iteration already emitted (``old``); samples of a PV that was not requested
            (``unknown_pv``), without the requested field (``unusable``), or beyond `max_samples` (``excess``).
    """

    def __init__(
        self,
        name: str,
        addresses: Iterable[PVAddress],
        max_samples: int = MAX_SAMPLES,
        *,
        counts: Counter[str] | None = None,
    ) -> None:
        """Creates an assembler in the state IDLE.

        Args:
            name: The name of the emitted snapshots. Headers may have another spelling, because names that share a
                topic are one snapshot to a gateway.
            addresses: The requested PVs.
            max_samples: The bound on samples of an iteration. Further ones are dropped, and the snapshot has an error.
            counts: A counter shared with other assemblers, for a total; by default one of its own.
        """
        self.state = State.IDLE
        self.counts: Counter[str] = Counter() if counts is None else counts
        self._name = name
        self._collection = SampleCollection(addresses, max_samples)
        self._header = SnapshotHeader("", 0, 0)  # of the open iteration; unused in the state IDLE
        self._complete: SnapshotHeader | None = None  # of the last iteration emitted

    @property
    def open(self) -> int | None:
        """The number of the open iteration, or None."""
        return self._header.iter_index if self.state is State.OPEN else None

    def discard(self) -> None:
        """Drops the open iteration and counts it as incomplete."""
        self.counts.update(["incomplete"] if self.state is State.OPEN else [])
        self.state = State.IDLE

    def feed(self, message: SnapshotMessage) -> Snapshot | None:
        """Processes the next message. Returns the snapshot that it completes, or None. Never raises."""
        event = self._event(message)
        action, self.state = TRANSITIONS[self.state, event]
        match action, message:
            case Action.EMIT, SnapshotTail():
                return self._emit(message)
            case Action.ADD, SnapshotData():
                problem = self._collection.add(message.pv_name, message.data)
                self.counts.update([problem] if problem else [])
            case ((Action.OPEN | Action.REOPEN | Action.RESTART), SnapshotHeader()):
                self.counts.update(["incomplete"] if action is Action.REOPEN else [])
                self._header = message
                self._collection.start()
            case _:
                self.counts[event.value] += 1
        return None

    def _event(self, message: SnapshotMessage) -> Event:
        if isinstance(message, SnapshotHeader):
            if message == self._complete:
                return Event.OLD
            return Event.AGAIN if self.state is State.OPEN and message == self._header else Event.HEADER
        if self.state is State.IDLE or message.iter_index != self._header.iter_index:
            return Event.STRAY
        if isinstance(message, SnapshotData):
            return Event.DATA
        return Event.TAIL if message.snapshot_name == self._header.snapshot_name else Event.STRAY

    def _emit(self, tail: SnapshotTail) -> Snapshot:
        self._complete = self._header
        return self._collection.snapshot(
            self._name,
            tail.error,
            tail.error_message,
            tags=self._header.tags,
            timestamp=tail.timestamp,
            iteration=tail.iter_index,
            header_timestamp=self._header.timestamp,
            tail_timestamp=tail.timestamp,
        )
