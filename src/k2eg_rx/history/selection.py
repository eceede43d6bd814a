"""Selects the records that belong to an interval of some PVs, and decodes their event times.

Kafka's time stamps come from the producer's or the broker's clock; they locate what to read, with a margin. EPICS time
stamps, in the payload, decide what belongs to an interval, and the order. An event without one, or of a record that was
never processed, counts by Kafka's.

Thread safety: none; all belongs to the thread that reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from k2eg_rx.errors import OperationError, WireError
from k2eg_rx.protocol import PVUpdate, ReplayedUpdate, decode_body, protocol_of, repeats
from k2eg_rx.pv import PVAddress, monitor_topic
from k2eg_rx.transport import DecodeErrorCounter, Record, oversized

# Seconds by which the Kafka time stamp of an event may differ from its EPICS time, either way, for it to be found. NTP
# keeps hosts within milliseconds; a gateway that was held up publishes seconds late.
MARGIN = 60.0
_MARGIN_MS = round(MARGIN * 1000)
_NANOSECONDS_PER_MS = 1_000_000


class Interval(NamedTuple):
    """An interval of event time in nanoseconds since the Unix epoch, without its `stop`; open if that is None."""

    start: int
    stop: int | None = None

    @property
    def kafka_start_ms(self) -> int:
        """The Kafka time stamp to read from, Unix milliseconds."""
        return max(0, self.start // _NANOSECONDS_PER_MS - _MARGIN_MS)

    @property
    def kafka_stop_ms(self) -> int | None:
        """The Kafka time stamp to read to, Unix milliseconds."""
        return None if self.stop is None else self.stop // _NANOSECONDS_PER_MS + _MARGIN_MS

    def __contains__(self, time: object) -> bool:
        return isinstance(time, int) and self.start <= time and (self.stop is None or time < self.stop)


EVER = Interval(-(2**127))  # every event time


class TimedUpdate(NamedTuple):
    """A historical update, and the event time that orders it."""

    time: int
    update: PVUpdate


def topics_of(addresses: Iterable[PVAddress]) -> list[str]:
    """Returns the monitor topics of PVs, each once."""
    return list(dict.fromkeys(monitor_topic(address.name) for address in addresses))


class Selection:
    """Decides which records are events of some PVs in an interval. Belongs to the thread that reads.

    Attributes:
        last: The newest record of each PV that was decoded, in the interval or before it.
        reported: The names of the PVs that had an update in the interval.

    Args:
        addresses: The PVs.
        interval: The event times.
        decode_errors: Counts undecodable records.
        max_bytes: The largest size of a value.
    """

    def __init__(
        self, addresses: Sequence[PVAddress], interval: Interval, decode_errors: DecodeErrorCounter, max_bytes: int
    ) -> None:
        self._interval = interval
        self._kafka_interval = (interval.kafka_start_ms, interval.kafka_stop_ms)
        self._decode_errors = decode_errors
        self._max_bytes = max_bytes
        self._keyed: dict[str, dict[bytes, PVAddress]] = {}
        for address in addresses:
            keyed = self._keyed.setdefault(monitor_topic(address.name), {})
            for key in (address.name.encode(), address.base.encode(), address.uri.encode()):
                keyed.setdefault(key, address)
        self.last: dict[str, Record] = {}
        self.reported: set[str] = set()

    def may_contain(self, record: Record) -> bool:
        """Whether a record may be selected, by its key, size and Kafka time stamp; decodes nothing."""
        start, stop = self._kafka_interval
        time = record.timestamp_ms
        if time >= 0 and (time < start or (stop is not None and time >= stop)):
            return False
        size = len(record.value or b"")
        if size > self._max_bytes:
            self._decode_errors.add(oversized(size, self._max_bytes), record.topic)
            return False
        keyed = self._keyed.get(record.topic, {})
        return record.key is None or record.key in keyed

    def update(self, record: Record) -> TimedUpdate | None:
        """Returns a record's update; None if it is outside the interval, repeats the last one, or is undecodable."""
        try:
            address = self._address(record)
            if address is None or protocol_of(record.headers) not in (None, address.protocol):
                return None
            last = self.last.get(address.name)
            if last is not None and repeats(record, last):
                return None
            update = ReplayedUpdate(address, record)
            time = _event_time(update)
        except WireError as error:
            self._decode_errors.add(error, record.topic)
            return None
        self.last[address.name] = record
        if time not in self._interval:
            return None
        self.reported.add(address.name)
        return TimedUpdate(time, update)

    def _address(self, record: Record) -> PVAddress | None:
        keyed = self._keyed.get(record.topic, {})
        if record.key is not None:
            return keyed.get(record.key)
        names = (str(name).encode(errors="replace") for name in decode_body(record))
        return next((keyed[name] for name in names if name in keyed), None)

    def before(self) -> list[PVUpdate]:
        """Returns the last known update of each PV that had none in the interval."""
        addresses = {address.name: address for keyed in self._keyed.values() for address in keyed.values()}
        return [PVUpdate(addresses[name], record) for name, record in self.last.items() if name not in self.reported]


def _event_time(update: PVUpdate) -> int:
    try:
        time = update.timestamp
    except OperationError:  # the field does not exist: the subscriber gets the error, as with a live update
        time = None
    return update.record.timestamp_ms * _NANOSECONDS_PER_MS if time is None else time
