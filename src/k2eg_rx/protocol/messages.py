"""Messages of a gateway as objects: PV values, replies, and the parts of a recurring snapshot.

Thread safety: immutable but for the lazy decoding of a `PVUpdate`. Two threads that access one for the first time may
both decode it, with equal results: its attributes are set once they are complete, and one that is reset, `_head`, is
read once and replaced by the whole structure, which is set before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, cast

from k2eg_rx.errors import K2EGError, WireError, require_extra
from k2eg_rx.protocol.arrays import value_with_arrays
from k2eg_rx.protocol.decode import REPEATED_HEADER, decode_body, decode_head
from k2eg_rx.protocol.fields import (
    Alarm,
    Limits,
    alarm_of,
    choice_of,
    columns_of,
    described,
    format_number,
    label_of,
    limits_of,
    precision_of,
    shortened,
    summary,
    units_of,
)
from k2eg_rx.protocol.records import Record
from k2eg_rx.protocol.structures import (
    EPICS_EPOCH,
    NANOSECONDS,
    Severity,
    Structure,
    datetime_of,
    pulse_id_of,
    severity_from,
    severity_of,
    structure_of,
    timestamp_of,
    user_tag_of,
)
from k2eg_rx.pv import PVAddress
from k2eg_rx.texts import html_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from k2eg_rx.protocol.msgpack_codec import Head

_NUMBER_FORMATS = "bcdoxXneEfFgG%"  # types of a format specification that apply to numbers
_REPR_WIDTH = 100
_VALUE_WIDTH = 32  # of the value in a repr; leaves at least 20 characters for the name


class PVData:
    """A PV's value at one time.

    ``float(pv)`` and ``int(pv)`` return a scalar value, or the index of an enum. ``f"{pv}"`` formats a float with the
    PV's precision and an enum as its label; ``f"{pv:10.3e}"`` applies the specification to the value (of an enum to
    the index for numeric types such as ``d``, to the label otherwise).

    Attributes:
        name: The PV's name as requested, without the protocol.
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
        """Decodes what makes sure that the rest can be decoded, unless that has been done."""
        if self._data is None:
            self._data = self._decode()

    def _decode(self) -> Structure:
        raise NotImplementedError

    @property
    def value(self) -> Any:
        """A scalar, a list, ``{"index", "choices"}`` of an enum, the columns of a table (the ``value`` field)."""
        return self.data.get("value")

    @property
    def label(self) -> str | None:
        """The text of an enum's current choice; None if the PV is not an enum or has no label for its index."""
        return label_of(self.data)

    @property
    def choices(self) -> list[str] | None:
        """The labels of an enum; None if the PV is not an enum."""
        choice = choice_of(self.data)
        return None if choice is None else choice[1]

    @property
    def array(self) -> NDArray[Any]:
        """The value as a numpy array, an image (NTNDArray) in its shape, rows first.

        Raises:
            TypeError: The value is not an array of numbers.
            ModuleNotFoundError: numpy is not installed.
        """
        require_extra("analysis", ["numpy"], "PVData.array")
        array: Any = value_with_arrays(self.data) if "value" in self.data else None
        if not hasattr(array, "dtype"):
            raise TypeError(f"{self.name}: array needs a value that is an array of numbers, got {described(self.data)}")
        return array

    @property
    def table(self) -> dict[str, list[Any]]:
        """The columns of a table (NTTable) by field name.

        Raises:
            TypeError: The PV is not a table.
        """
        columns = columns_of(self.data)
        if columns is None:
            raise TypeError(f"{self.name}: table needs an NTTable, got {described(self.data)}")
        return columns

    @property
    def alarm(self) -> Alarm:
        """The alarm's severity, status and message."""
        return alarm_of(self.data)

    @property
    def severity(self) -> Severity:
        """The alarm's severity; NO_ALARM where there is no alarm field."""
        return severity_of(self.data)

    @property
    def timestamp(self) -> int | None:
        """EPICS time in integer nanoseconds since the Unix epoch; None if the PV has none or has never been set."""
        return timestamp_of(self.data)

    @property
    def time(self) -> datetime | None:
        """EPICS time as a datetime in UTC, cut to microseconds; None where `timestamp` is None."""
        return datetime_of(timestamp_of(self.data))

    @property
    def user_tag(self) -> int | None:
        """The user tag of the time stamp, which some sites use for a pulse id; None if the PV has none."""
        return user_tag_of(self.data)

    @property
    def units(self) -> str:
        """The engineering units, or an empty string."""
        return units_of(self.data)

    @property
    def precision(self) -> int | None:
        """The number of decimals to show; None if the PV does not declare one."""
        return precision_of(self.data)

    @property
    def limits(self) -> Limits | None:
        """The display, control, alarm and warning ranges; None if the PV declares none of them."""
        return limits_of(self.data)

    def _number(self) -> int | float:
        choice = choice_of(self.data)
        value = self.value if choice is None else choice[0]
        if not isinstance(value, int | float):
            raise TypeError(f"{self.name}: a number needs a scalar or an enum, got {described(self.data)}")
        return value

    def __float__(self) -> float:
        return float(self._number())

    def __int__(self) -> int:
        return int(self._number())

    def __format__(self, spec: str) -> str:
        value = self.value
        choice = choice_of(self.data)
        if choice is not None:
            index, label = choice[0], label_of(self.data)
            value = index if label is None or (spec and spec[-1] in _NUMBER_FORMATS) else label
        if not isinstance(value, str | int | float):
            if not spec:
                return str(self)
            raise TypeError(f"{self.name}: format {spec!r} needs a scalar or an enum, got {described(self.data)}")
        if spec:
            return format(value, spec)
        return format_number(value, self.precision) if isinstance(value, float) else str(value)

    def __repr__(self) -> str:
        kind = type(self).__name__
        try:
            time = self.time
            shown = f"{time:%Y-%m-%d %H:%M:%S}.{time.microsecond // 1000:03d}Z" if time else "no time"
            about = f"{shortened(summary(self.data), _VALUE_WIDTH)}, {self.severity.name}, {shown}"
        except K2EGError:
            about = "undecodable"
        return f"{kind}({shortened(repr(self.name), _REPR_WIDTH - len(kind) - len(about) - 4)}, {about})"

    def _repr_html_(self) -> str:
        """Returns a table, which notebooks show."""
        from k2eg_rx.protocol.html_form import pv_html  # noqa: PLC0415 - for notebooks only

        try:
            return pv_html(self.name, self.data)
        except K2EGError:
            return html_table([("undecodable",)], [self.name])


