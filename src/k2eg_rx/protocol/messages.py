"""What the gateway says, as values: replies, PV events, and the parts of a recurring snapshot's iteration.

In: nothing. Out: the classes that `decode` makes and the rest of the library passes on. Any thread; a `PVUpdate`
decodes itself on first use (twice at worst if two threads are first, with the same result).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

from k2eg_rx.protocol.decode import decode_body
from k2eg_rx.protocol.records import Record
from k2eg_rx.protocol.structures import Severity, Structure, severity_of, structure_of, timestamp_of
from k2eg_rx.pv import PVAddress


class PVData:
    """A PV's value at one time.

    Attributes:
        name: The PV's name as asked for, without the protocol.
    """

    __slots__ = ("_data", "name")

    def __init__(self, name: str, data: Structure | None) -> None:
        self.name = name
        self._data = data

    @property
    def data(self) -> Structure:
        """The whole structure as a dict, with ``value``, ``alarm``, ``timeStamp``, ``display`` etc. where present."""
        if self._data is None:
            self._data = self._decode()
        return self._data

    def load(self) -> None:
        """Decodes, if that is still to be done."""
        if self._data is None:
            self._data = self._decode()

    def _decode(self) -> Structure:
        raise NotImplementedError

    @property
    def value(self) -> Any:
        """The ``value`` field: a scalar, a list, ``{"index", "choices"}`` of an enum, the columns of a table."""
        return self.data.get("value")

    @property
    def severity(self) -> Severity:
        """The alarm's severity."""
        return severity_of(self.data)

    @property
    def timestamp(self) -> int | None:
        """EPICS time in integer nanoseconds since the Unix epoch; None if the PV has none."""
        return timestamp_of(self.data)

    @property
    def units(self) -> str:
        """The engineering units, or an empty string."""
        match self.data.get("display"):
            case {"units": str(units)}:
                return units
            case _:
                return ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.data!r})"


class PVUpdate(PVData):
    """One event of a monitored PV, decoded on first use.

    Attributes:
        address: The PV as it was asked for.
        record: The Kafka record it came in: topic, partition, offset.
        replayed: Whether it is of the past: read back from Kafka, not received as it came.
    """

    __slots__ = ("address", "record")

    replayed: ClassVar[bool] = False  # of the class, not of each event: see `ReplayedUpdate`

    def __init__(self, address: PVAddress, record: Record) -> None:
        self.name = address.name  # not by the base's __init__: one of these is made for each event
        self._data = None
        self.address = address
        self.record = record

    def _decode(self) -> Structure:
        body = decode_body(self.record)
        structure = body.get(self.name)  # what is nearly always there, before all that may be there instead
        return cast("Structure", structure) if isinstance(structure, dict) else structure_of(self.address, body)

    def __repr__(self) -> str:
        where = f"{self.record.topic}[{self.record.partition}]@{self.record.offset}"
        return f"PVUpdate({self.name!r}, {where})"


class ReplayedUpdate(PVUpdate):
    """An event of the past; `replayed` is True, all else is as in any `PVUpdate`."""

    __slots__ = ()

    replayed: ClassVar[bool] = True


def repeats(value: bytes | None, earlier: bytes | None) -> bool:
    """Whether an event says nothing that the one before it of its PV did not say: their bytes, EPICS time included, are
    the same.

    A gateway publishes a PV's value once more whenever another client asks for it. A PV without time may really have
    been posted twice with one value; its events all count.
    """
    return value == earlier and value is not None and b"timeStamp" in value


@dataclass(frozen=True, slots=True)
class Reply:
    """The gateway's answer to a command.

    Attributes:
        reply_id: The id of the command it answers.
        error: 0 success, negative a failure; 1 the end of a one-shot snapshot.
        message: The gateway's words, or an empty string.
        body: The whole map, PV structures included.
    """

    reply_id: str
    error: int
    message: str = ""
    body: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class SnapshotHeader:
    """The begin of an iteration. `timestamp` is Unix milliseconds, of publication."""

    snapshot_name: str
    timestamp: int
    iter_index: int


@dataclass(frozen=True, slots=True)
class SnapshotData:
    """One PV's sample in an iteration."""

    timestamp: int
    iter_index: int
    pv_name: str
    data: Structure


@dataclass(frozen=True, slots=True)
class SnapshotTail:
    """The end of an iteration. `error` is 0, or negative with its message."""

    snapshot_name: str
    timestamp: int
    iter_index: int
    error: int = 0
    error_message: str = ""


SnapshotMessage = SnapshotHeader | SnapshotData | SnapshotTail
