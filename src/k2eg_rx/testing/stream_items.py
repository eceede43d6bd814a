"""Builds items of streams (`PVUpdate`, `Snapshot`) from plain values, for tests of operators and handlers.

Updates carry the bytes of a gateway's event and decode them on first use, as those read from Kafka do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from k2eg_rx.arguments import LARGEST_COUNT, LONGEST_DURATION, instance, items_of, mapping, named, non_negative, whole
from k2eg_rx.protocol import (
    NANOSECONDS,
    PVData,
    PVUpdate,
    Samples,
    Serialization,
    Severity,
    Snapshot,
    encode_event,
    encode_structure,
)
from k2eg_rx.pv import PVAddress, monitor_topic
from k2eg_rx.testing.structures import START, Timestamp, nanoseconds, structure
from k2eg_rx.transport import Record

_MILLISECOND = 1_000_000  # in nanoseconds


_INT64 = 2**63 - 1


def _address(pv: str) -> PVAddress:
    return PVAddress.parse(pv if "://" in pv else f"pva://{pv}")


def update(
    pv: str,
    value: object = None,
    *,
    severity: Severity | int = Severity.NO_ALARM,
    timestamp: Timestamp = START,
    message: str = "",
    units: str = "",
    choices: Sequence[str] | None = None,
    fields: Mapping[str, Any] | None = None,
    offset: int = 0,
    arrival_ms: int = -1,
) -> PVUpdate:
    """Returns an update as `monitor_stream` emits it.

    Example:
        >>> from k2eg_rx.testing import update
        >>> late = update("demo:current", 1.5, severity=1, timestamp=1_767_225_600_500_000_000)
        >>> late.value, late.severity.name, late.timestamp
        (1.5, 'MINOR', 1767225600500000000)

    Args:
        pv: The PV's name or URI.
        value: A plain or numpy value; see `structure`.
        severity: The alarm's severity.
        timestamp: EPICS time: integer nanoseconds since the Unix epoch, or a datetime with a time zone; None for a PV
            without timestamp.
        message: The alarm's message.
        units: Engineering units.
        choices: The labels of an enum; `value` is then the index or the label.
        fields: Further fields of the structure.
        offset: The offset in the PV's Kafka topic.
        arrival_ms: Kafka's timestamp in Unix milliseconds; by default the EPICS time.

    Raises:
        ValueError: An argument is invalid.
    """
    address = _address(pv)
    made = structure(
        value,
        severity=severity,
        timestamp=timestamp,
        message=message,
        units=units,
        choices=choices,
        fields=fields,
        protocol=address.protocol,
    )
    body = encode_event(Serialization.MSGPACK, address.name, encode_structure(Serialization.MSGPACK, made))
    if arrival_ms < 0 and timestamp is not None:
        arrival_ms = nanoseconds(timestamp) // _MILLISECOND
    topic, key = monitor_topic(address.name), address.name.encode()
    return PVUpdate(address, Record(topic, 0, offset, key, body, Serialization.MSGPACK.headers, arrival_ms))


def series(
    pv: str, values: Iterable[object], *, every: float = 1.0, start: int = START, **about: Any
) -> list[PVUpdate]:
    """Returns updates of a PV with increasing EPICS times and offsets.

    Args:
        pv: The PV's name or URI.
        values: The values.
        every: Seconds of EPICS time between two updates.
        start: EPICS time of the first update, integer nanoseconds.
        about: Further arguments of `update`, the same for all updates.

    Example:
        >>> from k2eg_rx.testing import series
        >>> [item.timestamp - item.record.offset for item in series("demo:x", [1, 2], every=0.5, start=10**9)]
        [1000000000, 1499999999]
    """
    step = round(non_negative(every, "every", LONGEST_DURATION) * NANOSECONDS)
    begin = whole(start, "start", -_INT64, _INT64)
    return [
        update(pv, value, timestamp=begin + number * step, offset=number, **about)
        for number, value in enumerate(items_of(values, "values", "a list of values"))
    ]


def _samples(value: object, timestamp: int) -> Samples:
    if value is None:
        return Samples()
    items: Sequence[object] = cast("Sequence[object]", value) if isinstance(value, list | tuple) else (value,)
    updates = [item.data for item in items if isinstance(item, PVData)]
    return Samples(updates or [structure(cast("object", value), timestamp=timestamp)])


def snapshot(
    name: str,
    values: Mapping[str, object],
    *,
    iteration: int = 1,
    timestamp: int = START,
    window: float = 1.0,
    error: int = 0,
    error_message: str = "",
    missing: int = 0,
    tags: Mapping[str, str] | None = None,
) -> Snapshot:
    """Returns a snapshot as the snapshot streams emit it.

    Example:
        >>> from k2eg_rx.testing import snapshot
        >>> orbit = snapshot("orbit", {"bpm:1": 0.25, "bpm:2": None}, iteration=7)
        >>> orbit.iteration, orbit.data["bpm:1"]["value"], len(orbit.data["bpm:2"])
        (7, 0.25, 0)

    Args:
        name: The snapshot's name.
        values: By PV name, a value as `structure` takes it, an update, a list of updates for several samples, or None
            for a PV without data.
        iteration: The iteration's number.
        timestamp: EPICS time of plain values and of the snapshot's header, integer nanoseconds.
        window: Seconds from header to tail.
        error: The error code; negative for a failure.
        error_message: The error's text.
        missing: The number of messages that are missing.
        tags: The tags of the trigger.
    """
    begin = whole(timestamp, "timestamp", -_INT64, _INT64)
    end = begin + round(non_negative(window, "window", LONGEST_DURATION) * NANOSECONDS)
    given = mapping(values, "values", "a mapping of PV names to values")
    data = {pv: _samples(value, timestamp) for pv, value in given.items()}
    instance(error_message, "error_message", str, "a text")
    whole(iteration, "iteration", 0, _INT64)
    whole(error, "error", -LARGEST_COUNT)
    whole(missing, "missing", 0, _INT64)
    labels = {} if tags is None else dict(mapping(tags, "tags", "a mapping of texts to texts"))
    return Snapshot(named(name), data, end, iteration, begin, end, error, error_message, missing, labels)
