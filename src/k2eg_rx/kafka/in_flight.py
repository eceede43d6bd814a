"""A librdkafka producer together with the records that it has, and their reports.

Thread safety: records are added under the lock of the sink; reports and `Sending.give_up` run on the thread
``k2eg-sink``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from k2eg_rx.errors import TransportError
from k2eg_rx.transport import Headers

OnDelivery = Callable[[TransportError | None], None]

_PURGE_TIMEOUT = 1.0  # seconds for the reports of purged records, which need no broker
# Seconds after the last confirmation in a topic until the next record has to be confirmed alone again. Meanwhile the
# topic may have been deleted and made anew; and a broker forgets a producer after a day (producer.id.expiration.ms).
_REMEMBERED = 5.0


class PendingRecord:
    """A record from `KafkaSink.send` until its report, which librdkafka makes by calling it.

    Attributes:
        at: When it was sent, then when librdkafka got it, by the monotonic clock. It may take the expiry each time:
            otherwise one that waited long would end the producer with all its records as soon as it is passed on.
        timestamp_ms: Its Kafka time stamp; None: the time at which librdkafka gets it.
        sending: The producer that has it, with its other records.
    """

    __slots__ = (
        "_on_report",
        "at",
        "headers",
        "key",
        "on_delivery",
        "partition",
        "sending",
        "still_wanted",
        "timestamp_ms",
        "topic",
        "value",
    )

    def __init__(
        self,
        on_report: Callable[[PendingRecord, KafkaError | None, Message | None], None],
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None,
        headers: Headers,
        on_delivery: OnDelivery | None,
        timestamp_ms: int | None,
        still_wanted: Callable[[], bool] | None = None,
        partition: int | None = None,
    ) -> None:
        self._on_report = on_report
        self.topic = topic
        self.value = value
        self.partition = -1 if partition is None else partition  # -1: that of the key
        self.key = key
        self.headers = headers
        self.on_delivery = on_delivery
        self.timestamp_ms = timestamp_ms
        self.still_wanted = still_wanted
        self.at = time.monotonic()
        self.sending: Sending | None = None

    @property
    def size(self) -> int:
        """The bytes of the value; 0 once librdkafka has it."""
        return len(self.value or b"")

    def is_wanted(self) -> bool:
        """Whether it is to be sent. Asked right before that."""
        return self.still_wanted is None or self.still_wanted()

    def __call__(self, error: KafkaError | None, message: Message | None) -> None:
        self._on_report(self, error, message)


class Sending:
    """A producer and the records that it has.

    Attributes:
        producer: The producer.
        in_flight: Its records, the oldest first.
        error: Returns the error of a record that is not confirmed, given its topic.

    Args:
        producer: The producer.
        error: The initial `error`.
    """

    def __init__(self, producer: Producer, error: Callable[[str], TransportError]) -> None:
        self.producer = producer
        self.in_flight: dict[PendingRecord, None] = {}
        self.error = error
        self._stored: dict[str, float] = {}
        self._partitions: set[tuple[str, int | None]] = set()

    def is_known(self, topic: str) -> bool:
        """Whether the broker has stored a record of this producer in the topic lately. Any thread."""
        return time.monotonic() - self._stored.get(topic, -math.inf) < _REMEMBERED

    def is_stored(self, topic: str, message: Message) -> bool:
        """Whether a record that librdkafka reports as delivered is stored for certain.

        Without an offset the broker has confirmed only a later record of the partition. It does not take that one
        before this one if it has any record of this producer; if it has none, it takes every record.
        """
        place = (topic, message.partition())
        if message.offset() is None and place not in self._partitions:
            return False
        self._partitions.add(place)
        self._stored[topic] = time.monotonic()
        return True

    def produce(self, record: PendingRecord) -> None:
        """Passes a record to librdkafka.

        Raises:
            BufferError: librdkafka's queue is full.
            KafkaException: librdkafka refuses the record.
        """
        record.sending = self
        self.in_flight[record] = None
        try:
            self.producer.produce(
                record.topic,
                record.value,
                record.key,
                partition=record.partition,
                on_delivery=record,
                headers=list(record.headers) or None,
                timestamp=record.timestamp_ms or 0,
            )
        except BufferError:
            del self.in_flight[record]
            if self.in_flight:
                raise
            raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)) from None  # for an empty queue
        except BaseException:
            del self.in_flight[record]
            raise
        record.value = None  # librdkafka has a copy
        record.at = time.monotonic()

    def give_up(self) -> None:
        """Takes the records from librdkafka. Each one is reported, by its own outcome if that is known."""
        self._serve(0.0)
        if len(self.producer) > 0:
            self.producer.purge()
            self._serve(_PURGE_TIMEOUT)
        for record in list(self.in_flight):
            record(KafkaError(KafkaError._PURGE_INFLIGHT), None)

    def _serve(self, timeout: float) -> None:
        """Serves the reports that come within some seconds.

        Not by `flush`: that sets the exception of a fatal error and goes on calling reports, each of which then fails.
        """
        deadline = time.monotonic() + timeout
        while len(self.producer) > 0:
            left = deadline - time.monotonic()
            try:
                served = self.producer.poll(max(left, 0.0))
            except KafkaException:
                served = 1  # a fatal error, of which librdkafka tells once
            if left <= 0 and (not served or left < -_PURGE_TIMEOUT):
                return
