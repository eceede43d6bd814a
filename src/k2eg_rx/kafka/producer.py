"""Sends records, and tells of each what became of it.

In: records, from any thread. Out: Kafka; reports, on the sink's thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from k2eg_rx.errors import TransportError
from k2eg_rx.kafka.configuration import Properties
from k2eg_rx.kafka.failures import Failures, error_of
from k2eg_rx.kafka.health import Health
from k2eg_rx.kafka.librdkafka_log import librdkafka_log
from k2eg_rx.transport import Headers

_log = logging.getLogger(__name__)

OnDelivery = Callable[[TransportError | None], None]

_POLL = 0.1  # seconds that a poll waits for a report; one that comes ends it at once
_IDLE = 1.0  # seconds between polls while nothing is under way, for errors and logs
_PURGE = 1.0  # seconds for the reports of what is given up; it takes no broker


class KafkaSink:
    """A producer and the thread that listens to it.

    Args:
        properties: The producer's.
        health: Gets to know of errors, and of deliveries.
        failures: Puts errors into words.

    Raises:
        TransportError: The properties are of no use to librdkafka.
    """

    def __init__(self, properties: Properties, health: Health, failures: Failures) -> None:
        self._properties: Properties = {**properties, "error_cb": health.trouble}
        self._health = health
        self._failures = failures
        self._producer: Producer | None = self._make()
        self._ended: deque[Producer] = deque()
        self._fatal: KafkaError | None = None
        self._lock = threading.Lock()
        self._work = threading.Event()
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name="k2eg-sink", daemon=True)
        self._thread.start()

    def _make(self) -> Producer:
        try:
            return Producer(self._properties, logger=librdkafka_log)
        except KafkaException as failure:
            raise self._failures.error(failure, "cannot start a Kafka producer") from failure

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

        def report(error: KafkaError | None, _message: Message) -> None:
            self._report(topic, error, on_delivery)

        with self._lock:
            if self._deadline is not None:
                raise TransportError(f"cannot send to {topic!r}: the sink is closed")
            try:
                self._produce(topic, value, key, on_delivery=report, headers=list(headers) or None)
            except BufferError as failure:
                full = KafkaException(KafkaError(KafkaError._QUEUE_FULL))
                raise self._failures.error(full, f"cannot send to {topic!r}", topic) from failure
            except KafkaException as failure:
                raise self._failures.error(failure, f"cannot send to {topic!r}", topic) from failure
        if not self._work.is_set():
            self._work.set()

    def _produce(self, *record: Any, **more: Any) -> None:
        self._producer = self._producer or self._make()
        try:
            self._producer.produce(*record, **more)
        except KafkaException as failure:
            if error_of(failure).code() != KafkaError._FATAL:
                raise
            self._ended.append(self._producer)
            self._producer = self._make()
            self._producer.produce(*record, **more)

    def close(self, timeout: float) -> None:
        """Sends what is queued, for at most `timeout` seconds; see `RecordSink.close`."""
        with self._lock:
            if self._deadline is None:
                self._deadline = time.monotonic() + timeout
        self._work.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout + _PURGE)

    def _run(self) -> None:
        while self._deadline is None:
            self._work.wait(_IDLE)
            self._work.clear()
            self._bury()
            if (producer := self._producer) is not None:
                self._listen(producer)
        self._bury()
        if self._producer is not None:
            self._end(self._producer, max(self._deadline - time.monotonic(), 0.0))
            self._producer = None

    def _listen(self, producer: Producer) -> None:
        try:
            producer.poll(0)
            while self._deadline is None and not self._ended and len(producer) > 0:
                producer.poll(_POLL)
        except KafkaException as failure:
            self._give_up(producer, error_of(failure))

    def _bury(self) -> None:
        """Reports what those had in hand that have ended, as `send` noticed."""
        while self._ended:
            producer = self._ended.popleft()
            error = KafkaError(KafkaError._FATAL)
            try:
                producer.poll(0)
            except KafkaException as failure:
                error = error_of(failure)
            self._give_up(producer, error)

    def _give_up(self, producer: Producer, error: KafkaError) -> None:
        """Drops a producer that will never send again; the next record gets a new one.

        An idempotent one ends like that if it may not write anywhere.
        """
        with self._lock:
            if self._producer is producer:
                self._producer = None
        _log.warning("%s", self._failures.error(error, "the producer has ended"))
        self._fatal = error
        self._end(producer, 0.0)
        self._fatal = None

    def _end(self, producer: Producer, timeout: float) -> None:
        with suppress(KafkaException):
            producer.flush(timeout)
        if len(producer) > 0:
            producer.purge()
            with suppress(KafkaException):
                producer.flush(_PURGE)

    def _report(self, topic: str, error: KafkaError | None, on_delivery: OnDelivery | None) -> None:
        if error is not None:
            error = self._fatal or error  # it was given up for that
        if error is None:
            self._health.answer()
        if on_delivery is None:
            if error is not None:
                _log.warning("%s", self._failures.error(error, f"not sent to {topic!r}", topic))
            return
        try:
            on_delivery(None if error is None else self._failures.error(error, f"not sent to {topic!r}", topic))
        except Exception:
            _log.exception("a report of a delivery to %s raised", topic)
