"""A live member of a consumer group that reads nothing.

In: nothing. Out: a gateway that counts the members of consumer groups sees that somebody listens, which readers with
assigned partitions do not show. The thread ``k2eg-presence`` owns the consumer.
"""

from __future__ import annotations

import contextlib
import logging
import threading

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from k2eg_rx.kafka.connection.configuration import Properties
from k2eg_rx.kafka.connection.errors import ErrorTranslator, is_gone
from k2eg_rx.kafka.connection.health import Health, Permission
from k2eg_rx.kafka.connection.librdkafka_log import librdkafka_log
from k2eg_rx.kafka.connection.reconnect import ConnectionWatchdog, close_in_background

_log = logging.getLogger(__name__)

# Leaving takes milliseconds, but for a member that is in the middle of joining: librdkafka waits for the group then.
# Nobody else has to: the thread goes on leaving, and the broker forgets a member that is silent anyhow.
_LEAVE_TIMEOUT = 1.0
_POLL = 1.0  # seconds; librdkafka keeps the membership alive by itself, for five minutes between polls


class KafkaPresence:
    """Joins a group.

    Args:
        properties: The consumer's.
        topic: What it subscribes to; may be missing yet.
        health: Gets to know of errors.
        failures: Puts errors into words.
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
        if self._thread is not threading.current_thread():
            self._thread.join(min(timeout, _LEAVE_TIMEOUT))

    def _run(self) -> None:
        try:
            consumer = self._join()
        except KafkaException as failure:
            _log.error("%s", self._translator.error(failure, "cannot show gateways that this client listens"))
            return
        logged: set[int] = set()
        watchdog = ConnectionWatchdog(self._health)
        while not self._closing.wait(_POLL):
            self._poll(consumer, logged)
            if watchdog.is_disconnected(consumer, self._topic):
                close_in_background(consumer)
                consumer = self._join()
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
            text = self._translator.error(error, "cannot show gateways that this client listens", self._topic, group)
            _log.warning("%s", text)
            if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                self._health.forbid(Permission(group, is_group=True), str(text))


def _read_nothing(consumer: Consumer, _partitions: list[TopicPartition]) -> None:
    consumer.assign([])