class PVUpdate(PVData):
    """One event of a monitored PV, decoded on first use.

    With the extra ``fast``, `value`, `severity`, `timestamp`, `time`, `user_tag` and `pulse_id` decode no other fields,
    which takes a quarter of the time. Anything else, such as `data` and `units`, decodes the whole structure.

    Attributes:
        address: The PV as it was requested.
        record: The Kafka record of the event: topic, partition, offset.
        replayed: Whether it was read back from Kafka's history rather than received live.
    """

    __slots__ = ("_head", "_is_usual", "address", "record")

    replayed: ClassVar[bool] = False  # of the class, to keep events small; see `ReplayedUpdate`

    def __init__(self, address: PVAddress, record: Record) -> None:
        self.name = address.name  # without super().__init__(), for speed: one object is created for each event
        self._data = None
        self._head: Head | None = None  # until the structure is decoded
        self._is_usual = False  # whether the record is known to have usual headers, which are not read again then
        self.address = address
        self.record = record

    def load(self) -> None:
        """Decodes value, severity and time, or, where these cannot be decoded alone, the structure."""
        if self._head is None and self._data is None:
            address = self.address
            self._head = decode_head(self.record, address.name, address.protocol, is_usual=self._is_usual)
            if self._head is None:
                self._data = self._decode()

    def _loaded(self) -> Head | None:
        """Returns the head; None if the structure is decoded."""
        self.load()
        return self._head

    @property
    def data(self) -> Structure:
        """The whole structure as a dict, with ``value``, ``alarm``, ``timeStamp``, ``display`` etc. where present.

        If the other fields are not decodable, which no gateway sends, it has value, severity and time only: such a
        record must not end a stream that reads no more of it.
        """
        data = self._data
        if data is None:
            data = self._data = self._decode_after_head()
            self._head = None  # so that `value` is part of the structure
        return data

    def _decode_after_head(self) -> Structure:
        try:
            return self._decode()
        except WireError:
            head = self._head or decode_head(self.record, self.address.name, self.address.protocol)
            if head is None:
                raise
            stamp = head.timeStamp
            times = {name: getattr(stamp, name) for name in ("secondsPastEpoch", "nanoseconds", "userTag")}
            return {"value": head.value, "alarm": {"severity": head.alarm.severity}, "timeStamp": times}

    @property
    def value(self) -> Any:
        """A scalar, a list, ``{"index", "choices"}`` of an enum, the columns of a table (the ``value`` field)."""
        head = self._head or self._loaded()
        return self.data.get("value") if head is None else head.value

    @property
    def severity(self) -> Severity:
        """The alarm's severity; NO_ALARM where there is no alarm field."""
        head = self._head or self._loaded()
        return severity_of(self.data) if head is None else severity_from(head.alarm.severity)

    @property
    def timestamp(self) -> int | None:
        """EPICS time in integer nanoseconds since the Unix epoch; None if the PV has none or has never been set."""
        head = self._head or self._loaded()
        if head is None:
            return timestamp_of(self.data)
        stamp = head.timeStamp
        seconds, nanoseconds = stamp.secondsPastEpoch, stamp.nanoseconds
        if not seconds or nanoseconds is None or seconds == EPICS_EPOCH:  # as in `timestamp_of`
            return None
        return seconds * NANOSECONDS + nanoseconds

    @property
    def time(self) -> datetime | None:
        """EPICS time as a datetime in UTC, cut to microseconds; None where `timestamp` is None."""
        return datetime_of(self.timestamp)

    @property
    def user_tag(self) -> int | None:
        """The user tag of the time stamp, which some sites use for a pulse id; None if the PV has none."""
        head = self._head or self._loaded()
        return user_tag_of(self.data) if head is None else head.timeStamp.userTag

    @property
    def pulse_id(self) -> int | None:
        """The pulse id in the nanoseconds of the EPICS time; None if there is no time, or if it is marked as invalid.

        Its bits are those of the environment's ``pulse_id_mask``, by default LCLS's 17. All bits set mean invalid.
        """
        timestamp = self.timestamp
        return None if timestamp is None else pulse_id_of(timestamp, self.address.pulse_id_mask)

    def _decode(self) -> Structure:
        body = decode_body(self.record, self.address.protocol)
        structure = body.get(self.name)  # the usual case first, before the search in `structure_of`
        return cast("Structure", structure) if isinstance(structure, dict) else structure_of(self.address, body)


