"""A PV's value as the protocol carries it: a map that mirrors the EPICS structure.

The layout is that of the EPICS V4 Normative Types (NTScalar, NTScalarArray, NTEnum, NTTable, ...).
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Any, cast

from k2eg_rx.errors import OperationError, WireError
from k2eg_rx.pv import PVAddress
from k2eg_rx.texts import shown

Structure = dict[str, Any]

NANOSECONDS = 1_000_000_000

# The epoch of EPICS time, 1990-01-01, in Unix seconds (epicsTime.h, POSIX_TIME_AT_EPICS_EPOCH).
EPICS_EPOCH = 631_152_000

_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# Error codes of an `OperationError` that the client raises itself: the gateway's reply is for the record, not for the
# field; the structure has no such field.
FIELD_IGNORED = -1
FIELD_MISSING = -2


class Severity(IntEnum):
    """EPICS alarm severity (epicsAlarmSeverity in alarm.h; UNDEFINED exists on PVAccess only).

    Severities compare with numbers and with names: ``update.severity >= "MAJOR"``. A string that is no severity's name
    is a ValueError, also for ``==``. As a key of a dict, a name is not equal to a severity.

    Attributes:
        NO_ALARM: 0
        MINOR: 1
        MAJOR: 2
        INVALID: 3, the value is not to be used.
        UNDEFINED: 4
    """

    NO_ALARM = 0
    MINOR = 1
    MAJOR = 2
    INVALID = 3
    UNDEFINED = 4

    def __eq__(self, other: object) -> bool:
        return int.__eq__(self, _number(other))

    def __ne__(self, other: object) -> bool:
        return int.__ne__(self, _number(other))

    def __lt__(self, other: int | str) -> bool:
        return int.__lt__(self, _number(other))

    def __le__(self, other: int | str) -> bool:
        return int.__le__(self, _number(other))

    def __gt__(self, other: int | str) -> bool:
        return int.__gt__(self, _number(other))

    def __ge__(self, other: int | str) -> bool:
        return int.__ge__(self, _number(other))

    __hash__ = int.__hash__


def _number(other: Any) -> Any:
    """Returns the number of a severity that is given by its name; anything else unchanged."""
    if not isinstance(other, str):
        return other
    try:
        return int(Severity[other])
    except KeyError:
        names = ", ".join(Severity.__members__)
        raise ValueError(f"a severity must be compared with one of {names}, got {shown(other)}") from None


_SEVERITIES = tuple(Severity)  # by number


def severity_of(structure: Mapping[str, Any]) -> Severity:
    """Returns a structure's alarm severity; NO_ALARM where there is no alarm field, UNDEFINED for an unknown number."""
    alarm = structure.get("alarm")  # not by `match`, here and below: it takes several times as long, on each event
    return severity_from(cast("Structure", alarm).get("severity") if isinstance(alarm, dict) else None)


def severity_from(number: object) -> Severity:
    """Returns the severity of a number in an alarm field; NO_ALARM for what is no number."""
    if isinstance(number, int):
        return _SEVERITIES[number] if 0 <= number < len(_SEVERITIES) else Severity.UNDEFINED
    return Severity.NO_ALARM


def timestamp_of(structure: Mapping[str, Any]) -> int | None:
    """Returns a structure's EPICS time in integer nanoseconds since the Unix epoch, or None if it has none.

    A time that was never set is none: zero seconds, as PVAccess servers send it, and the EPICS epoch, as Channel
    Access sends it for a record that was never processed.
    """
    stamp = structure.get("timeStamp")
    if isinstance(stamp, dict):
        fields = cast("Structure", stamp)
        return timestamp_from(fields.get("secondsPastEpoch"), fields.get("nanoseconds"))
    return None


def timestamp_from(seconds: object, nanoseconds: object) -> int | None:
    """Returns the time of the numbers in a time stamp; see `timestamp_of`."""
    if isinstance(seconds, int) and isinstance(nanoseconds, int) and seconds and seconds != EPICS_EPOCH:
        return seconds * NANOSECONDS + nanoseconds
    return None


def user_tag_of(structure: Mapping[str, Any]) -> int | None:
    """Returns the user tag of a structure's time stamp, or None if it has none."""
    stamp = structure.get("timeStamp")
    tag = cast("Structure", stamp).get("userTag") if isinstance(stamp, dict) else None
    return tag if isinstance(tag, int) else None


def pulse_id_of(timestamp: int, mask: int) -> int | None:
    """Returns the pulse id in a time in nanoseconds; None if it is invalid: all its bits are set.

    Args:
        timestamp: Nanoseconds since the Unix epoch.
        mask: The bits of the nanoseconds within the second that hold it.
    """
    bits = timestamp % NANOSECONDS & mask
    return None if bits == mask else bits // (mask & -mask)


def nanoseconds_of(time: datetime) -> int:
    """Returns a time in integer nanoseconds since the Unix epoch, exact to the microseconds of a datetime."""
    return (time - _UNIX_EPOCH) // _MICROSECOND * 1000


def datetime_of(timestamp: int | None) -> datetime | None:
    """Returns a time in nanoseconds since the Unix epoch as a datetime in UTC, cut to microseconds.

    None for None, and for a time that a datetime cannot express (beyond the year 9999).
    """
    try:
        return None if timestamp is None else _UNIX_EPOCH + timedelta(microseconds=timestamp // 1000)
    except OverflowError:
        return None


def select_field(structure: Structure, path: str, subject: str) -> Structure:
    """Returns a field of a structure as a structure of its own: the field as ``value``, with the PV's alarm and time.

    Args:
        structure: The whole PV.
        path: Field names separated by dots.
        subject: The PV's URI, for the error.

    Raises:
        OperationError: The structure has no such field.
    """
    found: Any = structure
    for step in path.split("."):
        if not isinstance(found, dict) or step not in found:
            known = ", ".join(map(str, cast("Structure", found))) if isinstance(found, dict) else "no fields"
            raise OperationError(FIELD_MISSING, f"no field {step!r}; there is {known}", "get", subject)
        found = cast("Structure", found)[step]
    selected: Structure = {"value": found}
    for part in ("alarm", "timeStamp"):
        if part in structure:
            selected[part] = structure[part]
    return selected


def structure_of(address: PVAddress, body: Mapping[str, Any]) -> Structure:
    """Returns the structure of a PV from a message's body.

    A gateway that ignores field paths sends the whole record under the record's name. A path inside the structure is
    then selected here. A record field (``X.HIGH``) is not in the structure, and the record's value must not be
    returned for it.

    Raises:
        WireError: The body has no structure of that PV.
        OperationError: The gateway sent the record instead of its field, or the structure has no such field.
    """
    for name in (address.name, address.uri):  # the URI where a topic carries a PV over both protocols
        structure = body.get(name)
        if isinstance(structure, dict):
            return cast("Structure", structure)
    whole = body.get(address.base) if address.field else None
    if not isinstance(whole, dict):
        raise WireError("shape", f"no structure of {address.name!r} in a message about {reprlib.repr(list(body))}")
    if address.is_record_field:
        raise OperationError(
            FIELD_IGNORED,
            f"this gateway does not know record fields: it answered with {address.base} itself",
            "get",
            address.uri,
        )
    return select_field(cast("Structure", whole), address.field, address.uri)
