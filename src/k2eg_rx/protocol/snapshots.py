"""Snapshots out of the messages they come in: the assembly of iterations, as a table of states.

In: the parts of recurring snapshots in the order of their topic, or the replies to a one-shot snapshot. Out:
`Snapshot`s, and counts of what could not be used. Pure: no thread, no clock; one assembler belongs to one reader.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, SupportsIndex, cast, overload

from k2eg_rx.errors import OperationError, WireError
from k2eg_rx.protocol.messages import Reply, SnapshotData, SnapshotHeader, SnapshotMessage, SnapshotTail
from k2eg_rx.protocol.structures import Structure, structure_of
from k2eg_rx.pv import PVAddress

# A decoded scalar PV takes about 5 kB, so this is about half a gigabyte: far above what a laboratory takes in one
# window (1000 PVs at 10 Hz for 10 s), far below what ends the process.
MAX_SAMPLES = 100_000

COMPLETE = 1  # the `error` of the reply that ends a one-shot snapshot
TRUNCATED = -1  # the `error` of a snapshot that had more samples than the bound


class Samples(list[Structure]):
    """A PV's structures in arrival order; a string index answers from the newest one."""

    __slots__ = ()

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> Structure: ...
    @overload
    def __getitem__(self, index: slice, /) -> list[Structure]: ...
    @overload
    def __getitem__(self, index: str, /) -> Any: ...
    def __getitem__(self, index: SupportsIndex | slice | str, /) -> Any:
        if not isinstance(index, str):
            return super().__getitem__(index)
        if not self:
            raise KeyError(f"{index}: the snapshot has no data of this PV")
        newest = super().__getitem__(-1)
        if index not in newest:
            raise KeyError(f"{index}: no such field; there is {', '.join(map(str, newest))}")
        return newest[index]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The values of a set of PVs, acquired together.

    Attributes:
        name: The snapshot's name, or the id of a one-shot snapshot.
        data: The samples of every PV asked for, by its name; empty for one without data.
        timestamp: Unix milliseconds of the tail; 0 where the gateway tells none (one-shot).
        iteration: Its number, from 1; 0 for a one-shot snapshot.
        header_timestamp: Unix milliseconds at its begin.
        tail_timestamp: Unix milliseconds at its end.
        error: 0, or negative if something is wrong with it.
        error_message: What is wrong with it.
    """

    name: str
    data: Mapping[str, Samples]
    timestamp: int = 0
    iteration: int = 0
    header_timestamp: int = 0
    tail_timestamp: int = 0
    error: int = 0
    error_message: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Returns it as the documented handlers get it: the times, the iteration, and the samples by PV name."""
        return dict(self.data) | {
            "timestamp": self.timestamp,
            "iteration": self.iteration,
            "header_timestamp": self.header_timestamp,
            "tail_timestamp": self.tail_timestamp,
        }


class _Collection:
    """The samples of one snapshot so far, by the names the PVs were asked for under.

    A gateway may answer for a field (``X.alarm.status``) under its own name, or only for the record (``X``).
    """

    def __init__(self, addresses: Iterable[PVAddress], max_samples: int) -> None:
        self._addresses = tuple(addresses)
        self._max_samples = max_samples
        self._by_key: dict[str, list[PVAddress]] = {}
        self._own_key: set[str] = set()  # fields that the gateway is known to answer for under their own name
        for address in {address.name: address for address in self._addresses}.values():
            for key in {address.name, address.base}:
                self._by_key.setdefault(key, []).append(address)
        self.start()

    def start(self) -> None:
        """Forgets what was collected."""
        self.data = {address.name: Samples() for address in self._addresses}
        self.excess = 0
        self._size = 0

    def add(self, key: str, structure: Structure) -> str:
        """Takes a sample in. Returns an empty string, or why it could not be used."""
        targets = self._by_key.get(key)
        if targets is None:
            return "unknown_pv"
        if self._size >= self._max_samples:
            self.excess += 1
            return "excess"
        outcomes = [self._add(address, key, structure) for address in targets]
        return "" if "" in outcomes else outcomes[0]

    def _add(self, address: PVAddress, key: str, structure: Structure) -> str:
        samples = self.data[address.name]
        if address.field and key == address.name and key not in self._own_key:
            self._own_key.add(key)
            samples.clear()  # what was taken from the record's own samples comes a second time under this key
        elif key != address.name and address.name in self._own_key:
            return ""
        try:
            samples.append(structure_of(address, {key: structure}))
        except (OperationError, WireError):
            return "unusable"
        self._size += 1
        return ""

    def snapshot(self, name: str, error: int = 0, error_message: str = "", **times: int) -> Snapshot:
        """Returns what was collected, and starts afresh."""
        if self.excess and not error:
            error, error_message = TRUNCATED, f"{self.excess} samples beyond {self._max_samples} were left out"
        snapshot = Snapshot(name, self.data, error=error, error_message=error_message, **times)
        self.start()
        return snapshot


