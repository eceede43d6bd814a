"""Notices a librdkafka client that has lost its brokers for good, while the cluster answers to others.

In: a client, looked at by the thread that owns it. Out: whether it has to be replaced. librdkafka forgets a broker that
is not in the cluster's own list, and may then fail to look for it again, for ever (seen with 2.16; its issue 5301). A
cluster of one broker gives such an empty list for a moment whenever that broker comes back after a standstill, and
before it ends in good order. Which clients are struck is chance, and more of them are on a busy machine.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException

from k2eg_rx.kafka.connection.errors import kafka_error
from k2eg_rx.kafka.connection.health import Health

_log = logging.getLogger(__name__)

_HEALTHY_INTERVAL = 5.0  # seconds between looks while all is well: each is a request of one topic's metadata
_INTERVAL = 1.0  # seconds between looks otherwise; `OffsetResolver` asks the cluster as often
# Looks in a row without a broker, with an answer to somebody else between them. A client that is well has connected
# again by the third: reconnect.backoff.max.ms is two seconds.
_CHECKS = 4


def has_broker(client: Any, topic: str) -> bool:
    """Whether a client knows a broker it could ask; does not wait for an answer."""
    try:
        client.list_topics(topic, timeout=0)
    except KafkaException as failure:
        return kafka_error(failure).code() != KafkaError._TRANSPORT
    return True


class ConnectionWatchdog:
    """One client's connection to the cluster. Belongs to the thread that owns the client.

    Args:
        health: Knows whether the cluster answers to anybody.
        clock: Returns seconds.
    """

    def __init__(self, health: Health, clock: Callable[[], float] = time.monotonic) -> None:
        self._health = health
        self._clock = clock
        self._next = clock() + _HEALTHY_INTERVAL
        self._disruptions = health.disruptions
        self._last_check = 0.0
        self._failed_checks = 0

    def is_due(self) -> bool:
        """Whether it is time for another look."""
        return self._clock() >= self._next or self._disruptions != self._health.disruptions

    def is_disconnected(self, client: Any, topic: str) -> bool:
        """Whether the client will not come back by itself. To be asked often; it looks when that is due.

        Args:
            client: The client.
            topic: One that it may ask for.
        """
        if not self.is_due():
            return False
        now = self._clock()
        self._disruptions = self._health.disruptions
        if has_broker(client, topic):
            self._next, self._failed_checks = now + _HEALTHY_INTERVAL, 0
            return False
        self._next = now + _INTERVAL
        self._failed_checks = (
            self._failed_checks + 1 if self._failed_checks and self._health.last_answer > self._last_check else 1
        )
        self._last_check = now
        if self._failed_checks >= _CHECKS:
            self._next, self._failed_checks = now + _HEALTHY_INTERVAL, 0
            return True
        self._health.suspect()
        return False


def close_in_background(consumer: Consumer) -> None:
    """Closes a consumer on a thread of its own: one that has lost its brokers may take a minute for it."""

    def close() -> None:
        with contextlib.suppress(KafkaException, RuntimeError):
            consumer.close()

    threading.Thread(target=close, name="k2eg-abandoned", daemon=True).start()
