"""Publishes the gateway's records to Kafka, in order.

The queue of the Kafka producer is bounded. While it is full, records wait in a second bounded queue; when that is full
too, the oldest records are dropped, counted and logged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from reactivex import abc
from reactivex.disposable import SerialDisposable

from k2eg_rx.errors import TransportError
from k2eg_rx.gateway.commands.messages import OutgoingRecord
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.gateway.runtime.event_loop import call_soon
from k2eg_rx.gateway.runtime.metrics import RateLimitedWarning
from k2eg_rx.texts import get_logger
from k2eg_rx.transport import MissingTopicError, RecordSink

_log = get_logger(__name__)

_RETRY_DELAY = 0.05  # seconds until a full producer queue is tried again; a reachable broker empties it in a few


class Publisher:
    """Passes records to a `RecordSink` and retries those that find its queue full.

    Thread safety: belongs to the event loop thread; delivery reports arrive on the producer's thread.

    Args:
        sink: The Kafka producer.
        context: Scheduler, metrics and options.
        on_missing: Called on the event loop thread with a topic that Kafka does not know. Reports of the same topic
            that arrive before this call are merged into it.
    """

    def __init__(
        self, sink: RecordSink, context: GatewayContext, on_missing: Callable[[str], None] = lambda _: None
    ) -> None:
        self._sink = sink
        self._on_missing = on_missing
        self._missing: set[str] = set()  # topics with a pending `on_missing` call; used by two threads, atomically
        self._limit = context.options.outgoing_buffer
        self._scheduler = context.scheduler
        self._metrics = context.metrics
        self._waiting: deque[OutgoingRecord] = deque()
        self._retry = SerialDisposable()
        self._full = RateLimitedWarning(_log, "{} records dropped: the producer queue is full")
        self._refused = RateLimitedWarning(_log, "{} records refused by the Kafka client")
        self._undelivered = RateLimitedWarning(_log, "{} records not acknowledged by Kafka")

    def send(self, outgoing: OutgoingRecord) -> None:
        """Sends a record now, or when the producer queue has room. Never raises."""
        if self._waiting or not self._try_send(outgoing):
            self._waiting.append(outgoing)
            if len(self._waiting) == 1:
                self._schedule_retry()
            elif len(self._waiting) > self._limit:
                self._waiting.popleft()
                self._metrics.dropped_records += 1
                self._full.count()

    def _try_send(self, outgoing: OutgoingRecord) -> bool:
        """Returns False if the producer queue is full; True if the record was accepted or refused for good."""
        topic, key, value = outgoing[:3]
        try:
            self._sink.send(topic, value, key=key, headers=outgoing.headers, on_delivery=self._on_delivery)
        except Exception as error:
            if isinstance(error, TransportError) and isinstance(error.__cause__, BufferError):
                return False  # confluent-kafka raises BufferError for a full queue
            self._metrics.dropped_records += 1
            self._refused.count(f"topic={topic} error={error!r}")
            self._report_missing_topic(error)
        else:
            self._metrics.published += 1
        return True

    def _on_delivery(self, error: TransportError | None) -> None:
        """Counts failed deliveries. Called on the producer's thread, the only writer of `undelivered`."""
        if error is not None:
            self._metrics.undelivered += 1
            self._undelivered.count(error)
            self._report_missing_topic(error)

    def _report_missing_topic(self, error: Exception) -> None:
        """Schedules `on_missing` if the error names a missing topic. Called on both threads."""
        if not isinstance(error, MissingTopicError) or error.topic in self._missing:
            return
        topic = error.topic
        self._missing.add(topic)

        def report() -> None:
            self._missing.discard(topic)
            self._on_missing(topic)

        call_soon(self._scheduler, report)

    def _schedule_retry(self) -> None:
        def retry(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            while self._waiting and self._try_send(self._waiting[0]):
                self._waiting.popleft()
            if self._waiting:
                self._schedule_retry()

        self._retry.disposable = self._scheduler.schedule_relative(_RETRY_DELAY, retry)

    def close(self, timeout: float) -> None:
        """Flushes the producer for at most `timeout` seconds; drops records that still wait for room in its queue."""
        self._retry.dispose()
        if self._waiting:
            self._metrics.dropped_records += len(self._waiting)
            _log.warning("records dropped at close: count=%d reason=producer queue full", len(self._waiting))
            self._waiting.clear()
        self._sink.close(timeout)
