"""Publishes the gateway's records to Kafka, in order per PV, from a bounded queue that outlasts an outage.

A record is passed to the sink while those before it of its PV are being confirmed. Otherwise it waits here, where the
options say how much may wait and what is dropped beyond. Nothing is sent twice; records that may or may not be stored
are counted, and the PV's current value is published after them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from threading import Lock

from reactivex import abc
from reactivex.disposable import SerialDisposable

from k2eg_rx.errors import TransportError
from k2eg_rx.gateway.commands.messages import OutgoingRecord
from k2eg_rx.gateway.commands.numbering import Part
from k2eg_rx.gateway.commands.outgoing_queue import Lane, OutgoingQueue, Outlet
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.gateway.runtime.event_loop import call_soon
from k2eg_rx.gateway.runtime.metrics import RateLimitedWarning
from k2eg_rx.texts import get_logger
from k2eg_rx.transport import MissingTopicError, RecordSink, RecordTooLargeError, UnconfirmedError

_log = get_logger(__name__)

_RETRY_DELAY = 0.05  # seconds until waiting records are tried again; a reachable broker confirms in a few milliseconds
_TURN = 100  # records of one PV that are passed on before those of the next
# Seconds of a tick. A PV whose records were not confirmed within one to two ticks gets no further ones into the sink:
# a topic without a leader does not fill the sink, and an outage fills the queue of this module.
_TICK = 0.25
_NUMBER_BYTES = 100  # more than the numbers in a snapshot's message have
_PRUNING = 240  # ticks between removals of lanes without records
_LOST = "Kafka was away or too slow for longer than the gateway's buffer holds, or did not confirm them"


class Publisher:
    """Passes records to a `RecordSink`.

    Thread safety: belongs to the event loop thread; delivery reports arrive on the thread of each sink.

    Args:
        sink: The Kafka producer.
        context: Scheduler, metrics, options and clock.
        make_bulk_sink: Makes the producer of the messages of recurring snapshots when the first one is sent; None:
            they have no producer of their own.
        on_missing: Called on the event loop thread with a topic that Kafka does not know. Reports of the same topic
            that arrive before this call are merged into it.
        on_lost: Called on the event loop thread with a topic whose newest event may not be stored.

    Attributes:
        in_session: Returns whether records with an epoch may be published now; they wait otherwise.
    """

    def __init__(
        self,
        sink: RecordSink,
        context: GatewayContext,
        on_missing: Callable[[str], None] = lambda _: None,
        on_lost: Callable[[str], None] = lambda _: None,
        make_bulk_sink: Callable[[], RecordSink] | None = None,
    ) -> None:
        options = context.options
        self._outlets = [Outlet(sink)]
        self._make_bulk_sink = make_bulk_sink
        self._on_missing = on_missing
        self._on_lost = on_lost
        self.in_session: Callable[[], bool] = lambda: True
        self._missing: set[str] = set()  # topics with a pending `on_missing` call
        self._lost: set[str] = set()  # topics for `on_lost`, when there is room
        self._scheduler = context.scheduler
        self._clock = context.clock
        self._metrics = context.metrics
        self._probe = context.metrics.latency
        self._queue = OutgoingQueue(options.outgoing_buffer, options.outgoing_buffer_bytes, options.outgoing_overflow)
        self._lanes: dict[tuple[object, ...], Lane] = {}  # by topic and key
        self._sent = 0
        self._counting = Lock()
        self._tick = 0
        self._ticking = False
        self._stopped = False
        self._timer = SerialDisposable()
        self._retry = SerialDisposable()
        self._too_large: set[tuple[str, str]] = set()  # logged, by topic and PV
        self._full = RateLimitedWarning(_log, "{} records dropped: Kafka is away or too slow")
        self._refused = RateLimitedWarning(_log, "{} records refused by the Kafka client")
        self._undelivered = RateLimitedWarning(_log, "{} records not acknowledged by Kafka")

    @property
    def waiting(self) -> int:
        """The number of records that wait. Any thread."""
        return len(self._queue)

    @property
    def waiting_bytes(self) -> int:
        """Their approximate memory. Any thread."""
        return self._queue.bytes

    @property
    def in_flight(self) -> int:
        """The number of records that were passed to the sink and are not confirmed. Any thread."""
        return max(self._sent - sum(outlet.reported for outlet in self._outlets), 0)

    def send(self, outgoing: OutgoingRecord) -> None:
        """Sends a record now, or when Kafka accepts it. Never raises."""
        if self._probe.passing:
            self._probe.carry(outgoing)
        name = outgoing[:2]
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(self._outlet(outgoing))
        if lane.waiting or self._is_stalled(lane) or not self._try_send(lane, outgoing, None):
            self._wait(lane, outgoing)

    def _outlet(self, outgoing: OutgoingRecord) -> Outlet:
        """Returns the way of a record, and of those after it of its topic and key."""
        if outgoing.place is None or self._make_bulk_sink is None or self._stopped:
            return self._outlets[0]
        if len(self._outlets) == 1:
            try:
                self._outlets.append(Outlet(self._make_bulk_sink()))
            except TransportError as error:
                _log.warning("snapshots have no producer of their own: error=%s", error)
        return self._outlets[-1]

    def _is_stalled(self, lane: Lane) -> bool:
        return lane.held is not None or (lane.sent != lane.reported and self._tick - lane.since > 1)

    def _try_send(self, lane: Lane, outgoing: OutgoingRecord, timestamp_ms: int | None) -> bool:
        """Returns False if the sink is full or the record must wait; True if it was accepted or refused for good."""
        if outgoing.epoch and not self.in_session():
            return False
        place = outgoing.place
        if place is None:
            return self._pass(lane, outgoing, outgoing.value, timestamp_ms)
        owed = lane.owed if place.part is Part.HEADER else None
        if owed is not None:
            lane.owed = None
            if not self._try_send(lane, owed, timestamp_ms):
                lane.owed = owed
                return False
        body = place.numbered(outgoing.serialization, outgoing.value)
        if body is None:
            self._count_dropped(outgoing)
            self._count_lost(lane, outgoing)
            return True
        lane.held = outgoing if len(body) > lane.accepted else None
        if not self._pass(lane, outgoing, body, timestamp_ms):
            lane.held = None
            return False
        return True

    def _pass(self, lane: Lane, outgoing: OutgoingRecord, body: bytes, timestamp_ms: int | None) -> bool:
        """Passes a record to the sink; returns as `_try_send`."""
        if lane.sent == lane.reported:
            lane.since = self._tick
        try:
            lane.outlet.sink.send(
                outgoing.topic,
                body,
                key=outgoing.key,
                headers=outgoing.headers,
                on_delivery=partial(self._delivered, lane, outgoing),
                timestamp_ms=timestamp_ms,
            )
        except Exception as error:
            if isinstance(error, TransportError) and isinstance(error.__cause__, BufferError):
                return False
            lane.held = None
            self._count_dropped(outgoing)
            self._refused.count(f"topic={outgoing.topic} error={error!r}")
            self._failed(lane, outgoing, error)
            return True
        if outgoing.place is not None:
            outgoing.place.passed_on()
        lane.sent += 1
        self._sent += 1
        self._metrics.published += 1
        if not self._ticking:
            self._schedule_tick()
        return True

    def _wait(self, lane: Lane, outgoing: OutgoingRecord) -> None:
        if self._stopped:
            self._count_dropped(outgoing)
            return
        if not len(self._queue):
            self._schedule_retry()
        for owner, dropped in self._queue.add(lane, outgoing, round(self._clock() * 1000)):
            if dropped.place is not None and dropped.place.is_owed:
                owner.owed = dropped
                continue
            self._count_dropped(dropped)
            self._metrics.merged_records += dropped.droppable and bool(owner.waiting)
            self._full.count(f"key={dropped.key.decode(errors='replace')} topic={dropped.topic}")
            self._count_lost(owner, dropped)
            if dropped.droppable and not owner.waiting:
                self._lost.add(dropped.topic)

    def _count_dropped(self, outgoing: OutgoingRecord) -> None:
        self._metrics.dropped_records += 1
        if outgoing.place is not None:
            outgoing.place.dropped()
        if outgoing is self._probe.record:
            self._probe.end(confirmed=False)

    @staticmethod
    def _count_lost(lane: Lane, outgoing: OutgoingRecord) -> None:
        if outgoing.instead is not None and outgoing.droppable:
            lane.lost += 1
            lane.tell = outgoing.instead

    def _schedule_retry(self) -> None:
        def retry(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            self._pass_on()
            if len(self._queue):
                self._schedule_retry()
            else:
                self._recover()

        self._retry.disposable = self._scheduler.schedule_relative(_RETRY_DELAY, retry)

    def _pass_on(self) -> None:
        """Passes waiting records to the sinks, as far as they take them."""
        full: set[Outlet] = set()
        progress = True
        while progress:
            progress = False
            for lane in self._queue.lanes():
                if lane.outlet in full:
                    continue
                for _ in range(_TURN):
                    if not lane.waiting or self._is_stalled(lane):
                        break
                    record, timestamp_ms = self._queue.first(lane)
                    if not self._try_send(lane, record, timestamp_ms):
                        full.add(lane.outlet)
                        break
                    self._queue.discard(lane, record)
                    progress = True
                if lane.outlet not in full:
                    self._queue.rotate(lane)

    def is_settled(self, topic: str, key: bytes) -> bool:
        """Returns whether no record of a topic and key waits or is to be confirmed."""
        lane = self._lanes.get((topic, key))
        return lane is None or lane.is_settled()

    def unsettled(self) -> set[str]:
        """Returns the topics of which some record waits or is to be confirmed."""
        return {str(name[0]) for name, lane in self._lanes.items() if not lane.is_settled()}

    def drop(self, topic: str, key: bytes) -> bool:
        """Drops the waiting records of a topic and key, if there are any: another gateway publishes them."""
        lane = self._lanes.get((topic, key))
        records = [] if lane is None else self._queue.take(lane)
        for outgoing in records:
            self._count_dropped(outgoing)
        self._metrics.fenced_records += len(records)
        return bool(records)

    def _recover(self) -> None:
        """Publishes the current values of PVs whose newest event may be lost."""
        topics, self._lost = self._lost, set()
        for topic in topics:
            self._on_lost(topic)

    def _delivered(self, lane: Lane, outgoing: OutgoingRecord, error: TransportError | None) -> None:
        """Counts a report. Called on the thread of the lane's sink, the only writer of what it counts."""
        lane.reported += 1
        lane.since = self._tick
        lane.outlet.reported += 1
        if outgoing is self._probe.record:
            self._probe.end(confirmed=error is None)
        if lane.held is outgoing:
            call_soon(self._scheduler, partial(self._release, lane, outgoing, error))
        if error is not None:
            with self._counting:  # two sinks have two threads
                self._metrics.undelivered += 1
            call_soon(self._scheduler, partial(self._failed, lane, outgoing, error))
        elif lane.lost:
            call_soon(self._scheduler, partial(self._tell, lane))

    def _release(self, lane: Lane, outgoing: OutgoingRecord, error: TransportError | None) -> None:
        """Passes on what has waited for a report of whether Kafka accepts a large record."""
        lane.held = None
        if error is None:
            lane.accepted = max(lane.accepted, len(outgoing.value) + _NUMBER_BYTES)
        elif isinstance(error, RecordTooLargeError) and outgoing.place is not None:
            outgoing.place.taken_back()
        self._pass_on()

    def _tell(self, lane: Lane) -> None:
        """Tells the clients of a lane what they have missed, now that Kafka accepts its records again."""
        number, lane.lost = lane.lost, 0
        notice = lane.tell(_LOST, number) if number and lane.tell is not None else None
        if notice is not None:
            self.send(notice)

    def _failed(self, lane: Lane, outgoing: OutgoingRecord, error: Exception) -> None:
        """Handles a record that Kafka refused or did not confirm."""
        if isinstance(error, RecordTooLargeError):
            self._on_too_large(outgoing, error)
            return
        self._count_lost(lane, outgoing)
        self._undelivered.count(error)
        if isinstance(error, MissingTopicError):
            self._report_missing(error.topic)
        elif isinstance(error, UnconfirmedError) and outgoing.droppable:
            if not self._lost and not len(self._queue):
                call_soon(self._scheduler, self._recover)
            self._lost.add(outgoing.topic)

    def _on_too_large(self, outgoing: OutgoingRecord, error: RecordTooLargeError) -> None:
        """Publishes a small record in place of one that is too large."""
        self._metrics.oversized += 1
        pv_name = outgoing.about or outgoing.key.decode(errors="replace")
        if (outgoing.topic, pv_name) not in self._too_large:
            self._too_large.add((outgoing.topic, pv_name))
            _log.warning("value too large for Kafka: pv=%s bytes=%d error=%s", pv_name, len(outgoing.value), error)
        reason = f"the value has {len(outgoing.value)} bytes, which Kafka does not accept: {error}"
        instead = None if outgoing.instead is None else outgoing.instead(reason, 1)
        if instead is not None:
            self.send(instead)

    def _report_missing(self, topic: str) -> None:
        if topic in self._missing:
            return
        self._missing.add(topic)

        def report() -> None:
            self._missing.discard(topic)
            self._on_missing(topic)

        call_soon(self._scheduler, report)

    def _schedule_tick(self) -> None:
        def tick(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            self._tick += 1
            if self._tick % _PRUNING == 0:
                self._lanes = {name: lane for name, lane in self._lanes.items() if not lane.is_idle()}
            self._ticking = self.in_flight > 0
            if self._ticking:
                self._schedule_tick()

        self._ticking = True
        self._timer.disposable = self._scheduler.schedule_relative(_TICK, tick)

    def stop(self) -> None:
        """Passes on what the sink still takes, and drops the rest and what comes later. Idempotent."""
        self._retry.dispose()
        self._timer.dispose()
        self._pass_on()
        self._stopped = True
        number = self._queue.clear()
        if number:
            self._metrics.dropped_records += number
            self._probe.end(confirmed=False)
            _log.warning("records dropped at close: count=%d reason=Kafka does not accept them", number)

    def close(self, timeout: float) -> None:
        """Flushes the producers for at most `timeout` seconds, after `stop`. Callable on any thread."""
        deadline = time.monotonic() + timeout
        for number, outlet in enumerate(self._outlets):
            outlet.sink.close(max(deadline - time.monotonic(), 0.0) / (len(self._outlets) - number))