class State(Enum):
    """Where an assembler stands."""

    IDLE = "idle"  # no header seen since the last tail
    OPEN = "open"  # between a header and its tail


class Event(Enum):
    """What a message is to an assembler."""

    HEADER = "header"  # begins an iteration
    AGAIN = "again"  # the open iteration's header once more
    OLD = "old"  # the header of the last complete iteration once more
    DATA = "data"  # a sample of the open iteration
    TAIL = "tail"  # ends the open iteration
    STRAY = "stray"  # a sample or a tail of an iteration that is not open


class Action(Enum):
    """What an assembler does."""

    OPEN = "open"
    REOPEN = "reopen"  # drop what is open, count it as incomplete, open the new one
    RESTART = "restart"  # drop what is open, for it comes again
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


class IterationAssembler:
    """Makes `Snapshot`s out of the messages on a recurring snapshot's topic.

    A sample that comes twice within an iteration is kept twice: nothing tells it from a PV that was read again
    without a change. An iteration that comes twice, as Kafka may deliver it, is emitted once.

    Attributes:
        state: Where it stands.
        counts: What could not be used, by why: ``incomplete`` iterations, whose tail never came; messages without
            a header (``stray``), headers of an iteration emitted before (``old``); samples of a PV not asked for
            (``unknown_pv``), without the field asked for (``unusable``), or beyond the bound (``excess``).
    """

    def __init__(
        self,
        name: str,
        addresses: Iterable[PVAddress],
        max_samples: int = MAX_SAMPLES,
        *,
        counts: Counter[str] | None = None,
    ) -> None:
        """Makes an assembler that has seen nothing.

        Args:
            name: The name its snapshots get: the one asked for. Names that share a topic are one snapshot to a
                gateway, so a header may carry another spelling.
            addresses: The PVs asked for.
            max_samples: How many samples an iteration may have; what is beyond is left out, and the snapshot says so.
            counts: The counter to use, for a total of several assemblers.
        """
        self.state = State.IDLE
        self.counts: Counter[str] = Counter() if counts is None else counts
        self._name = name
        self._collection = _Collection(addresses, max_samples)
        self._header = SnapshotHeader("", 0, 0)  # of the open iteration; without meaning while there is none
        self._complete: SnapshotHeader | None = None  # of the last iteration emitted

    def feed(self, message: SnapshotMessage) -> Snapshot | None:
        """Takes the next message in. Returns the snapshot that it completes, if it does. Never raises."""
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
            timestamp=tail.timestamp,
            iteration=tail.iter_index,
            header_timestamp=self._header.timestamp,
            tail_timestamp=tail.timestamp,
        )


class OneShotAssembler:
    """Makes a `Snapshot` out of the replies to a one-shot snapshot; samples that cannot be used are left out."""

    def __init__(self, name: str, addresses: Iterable[PVAddress], max_samples: int = MAX_SAMPLES) -> None:
        """Makes an assembler that has seen nothing.

        Args:
            name: The id the snapshot gets.
            addresses: The PVs asked for.
            max_samples: How many samples it may have.
        """
        self._name = name
        self._addresses = tuple(addresses)
        self._collection = _Collection(self._addresses, max_samples)

    def feed(self, reply: Reply) -> Snapshot | None:
        """Takes the next reply in. Returns the snapshot when the reply completes it.

        Raises:
            OperationError: The gateway refused the snapshot or one of its PVs.
        """
        if reply.error < 0:
            subject = ", ".join(address.uri for address in self._addresses)
            raise OperationError(reply.error, reply.message, "snapshot", subject)
        for key, structure in reply.body.items():
            if isinstance(structure, dict):
                self._collection.add(key, cast("Structure", structure))
        return self._collection.snapshot(self._name) if reply.error == COMPLETE else None
