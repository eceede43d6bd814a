"""Group presence: a consumer group member that reads nothing.

Gateways count the members of consumer groups to see whether a topic is in use; consumers with assigned partitions are
not counted.

Thread safety: the thread ``k2eg-presence`` owns the consumer.
"""

from __future__ import annotations

import contextlib
import threading

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from k2eg_rx.concurrency import join
from k2eg_rx.kafka.connection.configuration import Properties
from k2eg_rx.kafka.connection.errors import ErrorTranslator, is_gone
from k2eg_rx.kafka.connection.health import Health, Permission
from k2eg_rx.kafka.connection.librdkafka_log import librdkafka_log
from k2eg_rx.kafka.connection.reconnect import ConnectionWatchdog, close_in_background, leave_group
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

# Seconds. Leaving takes milliseconds, except while the member is joining: then librdkafka waits for the group. `close`
# does not: the thread continues to leave, and the broker drops the member when its session expires.
_LEAVE_TIMEOUT = 1.0
_FAILED = "no group presence, gateways may stop this client's monitors"
_POLL = 1.0  # seconds; librdkafka keeps the membership for five minutes without polls


class KafkaPresence:
    """Joins a consumer group and keeps the membership until it is closed.

    Args:
        properties: The consumer's properties.
        topic: The topic to subscribe to; it may not exist yet.
        health: Receives errors and a missing permission.
        translator: Words errors.
    """

    def __init__(self, properties: Properties, topic: str, health: Health, translator: ErrorTranslator) -> None:
        self._properties: Properties = {**properties, "error_cb": health.on_error}
        self._topic = topic
        self._health = health
        self._translator = translator
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="k2eg-presence", daemon=True)
        self._thread.start()

    def close(self, timeout: float) -> None:
        """Leaves the group; see `Presence.close`."""
        self._closing.set()
        join(self._thread, min(timeout, _LEAVE_TIMEOUT))

    def _run(self) -> None:
        try:
            consumer = self._join()
        except KafkaException as failure:
            _log.error("%s", self._translator.error(failure, _FAILED))
            return
        logged: set[int] = set()
        watchdog = ConnectionWatchdog(self._health)
        while not self._closing.wait(_POLL):
            self._poll(consumer, logged)
            if watchdog.is_disconnected(consumer, self._topic):
                close_in_background(consumer)
                consumer = self._join()
        leave_group(consumer)
        with contextlib.suppress(KafkaException):
            consumer.close()

    def _join(self) -> Consumer:
        consumer = Consumer(self._properties, logger=librdkafka_log)
        consumer.subscribe([self._topic], on_assign=_read_nothing)
        return consumer

    def _poll(self, consumer: Consumer, logged: set[int]) -> None:
        try:
            message = consumer.poll(0)
        except KafkaException as failure:
            _log.debug("presence: %s", failure)
            return
        error = message.error() if message is not None else None
        if error is not None and not is_gone(error) and error.code() not in logged:
            logged.add(error.code())
            group: str = self._properties["group.id"]
            text = self._translator.error(error, _FAILED, self._topic, group)
            _log.warning("%s", text)
            if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                self._health.forbid(Permission(group, is_group=True), str(text))


def _read_nothing(consumer: Consumer, _partitions: list[TopicPartition]) -> None:
    consumer.assign([])
