"""Record sink over a librdkafka producer, with a report for each record.

Thread safety: `KafkaSink.send` and `KafkaSink.close` may be called from any thread; delivery reports run on the thread
``k2eg-sink``.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from k2eg_rx.errors import TransportError
from k2eg_rx.kafka.connection.configuration import Properties
from k2eg_rx.kafka.connection.errors import ErrorTranslator, kafka_error
from k2eg_rx.kafka.connection.health import Health
from k2eg_rx.kafka.connection.librdkafka_log import librdkafka_log
from k2eg_rx.kafka.connection.reconnect import ConnectionWatchdog
from k2eg_rx.texts import get_logger
from k2eg_rx.transport import Headers

_log = get_logger(__name__)

OnDelivery = Callable[[TransportError | None], None]
_Report = Callable[[KafkaError | None, Message], None]


class _PendingRecord(NamedTuple):
    """A delivery report of a producer that is being replaced, with what its successor needs to resend the record."""

    report: _Report
    error: KafkaError | None
    message: Message
    headers: Headers
    sent_at: float


_POLL = 0.1  # seconds; a report ends a poll at once
# Seconds without polling after reports: under load the next ones are handled together, and the thread does not compete
# with those that process replies. No caller waits for a report.
_REPORT_PAUSE = 0.005
# Seconds of polling after the last report: within it the report of the next record wakes the thread; after it, `send`
# and the report both do. Sequential requests follow each other faster than this.
_LINGER = 0.01
_IDLE_POLL = 1.0  # seconds between polls without records in flight, for errors and logs
_PURGE_TIMEOUT = 1.0  # seconds for the reports of purged records, which need no broker


class KafkaSink:
    """Sends records; owns a producer and the thread that polls it.

    A producer that failed fatally, or lost its brokers permanently, is replaced.

    Args:
        properties: The producer's properties.
        health: Receives errors and successful deliveries.
        translator: Words errors.

    Raises:
        TransportError: librdkafka rejects the properties.
    """

    def __init__(self, properties: Properties, health: Health, translator: ErrorTranslator) -> None:
        self._properties: Properties = {**properties, "error_cb": health.on_error}
        self._health = health
        self._translator = translator
        self._producer: Producer | None = self._make()
        self._failed: deque[Producer] = deque()
        self._fatal: KafkaError | None = None
        self._watchdog = ConnectionWatchdog(health)
        self._topic = ""  # the latest one, for the watchdog
        # Reports of a producer that is being replaced, collected until all have come; otherwise None.
        self._pending: list[_PendingRecord] | None = None
        self._lock = threading.Lock()
        self._work = threading.Event()
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name="k2eg-sink", daemon=True)
        self._thread.start()

    def _make(self) -> Producer:
        try:
            return Producer(self._properties, logger=librdkafka_log)
        except KafkaException as failure:
            raise self._translator.error(failure, "cannot start a Kafka producer") from failure

    def send(
        self,
        topic: str,
        value: bytes,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        on_delivery: OnDelivery | None = None,
    ) -> None:
        """Queues a record; see `RecordSink.send`."""
        sent_at = time.time()

        def report(error: KafkaError | None, message: Message) -> None:
            if self._pending is None:
                self._report(topic, error, on_delivery)
            else:
                self._pending.append(_PendingRecord(report, error, message, headers, sent_at))

        with self._lock:
            if self._deadline is not None:
                raise TransportError(f"cannot send to {topic!r}: the sink is closed")
            self._topic = topic
            try:
                self._produce(topic, value, key, on_delivery=report, headers=list(headers) or None)
            except BufferError as failure:
                full = KafkaException(KafkaError(KafkaError._QUEUE_FULL))
                raise self._translator.error(full, f"cannot send to {topic!r}", topic) from failure
            except KafkaException as failure:
                raise self._translator.error(failure, f"cannot send to {topic!r}", topic) from failure
        if not self._work.is_set():
            self._work.set()

    def _produce(self, *record: Any, **more: Any) -> None:
        self._producer = self._producer or self._make()
        try:
            self._producer.produce(*record, **more)
        except KafkaException as failure:
            if kafka_error(failure).code() != KafkaError._FATAL:
                raise
            self._failed.append(self._producer)
            self._producer = self._make()
            self._producer.produce(*record, **more)

    def close(self, timeout: float) -> None:
        """Flushes the queue, for at most ``timeout`` seconds; see `RecordSink.close`."""
        with self._lock:
            if self._deadline is None:
                self._deadline = time.monotonic() + timeout
        self._work.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout + _PURGE_TIMEOUT)

    def _run(self) -> None:
        while self._deadline is None:
            self._work.wait(_IDLE_POLL)
            self._work.clear()
            self._drop_failed()
            if (producer := self._producer) is not None:
                self._poll_reports(producer)
        self._drop_failed()
        if self._producer is not None:
            self._flush(self._producer, max(self._deadline - time.monotonic(), 0.0))
            self._producer = None

    def _poll_reports(self, producer: Producer) -> None:
        try:
            reports = producer.poll(0)
            while self._deadline is None and not self._failed and not self._is_disconnected(producer):
                under_way = len(producer) > 0
                if not under_way and not reports:
                    break
                if reports:
                    time.sleep(_REPORT_PAUSE)
                reports = producer.poll(_POLL if under_way else _LINGER)
        except KafkaException as failure:
            self._drop(producer, kafka_error(failure))

    def _is_disconnected(self, producer: Producer) -> bool:
        """Whether the producer had lost its brokers and was replaced."""
        is_disconnected = bool(self._topic) and self._watchdog.is_disconnected(producer, self._topic)
        if is_disconnected:
            self._replace(producer)
        return is_disconnected

    def _replace(self, producer: Producer) -> None:
        """Replaces the producer; its pending records are resent in order, before those of later `send` calls."""
        _log.warning("producer has lost its brokers, which answer other clients; replacing it")
        with self._lock:  # `send` waits, which keeps the order
            new = self._make()
            self._pending = []
            self._flush(producer, 0.0)
            pending, self._pending = self._pending, None
            errors = [self._resend(new, record) for record in pending]
            self._producer = new
        for (report, _, message, *_), error in zip(pending, errors, strict=True):
            if error is None or error.code() != KafkaError._PURGE_QUEUE:
                report(error, message)

    def _resend(self, producer: Producer, record: _PendingRecord) -> KafkaError | None:
        """Passes a record to the new producer; returns its error, or that of the old producer if it was accepted."""
        report, error, message, headers, sent_at = record
        if error is None or error.code() != KafkaError._PURGE_QUEUE:
            return error
        if time.time() - sent_at > float(self._properties["message.timeout.ms"]) / 1000:
            return KafkaError(KafkaError._MSG_TIMED_OUT)
        try:
            producer.produce(
                message.topic() or "",
                message.value(),
                message.key(),
                on_delivery=report,
                headers=list(headers) or None,
                timestamp=round(sent_at * 1000),  # gateways reject puts by their age
            )
        except KafkaException as failure:
            return kafka_error(failure)
        except BufferError:
            return KafkaError(KafkaError._QUEUE_FULL)
        return error

    def _drop_failed(self) -> None:
        """Reports the pending records of producers that failed fatally, as `send` noticed."""
        while self._failed:
            producer = self._failed.popleft()
            error = KafkaError(KafkaError._FATAL)
            try:
                producer.poll(0)
            except KafkaException as failure:
                error = kafka_error(failure)
            self._drop(producer, error)

    def _drop(self, producer: Producer, error: KafkaError) -> None:
        """Drops a producer that failed fatally; the next record gets a new one.

        An idempotent producer fails fatally if it may not write to a topic.
        """
        with self._lock:
            if self._producer is producer:
                self._producer = None
        _log.warning("%s", self._translator.error(error, "producer failed, the next record gets a new one"))
        self._fatal = error
        self._flush(producer, 0.0)
        self._fatal = None

    def _flush(self, producer: Producer, timeout: float) -> None:
        with suppress(KafkaException):
            producer.flush(timeout)
        if len(producer) > 0:
            producer.purge()
            with suppress(KafkaException):
                producer.flush(_PURGE_TIMEOUT)

    def _report(self, topic: str, error: KafkaError | None, on_delivery: OnDelivery | None) -> None:
        if error is not None:
            error = self._fatal or error  # the cause; purging reports only the effect
        if error is None:
            self._health.on_answer()
        if on_delivery is None:
            if error is not None:
                _log.warning("%s", self._translator.error(error, f"not sent to {topic!r}", topic))
            return
        try:
            on_delivery(None if error is None else self._translator.error(error, f"not sent to {topic!r}", topic))
        except Exception:
            _log.exception("delivery callback raised: topic=%s", topic)
