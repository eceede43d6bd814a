"""Decodes the events of one PV to a column. Imported only where columns are wanted, since numpy is an extra.

Most events are read many at once, by templates; see `event_template`. Those that do not fit one are decoded one by one.

Thread safety: none; a decoder belongs to one subscription.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from k2eg_rx.errors import WireError
from k2eg_rx.protocol.column_values import Enums, Values, column_values, numbers_of, same_values, values_of
from k2eg_rx.protocol.columns import NO_TIME, Column
from k2eg_rx.protocol.decode import decode_head, has_usual_headers
from k2eg_rx.protocol.event_template import (
    INDEX,
    NANOSECONDS,
    SECONDS,
    SEVERITY,
    STATUS,
    VALUE,
    EventTemplate,
    UnsuitableEventError,
)
from k2eg_rx.protocol.fields import alarm_of, choice_of
from k2eg_rx.protocol.messages import PVUpdate
from k2eg_rx.protocol.records import Record
from k2eg_rx.protocol.structures import EPICS_EPOCH, Severity, severity_from, timestamp_from
from k2eg_rx.protocol.structures import NANOSECONDS as PER_SECOND
from k2eg_rx.pv import PVAddress

Array: TypeAlias = NDArray[Any]

_LEAST = 16  # events: fewer are decoded sooner one by one than by numpy
_MOST_TEMPLATES = 16  # of one PV: for the lengths of its numbers and its alarms' messages
_MOST_FAILURES = 8  # in a row of making a template, for a PV of texts, say
_INT32 = (-(2**31), 2**31 - 1)


@dataclass(frozen=True, slots=True)
class _Part:
    """Events that were decoded together."""

    time: Array
    severity: Array
    status: Array
    values: Values


@dataclass(frozen=True, slots=True)
class _Event:
    """One event, decoded alone."""

    time: int
    severity: int
    status: int
    value: object


class ColumnDecoder:
    """The column of one PV, as far as its events have been decoded.

    Args:
        address: The PV.
        on_error: Called with the error of an event that cannot be decoded.
    """

    def __init__(self, address: PVAddress, on_error: Callable[[WireError], None]) -> None:
        self._address = address
        self._on_error = on_error
        self._parts: list[_Part] = []
        self._last: Record | None = None
        self._templates: list[tuple[int, EventTemplate, _Event]] = []  # length, template, its event; last used first
        self._failures = 0
        self._has_floats = False  # then integers are floats, too: gateways may send a float without fraction as one

    def add(self, records: Sequence[Record], *, are_usual: bool = False) -> int:
        """Decodes events; returns how many could be.

        Args:
            records: The events.
            are_usual: Whether it is known that all of them have a value and usual headers.

        Raises:
            K2EGError: The events are of a record, where a field of it was requested.
        """
        if are_usual and len(records) >= _LEAST:
            lengths = [len(record.value or b"") for record in records]
            if lengths.count(lengths[0]) == len(lengths):
                return self._add_alike(lengths[0], records)
        decoded = 0
        for (length, is_usual), run in groupby(records, self._layout):
            events = list(run)
            decoded += self._add_alike(length, events) if is_usual else self._add_singly(events)
        return decoded

    def take(self) -> Column | None:
        """Returns the column of what was decoded since the last call; None if that is nothing."""
        parts, self._parts = self._parts, []
        if not parts or self._last is None:
            return None
        value, labels = column_values([part.values for part in parts], as_floats=self._has_floats)
        self._has_floats = value.dtype.kind == "f"
        return Column(
            np.concatenate([part.time for part in parts]),
            value,
            np.concatenate([part.severity for part in parts]),
            np.concatenate([part.status for part in parts]),
            labels,
            PVUpdate(self._address, self._last),
        )

    def _layout(self, record: Record) -> tuple[int, bool]:
        return len(record.value or b""), has_usual_headers(record.headers, self._address.protocol)

    def _add_alike(self, length: int, records: Sequence[Record]) -> int:
        """Decodes events of one length with usual headers."""
        start = decoded = 0
        while len(records) - start >= _LEAST:
            found = self._template(length, records[start])
            count = 0
            if found is not None:
                template, example = found
                count, numbers = template.read([record.value or b"" for record in records[start:]])
                if count:
                    self._parts.append(_part(count, numbers, example))
                    self._last = records[start + count - 1]
                    start, decoded = start + count, decoded + count
            if count < _LEAST:  # another layout in between: others may be on both sides
                decoded += self._add_singly(records[start : start + _LEAST])
                start += _LEAST
        return decoded + self._add_singly(records[start:])

    def _template(self, length: int, record: Record) -> tuple[EventTemplate, _Event] | None:
        """Returns the template of an event, which may be new, and the event that it was made of."""
        body = record.value or b""
        for place, (width, template, example) in enumerate(self._templates):
            if width == length and template.read([body])[0]:
                self._templates.insert(0, self._templates.pop(place))
                return template, example
        if self._failures >= _MOST_FAILURES:
            return None
        try:
            example = self._decode(record)
            template = EventTemplate(body, self._address.name)
            _check(template, body, example)
        except (WireError, UnsuitableEventError):
            self._failures += 1
            return None
        self._failures = 0
        self._templates = [(length, template, example), *self._templates[: _MOST_TEMPLATES - 1]]
        return template, example

    def _add_singly(self, records: Sequence[Record]) -> int:
        events: list[_Event] = []
        for record in records:
            try:
                events.append(self._decode(record))
            except WireError as error:
                self._on_error(error)
            else:
                self._last = record
        if events:
            self._parts.append(
                _Part(
                    np.array([event.time for event in events], np.int64),
                    np.array([event.severity for event in events], np.int8),
                    np.array([event.status for event in events], np.int32),
                    values_of([event.value for event in events]),
                )
            )
        return len(events)

    def _decode(self, record: Record) -> _Event:
        address = self._address
        head = decode_head(record, address.name, address.protocol)
        if head is not None:
            alarm, stamp = head.alarm, head.timeStamp
            time = timestamp_from(stamp.secondsPastEpoch, stamp.nanoseconds)
            return _Event(_within(time), severity_from(alarm.severity), _status(alarm.status), head.value)
        update = PVUpdate(address, record)
        alarm = alarm_of(update.data)
        return _Event(_within(update.timestamp), alarm.severity, _status(alarm.status), update.data.get("value"))


def _within(time: int | None) -> int:
    return time if time is not None and -(2**63) < time < 2**63 else NO_TIME


def _status(status: object) -> int:
    return status if isinstance(status, int) and _INT32[0] <= status <= _INT32[1] else 0


def _is_structure(value: object) -> bool:
    return isinstance(value, dict)


def _check(template: EventTemplate, body: bytes, example: _Event) -> None:
    """Checks that a template reads its own event as the decoder does.

    Raises:
        UnsuitableEventError: It does not.
    """
    if _is_structure(example.value) and choice_of({"value": example.value}) is None:
        raise UnsuitableEventError
    count, numbers = template.read([body])
    read = _part(count, numbers, example)
    single = values_of([example.value])
    same = (
        count == 1
        and (read.time[0], read.severity[0], read.status[0]) == (example.time, example.severity, example.status)
        and same_values(read.values, single)
    )
    if not same:
        raise UnsuitableEventError


def _part(count: int, numbers: Mapping[tuple[object, ...], Array], example: _Event) -> _Part:
    """Returns the events of a template by their numbers; what is no number there is that of the template's event."""
    if SECONDS in numbers and NANOSECONDS in numbers:
        seconds = numbers[SECONDS].astype(np.int64)
        time = seconds * PER_SECOND + numbers[NANOSECONDS]
        time[(seconds == 0) | (seconds == EPICS_EPOCH)] = NO_TIME
    else:
        time = np.full(count, example.time, np.int64)
    severity = np.full(count, example.severity, np.int8)
    if SEVERITY in numbers:
        known = numbers[SEVERITY].astype(np.int64)
        severity = np.where((known < 0) | (known > Severity.UNDEFINED), Severity.UNDEFINED, known).astype(np.int8)
    status = np.full(count, example.status, np.int32)
    if STATUS in numbers:
        wide = numbers[STATUS].astype(np.int64)
        status = np.where(wide > _INT32[1], 0, wide).astype(np.int32)
    if VALUE in numbers:
        return _Part(time, severity, status, numbers_of(numbers[VALUE]))
    choices = choice_of({"value": example.value})
    return _Part(time, severity, status, Enums(numbers[INDEX], [] if choices is None else choices[1]))
