"""Which records are the past of some PVs, and what they tell.

In: records, in order per partition. Out: updates with the event time by which they are told. Belongs to the one thread
that reads.

Two clocks are at work. Kafka's own, in the records' time stamps, is that of producer or broker; it is used to find
where to read, with a margin. EPICS time, in the payload, decides what belongs to an interval, and the order; an event
that has none counts by Kafka's, and so does one of a record that was never processed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from k2eg_rx.errors import OperationError, WireError
from k2eg_rx.protocol import PVUpdate, ReplayedUpdate, decode_body, repeats
from k2eg_rx.pv import PVAddress, monitor_topic
from k2eg_rx.transport import DecodeErrorCounter, Record, oversized

# Seconds by which Kafka's time stamp of an event may be away from its EPICS time, either way, for it to be found. Hosts
# that keep their clocks by NTP differ by milliseconds; gateways that were held up publish seconds late.
MARGIN = 60.0
_MARGIN_MS = round(MARGIN * 1000)
_NANOSECONDS_PER_MS = 1_000_000


class Interval(NamedTuple):
    """An interval of event time, nanoseconds since the Unix epoch: from `start` to before `stop`, if there is one."""

    start: int
    stop: int | None = None

    @property
    def kafka_start_ms(self) -> int:
        """From where to read, in Kafka's time."""
        return self.start // _NANOSECONDS_PER_MS - _MARGIN_MS

    @property
    def kafka_stop_ms(self) -> int | None:
        """To where to read, in Kafka's time."""
        return None if self.stop is None else self.stop // _NANOSECONDS_PER_MS + _MARGIN_MS

    def __contains__(self, time: object) -> bool:
        return isinstance(time, int) and self.start <= time and (self.stop is None or time < self.stop)


class TimedUpdate(NamedTuple):
    """An update of the past, and the event time by which it is told."""

    time: int
    update: PVUpdate


def topics_of(addresses: Iterable[PVAddress]) -> list[str]:
    """Returns the topics that carry the events of some PVs, each once."""
    return list(dict.fromkeys(monitor_topic(address.name) for address in addresses))


class Selection:
    """Which records are events of some PVs in an interval, and what they are.

    Attributes:
        last: The newest record of each PV that was looked at, in the interval or before it.
        told: The names of the PVs of which there was an update.

    Args:
        addresses: The PVs.
        interval: The event times that count.
        discards: Where records that break the wire format are counted.
        limit: Bytes that a body may have.
    """

    def __init__(
        self, addresses: Sequence[PVAddress], interval: Interval, discards: DecodeErrorCounter, limit: int
    ) -> None:
        self._interval = interval
        self._reach = (interval.kafka_start_ms, interval.kafka_stop_ms)
        self._discards = discards
        self._limit = limit
        self._keyed: dict[str, dict[bytes, PVAddress]] = {}
        for address in addresses:
            keyed = self._keyed.setdefault(monitor_topic(address.name), {})
            for key in (address.name.encode(), address.base.encode()):
                keyed.setdefault(key, address)
        self.last: dict[str, Record] = {}
        self.told: set[str] = set()

    def concerns(self, record: Record) -> bool:
        """Whether it may be one of them; decodes nothing."""
        start, stop = self._reach
        time = record.timestamp_ms
        if time >= 0 and (time < start or (stop is not None and time >= stop)):
            return False
        size = len(record.value or b"")
        if size > self._limit:
            self._discards.add(oversized(size, self._limit), record.topic)
            return False
        keyed = self._keyed.get(record.topic, {})
        return record.key is None or record.key in keyed

    def update(self, record: Record) -> TimedUpdate | None:
        """Returns what a record tells; None if it is not of the interval, repeats the last one, or is broken."""
        try:
            address = self._address(record)
            if address is None:
                return None
            last = self.last.get(address.name)
            if last is not None and repeats(record.value, last.value):
                return None
            update = ReplayedUpdate(address, record)
            time = _event_time(update)
        except WireError as error:
            self._discards.add(error, record.topic)
            return None
        self.last[address.name] = record
        if time not in self._interval:
            return None
        self.told.add(address.name)
        return TimedUpdate(time, update)

    def _address(self, record: Record) -> PVAddress | None:
        keyed = self._keyed.get(record.topic, {})
        if record.key is not None:
            return keyed.get(record.key)
        names = (str(name).encode(errors="replace") for name in decode_body(record))
        return next((keyed[name] for name in names if name in keyed), None)

    def before(self) -> list[PVUpdate]:
        """Returns the newest known update of each PV that had none in the interval."""
        addresses = {address.name: address for keyed in self._keyed.values() for address in keyed.values()}
        return [PVUpdate(addresses[name], record) for name, record in self.last.items() if name not in self.told]


def _event_time(update: PVUpdate) -> int:
    try:
        time = update.timestamp
    except OperationError:  # no such field: told where the subscriber is, as of a live update
        time = None
    return update.record.timestamp_ms * _NANOSECONDS_PER_MS if time is None else time
