"""Record sink over a librdkafka producer: a queue of its own, expiry of its own, and a report for each record.

librdkafka gets a record only while records are being confirmed, and keeps it until the broker has confirmed or refused
it. All others wait here, where they can expire and are then certain not to be sent. A record that librdkafka has may
be stored although no confirmation came, so it is never sent by another producer: its report is an `UnconfirmedError`.
See decision 0016.

librdkafka gets the second record of a topic after the first one is confirmed: see decision 0042.

Thread safety: `KafkaSink.send` and `KafkaSink.close` may be called from any thread; delivery reports run on the thread
``k2eg-sink``.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from k2eg_rx.concurrency import join
from k2eg_rx.errors import TransportError
from k2eg_rx.kafka.connection.configuration import Properties
from k2eg_rx.kafka.connection.errors import ErrorTranslator, is_forbidden, kafka_error
from k2eg_rx.kafka.connection.health import Health
from k2eg_rx.kafka.connection.librdkafka_log import librdkafka_log
from k2eg_rx.kafka.connection.reconnect import ConnectionWatchdog
from k2eg_rx.kafka.in_flight import OnDelivery, PendingRecord, Sending
from k2eg_rx.kafka.waiting import WaitingRecords
from k2eg_rx.texts import get_logger
from k2eg_rx.transport import Headers

_log = get_logger(__name__)

_POLL = 0.1  # seconds; a report ends a poll at once
# Seconds without polling after reports: under load the next ones are handled together, and the thread does not compete
# with those that process replies. No caller waits for a report.
_REPORT_PAUSE = 0.005
# Seconds of polling after the last report: within it the report of the next record wakes the thread; after it, `send`
# and the report both do. Sequential requests follow each other faster than this.
_LINGER = 0.01
_IDLE_POLL = 1.0  # seconds between polls without records in flight, for errors and logs
_PURGE_TIMEOUT = 1.0  # seconds for the reports of purged records, which need no broker
# Records that librdkafka has at most: at 100,000 records a second, the confirmations of 50 ms.
_WINDOW = 5000
# Seconds without a confirmation after which further records wait here while the cluster has not answered. Kafka
# confirms in milliseconds; the shorter, the fewer records are in doubt when a producer has to be given up.
_STALL = 0.25
_SUSPECT_INTERVAL = 1.0  # seconds between probes of the cluster while records are not confirmed
_MAX_WAITING_BYTES = 64 * 1024 * 1024  # of the records that wait here; librdkafka has as many at most
_PURGED = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})


class KafkaSink:
    """Sends records; owns a producer and the thread that polls it.

    A producer that failed fatally, lost its brokers permanently, or did not get a record confirmed in time, is given
    up; the records that wait get a new one.

    Args:
        properties: The producer's properties. ``message.timeout.ms`` is this sink's, not librdkafka's, which would send
            the records behind an expired one a second time; 0 means that records do not expire.
        health: Receives errors and successful deliveries.
        translator: Words errors.

    Raises:
        TransportError: librdkafka rejects the properties.
    """

    def __init__(self, properties: Properties, health: Health, translator: ErrorTranslator) -> None:
        self._expiry = float(properties.get("delivery.timeout.ms", properties["message.timeout.ms"])) / 1000
        self._properties: Properties = {
            **{name: value for name, value in properties.items() if name != "delivery.timeout.ms"},
            "message.timeout.ms": 0,
            "error_cb": health.on_error,
            "throttle_cb": health.on_throttle,
        }
        self._capacity = int(properties["queue.buffering.max.messages"])
        self._health = health
        self._translator = translator
        self._sending: Sending | None = self._make()
        self._failed: deque[Sending] = deque()
        self._watchdog = ConnectionWatchdog(health)
        self._topic = ""  # the latest one, for the watchdog
        self._waiting = WaitingRecords()
        self._first: dict[str, PendingRecord] = {}  # in flight, by topic, while the next ones have to wait for it
        self._progress = 0.0  # time of the last report, or of the first record in flight
        self._suspected = 0.0
        self._lock = threading.Lock()
        self._work = threading.Event()
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name="k2eg-sink", daemon=True)
        self._thread.start()

    def _make(self) -> Sending:
        try:
            producer = Producer(self._properties, logger=librdkafka_log)
        except KafkaException as failure:
            raise self._translator.error(failure, "cannot start a Kafka producer") from failure
        return Sending(producer, self._not_confirmed("the connection to the broker was lost"))

    def _not_sent(self, error: KafkaError | KafkaException, topic: str) -> TransportError:
        return self._translator.error(error, f"not sent to {topic!r}", topic)

    def _out_of_turn(self, topic: str) -> TransportError:
        return self._not_confirmed("the broker confirmed a later one only, while the partition's leader changed")(topic)

    def _not_confirmed(self, cause: str) -> Callable[[str], TransportError]:
        return lambda topic: self._translator.unconfirmed(topic, self._with_reason(cause))

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        on_delivery: OnDelivery | None = None,
        timestamp_ms: int | None = None,
        still_wanted: Callable[[], bool] | None = None,
        partition: int | None = None,
    ) -> None:
        """Queues a record; see `RecordSink.send`."""
        record = PendingRecord(
            self._on_report,
            topic,
            value,
            key=key,
            headers=headers,
            on_delivery=on_delivery,
            timestamp_ms=timestamp_ms,
            still_wanted=still_wanted,
            partition=partition,
        )
        with self._lock:
            if self._deadline is not None:
                raise TransportError(f"cannot send to {topic!r}: the sink is closed")
            self._topic = topic
            if self._waiting.next is not None or not self._may_hand_over(record.at) or not record.is_wanted():
                self._enqueue(record, self._waiting.add)
            elif topic in self._first:
                self._enqueue(record, self._waiting.hold)
            else:
                try:
                    self._hand_over(record)
                except BufferError:
                    self._enqueue(record, self._waiting.add)
                except KafkaException as failure:
                    raise self._translator.error(failure, f"cannot send to {topic!r}", topic) from failure
        if not self._work.is_set():
            self._work.set()

    def _enqueue(self, record: PendingRecord, add: Callable[[PendingRecord], None]) -> None:
        """Lets a record wait here. The lock is held."""
        in_flight, waiting = 0 if self._sending is None else len(self._sending.in_flight), self._waiting
        if in_flight + waiting.count >= self._capacity or (
            waiting.count and waiting.size + record.size > _MAX_WAITING_BYTES
        ):
            full = KafkaException(KafkaError(KafkaError._QUEUE_FULL))
            error = self._translator.error(full, f"cannot send to {record.topic!r}", record.topic)
            raise error from BufferError("the sink's queue is full")
        add(record)

    def _may_hand_over(self, now: float) -> bool:
        """Whether librdkafka may get another record. The lock is held."""
        in_flight = 0 if self._sending is None else len(self._sending.in_flight)
        if in_flight == 0:
            return not self._health.is_down
        return in_flight < _WINDOW and (now - self._progress < _STALL or not self._health.suspicious)

    def _hand_over(self, record: PendingRecord) -> None:
        """Passes a record to librdkafka. The lock is held.

        Raises:
            BufferError: librdkafka's queue is full.
            KafkaException: librdkafka refuses the record.
        """
        sending = self._sending = self._sending or self._make()
        try:
            self._produce(sending, record)
        except KafkaException as failure:
            if kafka_error(failure).code() != KafkaError._FATAL:
                raise
            self._failed.append(sending)
            sending = self._sending = self._make()
            self._produce(sending, record)

    def _produce(self, sending: Sending, record: PendingRecord) -> None:
        if not sending.in_flight:
            self._progress = time.monotonic()
        if not sending.is_known(record.topic):
            self._first[record.topic] = record  # before its report, which runs on another thread
        try:
            sending.produce(record)
        except BaseException:
            self._first.pop(record.topic, None)
            raise

    def close(self, timeout: float) -> None:
        """Flushes the queue, for at most ``timeout`` seconds; see `RecordSink.close`."""
        with self._lock:
            if self._deadline is None:
                self._deadline = time.monotonic() + timeout
        self._work.set()
        join(self._thread, timeout + _PURGE_TIMEOUT)

    def _run(self) -> None:
        while self._deadline is None:
            self._work.wait(_IDLE_POLL)
            self._work.clear()
            try:
                self._give_up_failed()
                self._poll_reports()
            except Exception:  # the thread must go on: without it nothing is sent any more
                _log.exception("serving the reports of a producer failed")
        self._finish(self._deadline)

    def _poll_reports(self) -> None:
        """Serves reports, and moves waiting records on, until there are none."""
        reports = 0
        timeout = 0.0
        while (sending := self._sending) is not None or self._waiting.count:
            if sending is None:
                time.sleep(timeout)
            else:
                try:
                    reports = sending.producer.poll(timeout)
                except KafkaException as failure:
                    self._fail(sending, kafka_error(failure))
                    continue
            if self._deadline is not None or self._failed:
                return
            if sending is not None and self._topic and self._watchdog.is_disconnected(sending.producer, self._topic):
                _log.warning("producer has lost its brokers, which answer other clients; replacing it")
                self._give_up(sending)
                continue
            self._move_on()
            is_busy = self._waiting.count > 0 or (self._sending is not None and len(self._sending.producer) > 0)
            if not is_busy and not reports:
                return
            if reports:
                time.sleep(_REPORT_PAUSE)
            timeout = _POLL if is_busy else _LINGER

    def _move_on(self) -> None:
        """Reports expired records, passes on those that librdkafka may get, and asks whether the cluster is there."""
        now = time.monotonic()
        if self._waiting.count:
            self._expire_waiting(now)
            self._pass_on(now)
        sending = self._sending
        if sending is None or not sending.in_flight:
            return
        if self._expiry:
            with self._lock:  # no record is added meanwhile
                oldest = next(iter(sending.in_flight), None)
            if oldest is not None and now - oldest.at > self._expiry:
                text = f"the broker did not confirm it within {self._expiry:g} s (message.timeout.ms)"
                sending.error = self._not_confirmed(text)
                self._give_up(sending)
                return
        if now - self._progress > _STALL and now - self._suspected > _SUSPECT_INTERVAL:
            self._suspected = now
            self._health.suspect()

    def _expire_waiting(self, now: float) -> None:
        if not self._expiry:
            return
        with self._lock:
            expired = self._waiting.take_while(lambda record: now - record.at > self._expiry)
        for record in expired:
            failure = self._not_sent(KafkaError(KafkaError._MSG_TIMED_OUT), record.topic)
            self._report(record, type(failure)(self._with_reason(str(failure))))

    def _with_reason(self, text: str) -> str:
        """Returns a text with what is wrong with the connection, if that is known."""
        reason = self._health.reason
        return f"{text}; {reason}" if reason else text

    def _pass_on(self, now: float) -> None:
        """Passes waiting records to librdkafka."""
        refused: list[tuple[PendingRecord, TransportError]] = []
        wall = time.time() - now
        with self._lock:
            while self._may_hand_over(now) and (record := self._waiting.take()) is not None:
                if record.timestamp_ms is None:  # when it was sent: gateways reject puts by their age
                    record.timestamp_ms = round((wall + record.at) * 1000)
                try:
                    if not record.is_wanted():
                        given_up = TransportError(f"not sent to {record.topic!r}: given up before that")
                        refused.append((record, given_up))
                    elif record.topic in self._first:
                        self._waiting.hold(record)
                    else:
                        self._hand_over(record)
                except BufferError:
                    self._waiting.put_back(record)
                    break
                except KafkaException as failure:
                    refused.append((record, self._not_sent(failure, record.topic)))
        for record, error in refused:
            self._report(record, error)

    def _finish(self, deadline: float) -> None:
        """Sends what waits until the deadline; reports the rest."""
        while (left := deadline - time.monotonic()) > 0:
            self._move_on()
            if not self._waiting.count and (self._sending is None or len(self._sending.producer) == 0):
                break
            with suppress(KafkaException):
                time.sleep(min(left, _POLL)) if self._sending is None else self._sending.producer.poll(min(left, _POLL))
        self._give_up_failed()
        if self._sending is not None:
            self._sending.error = self._not_confirmed("closed before the broker confirmed it")
            self._give_up(self._sending)
        closed = KafkaError(KafkaError._PURGE_QUEUE)
        with self._lock:
            unsent = self._waiting.take_while(lambda _: True)
        for record in unsent:
            self._report(record, self._not_sent(closed, record.topic))

    def _give_up_failed(self) -> None:
        """Gives up producers that failed fatally, as `send` noticed."""
        while self._failed:
            sending = self._failed.popleft()
            error = KafkaError(KafkaError._FATAL)
            try:
                sending.producer.poll(0)
            except KafkaException as failure:
                error = kafka_error(failure)
            self._fail(sending, error)

    def _fail(self, sending: Sending, error: KafkaError) -> None:
        """Gives up a producer that failed fatally, as an idempotent one does if it may not write to a topic."""
        _log.warning("%s", self._translator.error(error, "producer failed, the next record gets a new one"))
        if is_forbidden(error):  # the broker has none of its records
            sending.error = partial(self._not_sent, error)
        else:
            sending.error = self._not_confirmed(self._translator.reason(error))
        self._give_up(sending)

    def _give_up(self, sending: Sending) -> None:
        """Ends a producer. Each record it has is reported; the next record gets a new producer."""
        with self._lock:
            if self._sending is sending:
                self._sending = None
        sending.give_up()

    def _on_report(self, record: PendingRecord, error: KafkaError | None, message: Message | None) -> None:
        """Reports a record that librdkafka had. Called by librdkafka."""
        sending = record.sending
        if sending is None:
            return
        record.sending = None
        sending.in_flight.pop(record, None)
        self._progress = time.monotonic()
        is_stored = message is not None and error is None and sending.is_stored(record.topic, message)
        if self._first.get(record.topic) is record:
            with self._lock:
                del self._first[record.topic]
                self._waiting.release(record.topic)
        if error is None:
            self._health.on_answer()
            self._report(record, None if is_stored else self._out_of_turn(record.topic))
        elif error.code() in _PURGED:
            self._report(record, sending.error(record.topic))
        else:
            self._report(record, self._not_sent(error, record.topic))

    def _report(self, record: PendingRecord, error: TransportError | None) -> None:
        if record.on_delivery is None:
            if error is not None:
                _log.warning("%s", error)
            return
        try:
            record.on_delivery(error)
        except Exception:
            _log.exception("delivery callback raised: topic=%s", record.topic)
