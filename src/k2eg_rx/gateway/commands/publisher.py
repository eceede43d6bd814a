"""The one way from the gateway to Kafka.

In: `OutgoingRecord` records, on the gateway's thread, in the order in which they are to arrive. Out: records to a
`RecordSink`. The queue belongs to the gateway's thread.

Kafka's own queue is bounded. When it has no room, records wait here, in order, also bounded; when that is full too, the
oldest ones are dropped, counted, and in the log.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from reactivex import abc
from reactivex.disposable import SerialDisposable

from k2eg_rx.errors import TransportError
from k2eg_rx.gateway.commands.messages import OutgoingRecord
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.gateway.runtime.event_loop import call_soon
from k2eg_rx.gateway.runtime.metrics import RateLimitedWarning
from k2eg_rx.transport import MissingTopicError, RecordSink

_log = logging.getLogger(__name__)

_RETRY = 0.05  # seconds until a full queue is tried again; a broker that is up empties it in a few of these


class Publisher:
    """Hands records to Kafka.

    Args:
        sink: Kafka.
        context: The gateway's thread, options and numbers.
        on_missing: Called on the gateway's thread with a topic that Kafka does not know; again only after it returned.
    """

    def __init__(
        self, sink: RecordSink, context: GatewayContext, on_missing: Callable[[str], None] = lambda _: None
    ) -> None:
        self._sink = sink
        self._on_missing = on_missing
        self._missing: set[str] = set()  # topics that are about to be told; each access is one atomic operation
        self._limit = context.options.outgoing_buffer
        self._scheduler = context.scheduler
        self._metrics = context.metrics
        self._waiting: deque[OutgoingRecord] = deque()
        self._retry = SerialDisposable()
        self._full = RateLimitedWarning(_log, "{} records found no room in Kafka's queue and were dropped")
        self._refused = RateLimitedWarning(_log, "{} records were refused by the Kafka client")
        self._undelivered = RateLimitedWarning(_log, "{} records were not taken by Kafka")

    def send(self, outgoing: OutgoingRecord) -> None:
        """Sends a record, now or when there is room. Never raises."""
        if self._waiting or not self._sent(outgoing):
            self._waiting.append(outgoing)
            if len(self._waiting) == 1:
                self._try_later()
            elif len(self._waiting) > self._limit:
                self._waiting.popleft()
                self._metrics.dropped_records += 1
                self._full.count()

    def _sent(self, outgoing: OutgoingRecord) -> bool:
        """Whether the record is off this queue: handed over, or never to be taken."""
        topic, key, value, serialization = outgoing
        try:
            self._sink.send(topic, value, key=key, headers=serialization.headers, on_delivery=self._delivered)
        except Exception as error:
            if isinstance(error, TransportError) and isinstance(error.__cause__, BufferError):
                return False  # Kafka's queue is full, which librdkafka calls a BufferError
            self._metrics.dropped_records += 1
            self._refused.count(f"to {topic}: {error!r}")
            self._look_for_missing(error)
        else:
            self._metrics.published += 1
        return True

    def _delivered(self, error: TransportError | None) -> None:
        """Comes on the sink's thread, which owns `undelivered`."""
        if error is not None:
            self._metrics.undelivered += 1
            self._undelivered.count(error)
            self._look_for_missing(error)

    def _look_for_missing(self, error: Exception) -> None:
        """On the gateway's thread, or on the sink's."""
        if not isinstance(error, MissingTopicError) or error.topic in self._missing:
            return
        topic = error.topic
        self._missing.add(topic)

        def tell() -> None:
            self._missing.discard(topic)
            self._on_missing(topic)

        call_soon(self._scheduler, tell)

    def _try_later(self) -> None:
        def again(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            while self._waiting and self._sent(self._waiting[0]):
                self._waiting.popleft()
            if self._waiting:
                self._try_later()

        self._retry.disposable = self._scheduler.schedule_relative(_RETRY, again)

    def close(self, timeout: float) -> None:
        """Sends what Kafka's queue has, for at most `timeout` seconds; what waits for room in it is dropped."""
        self._retry.dispose()
        if self._waiting:
            self._metrics.dropped_records += len(self._waiting)
            _log.warning("%d records found no room in Kafka's queue until the end", len(self._waiting))
            self._waiting.clear()
        self._sink.close(timeout)