def usual_updates(address: PVAddress, records: Iterable[Record]) -> list[PVUpdate]:
    """Returns the updates of records that are known to have usual headers, so that these are not read again."""
    updates = [PVUpdate(address, record) for record in records]
    for update in updates:
        update._is_usual = True  # pyright: ignore[reportPrivateUsage] - no argument of a public class
    return updates


class ReplayedUpdate(PVUpdate):
    """A `PVUpdate` read from Kafka's history; `replayed` is True."""

    __slots__ = ()

    replayed: ClassVar[bool] = True


# A time that was never set, as `timestamp_of` knows it, in MessagePack and in JSON.
_NO_TIME = re.compile(rb'secondsPastEpoch(?:\x00|\xce\x25\x9e\x9d\x80|"\s*:\s*(?:0|631152000)\s*[,}])')


def repeats(record: Record, earlier: Record) -> bool:
    """Whether an event repeats the previous event of its PV: equal bytes, EPICS time included.

    A gateway publishes a PV's current value again whenever another client activates the monitor. Two equal events of
    a PV without a time may be two postings; they are repeats only if the gateway says so.
    """
    value = record.value
    if value is None or value != earlier.value:
        return False
    if any(name == REPEATED_HEADER for name, _ in record.headers):
        return True
    return b"timeStamp" in value and _NO_TIME.search(value) is None


@dataclass(frozen=True, slots=True)
class Reply:
    """The gateway's reply to a command.

    Attributes:
        reply_id: The id of the command.
        error: 0 for success, negative for a failure, 1 for the end of a one-shot snapshot.
        message: The gateway's text, or an empty string.
        body: The whole map, PV structures included.
    """

    reply_id: str
    error: int
    message: str = ""
    body: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def completed(self) -> bool:
        """Whether the gateway says that a put's record has completed; otherwise the value was written."""
        return self.body.get("completed") is True


@dataclass(frozen=True, slots=True)
class SnapshotHeader:
    """The start of an iteration.

    Attributes:
        snapshot_name: The snapshot's name as given at its start.
        timestamp: Publication time in integer nanoseconds since the Unix epoch.
        iter_index: The iteration's number, from 1.
        tags: The tags of the trigger; empty without.
        msg_seq: The message's number within the iteration, 1 for the header; None from older gateways.
        submission_seq: The number of the partial push; None without `sub_push_delay_msec`, and from older gateways.
    """

    snapshot_name: str
    timestamp: int
    iter_index: int
    tags: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    msg_seq: int | None = None
    submission_seq: int | None = None


@dataclass(frozen=True, slots=True)
class SnapshotData:
    """One PV's sample in an iteration.

    Attributes:
        timestamp: Publication time in integer nanoseconds since the Unix epoch.
        iter_index: The iteration's number, from 1.
        pv_name: The PV, as the gateway names it.
        data: The PV's structure.
        msg_seq: As of `SnapshotHeader`.
        submission_seq: As of `SnapshotHeader`.
        last_submission_data: Whether it is the last sample of its partial push.
    """

    timestamp: int
    iter_index: int
    pv_name: str
    data: Structure = field(hash=False)
    msg_seq: int | None = None
    submission_seq: int | None = None
    last_submission_data: bool = False


@dataclass(frozen=True, slots=True)
class SnapshotTail:
    """The end of an iteration.

    Attributes:
        snapshot_name: The snapshot's name as given at its start.
        timestamp: Publication time in integer nanoseconds since the Unix epoch.
        iter_index: The iteration's number, from 1.
        error: 0, or negative if the iteration failed.
        error_message: The failure, or an empty string.
        msg_seq: As of `SnapshotHeader`; the highest of the iteration.
        total_messages: The number of messages of the iteration, header and tail included; None from older gateways.
        submission_seq: As of `SnapshotHeader`.
        missing_messages: The number of data messages that the gateway could not send; only gateways of this library
            tell it.
    """

    snapshot_name: str
    timestamp: int
    iter_index: int
    error: int = 0
    error_message: str = ""
    msg_seq: int | None = None
    total_messages: int | None = None
    submission_seq: int | None = None
    missing_messages: int = 0


SnapshotMessage = SnapshotHeader | SnapshotData | SnapshotTail
