"""Reads many events of one PV at once, by templates; see `event_template`. Needs numpy, which is an extra.

Thread safety: an `EventReader` has none; it belongs to one owner. The rest is immutable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from k2eg_rx.errors import WireError
from k2eg_rx.protocol.column_values import Enums, Values, numbers_of, same_values, values_of
from k2eg_rx.protocol.columns import NO_TIME
from k2eg_rx.protocol.decode import decode_head
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

_MOST_TEMPLATES = 16  # of one PV: for the lengths of its numbers and its alarms' messages
_MOST_FAILURES = 8  # in a row of making a template, for a PV of texts, say
_INT32 = (-(2**31), 2**31 - 1)


@dataclass(frozen=True, slots=True, eq=False)
class EventRun:
    """What was read of events that follow each other; the attributes are those of a `Column`."""

    time: Array
    severity: Array
    status: Array
    values: Values

    def __len__(self) -> int:
        return len(self.time)

    def cut(self, begin: int, end: int | None) -> EventRun:
        """Returns what was read of some of the events."""
        part = slice(begin, end)
        return EventRun(self.time[part], self.severity[part], self.status[part], self.values.cut(part))

    def is_after(self, time: int) -> bool:
        """Returns whether each event has a time, which is later than that of the one before it."""
        times = self.time
        return int(times[0]) > time and bool((times[1:] > times[:-1]).all())


@dataclass(frozen=True, slots=True)
class Event:
    """One event, decoded alone."""

    time: int
    severity: int
    status: int
    value: object


class EventReader:
    """The templates of one PV.

    Args:
        address: The PV.
    """

    def __init__(self, address: PVAddress) -> None:
        self._address = address
        self._templates: list[tuple[int, EventTemplate, Event]] = []  # length, template, its event; last used first
        self._failures = 0

    def read(self, bodies: Sequence[bytes], first: Record) -> EventRun | None:
        """Reads events up to the first one that is not of the layout of those before it.

        Args:
            bodies: Events of one length, with usual headers.
            first: The record of the first one.

        Returns:
            What was read; None if no template fits the first event.

        Raises:
            K2EGError: The events are of a record, where a field of it was requested.
        """
        length = len(bodies[0])
        for place, (width, template, example) in enumerate(self._templates):
            if width == length and (place == 0 or template.read(bodies[:1])[0]):
                count, numbers = template.read(bodies)
                if count:
                    self._templates.insert(0, self._templates.pop(place))
                    return _run(count, numbers, example)
        made = self._make(bodies[0], first) if self._failures < _MOST_FAILURES else None
        if made is None:
            return None
        template, example = made
        return _run(*template.read(bodies), example)

    def _make(self, body: bytes, record: Record) -> tuple[EventTemplate, Event] | None:
        try:
            example = self.decode(record)
            template = EventTemplate(body, self._address.name)
            _check(template, body, example)
        except (WireError, UnsuitableEventError):
            self._failures += 1
            return None
        self._failures = 0
        self._templates = [(len(body), template, example), *self._templates[: _MOST_TEMPLATES - 1]]
        return template, example

    def decode(self, record: Record) -> Event:
        """Decodes one event.

        Raises:
            WireError: It is not decodable.
            K2EGError: As of `read`.
        """
        address = self._address
        head = decode_head(record, address.name, address.protocol)
        if head is not None:
            alarm, stamp = head.alarm, head.timeStamp
            time = timestamp_from(stamp.secondsPastEpoch, stamp.nanoseconds)
            return Event(_within(time), severity_from(alarm.severity), _status(alarm.status), head.value)
        update = PVUpdate(address, record)
        alarm = alarm_of(update.data)
        return Event(_within(update.timestamp), alarm.severity, _status(alarm.status), update.data.get("value"))


def _within(time: int | None) -> int:
    return time if time is not None and -(2**63) < time < 2**63 else NO_TIME


def _status(status: object) -> int:
    return status if isinstance(status, int) and _INT32[0] <= status <= _INT32[1] else 0


def _is_structure(value: object) -> bool:
    return isinstance(value, dict)


def _check(template: EventTemplate, body: bytes, example: Event) -> None:
    """Checks that a template reads its own event as the decoder does.

    Raises:
        UnsuitableEventError: It does not.
    """
    if _is_structure(example.value) and choice_of({"value": example.value}) is None:
        raise UnsuitableEventError
    count, numbers = template.read([body])
    read = _run(count, numbers, example)
    single = values_of([example.value])
    same = (
        count == 1
        and (read.time[0], read.severity[0], read.status[0]) == (example.time, example.severity, example.status)
        and same_values(read.values, single)
    )
    if not same:
        raise UnsuitableEventError


def _run(count: int, numbers: Mapping[tuple[object, ...], Array], example: Event) -> EventRun:
    """Returns the events of a template by their numbers; what is no number there is that of the template's event."""
    if SECONDS in numbers and NANOSECONDS in numbers:
        seconds = numbers[SECONDS].astype(np.int64)
        time = seconds * PER_SECOND + numbers[NANOSECONDS]
        if int(seconds.min()) <= EPICS_EPOCH:
            time[(seconds == 0) | (seconds == EPICS_EPOCH)] = NO_TIME
    else:
        time = np.full(count, example.time, np.int64)
    severity = _severities(numbers[SEVERITY]) if SEVERITY in numbers else np.full(count, example.severity, np.int8)
    status = _statuses(numbers[STATUS]) if STATUS in numbers else np.full(count, example.status, np.int32)
    if VALUE in numbers:
        return EventRun(time, severity, status, numbers_of(numbers[VALUE]))
    choices = choice_of({"value": example.value})
    return EventRun(time, severity, status, Enums(numbers[INDEX], [] if choices is None else choices[1]))


def _severities(numbers: Array) -> Array:
    if numbers.dtype.kind == "u":
        return np.minimum(numbers, Severity.UNDEFINED.value).astype(np.int8)
    return np.where((numbers < 0) | (numbers > Severity.UNDEFINED), Severity.UNDEFINED.value, numbers).astype(np.int8)


def _statuses(numbers: Array) -> Array:
    if numbers.dtype.itemsize < 4:
        return numbers.astype(np.int32)
    wide = numbers.astype(np.int64)
    return np.where(wide > _INT32[1], 0, wide).astype(np.int32)
