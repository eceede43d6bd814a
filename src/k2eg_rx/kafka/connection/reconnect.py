"""Detects librdkafka clients that have lost their brokers permanently.

librdkafka removes a broker that is missing from the cluster's metadata and may never reconnect to it (seen with 2.16;
librdkafka issue 5301). A cluster of one broker returns such empty metadata for a moment when the broker resumes after a
standstill, and before an orderly shutdown. The owner of an affected client replaces it. See decision 0007.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException

from k2eg_rx.concurrency import await_at_exit
from k2eg_rx.kafka.connection.errors import kafka_error
from k2eg_rx.kafka.connection.health import Health
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

_HEALTHY_INTERVAL = 5.0  # seconds between checks of a connected client: each requests one topic's metadata
_INTERVAL = 1.0  # seconds between checks otherwise; `OffsetResolver` probes the cluster as often
# Failed checks in a row, with an answer to another client between them, until a client counts as disconnected. An
# intact client has reconnected by the third: reconnect.backoff.max.ms is two seconds.
_CHECKS = 4
# The same of a client that has not been seen with a broker yet: it is rarely affected, and connects late on a busy
# machine. Replacing it would make it start again, and a member of a group wait for the session of the one before.
_CHECKS_AT_START = 20
# Seconds by which a check is late if this process was not scheduled: then neither were librdkafka's threads, which had
# no time to connect. Such a check counts in part only.
_LATE = 1.5
_COUNT_OF_LATE = 1 / 4


def has_broker(client: Any, topic: str) -> bool:
    """Whether a client has a broker to send requests to. Does not wait for an answer."""
    try:
        client.list_topics(topic, timeout=0)
    except KafkaException as failure:
        return kafka_error(failure).code() != KafkaError._TRANSPORT
    return True


_LEAVING_POLLS = (0.0, 0.01, 0.0)  # seconds: a rebalance that is pending, the one that follows it, and a rest


class ConnectionWatchdog:
    """Checks one client's connection to the cluster.

    Thread safety: used by the thread that owns the client.

    Args:
        health: The connection state shared by all clients of the transport.
        clock: Returns the time in seconds.
    """

    def __init__(self, health: Health, clock: Callable[[], float] = time.monotonic) -> None:
        self._health = health
        self._clock = clock
        self._next = clock() + _HEALTHY_INTERVAL
        self._disruptions = health.disruptions
        self._last_check = 0.0
        self._failed_checks = 0.0
        self._was_connected = False

    def is_due(self) -> bool:
        """Whether the next check is due."""
        return self._clock() >= self._next or self._disruptions != self._health.disruptions

    def is_disconnected(self, client: Any, topic: str) -> bool:
        """Whether the client has to be replaced. Cheap to call often: it checks only when a check is due.

        Args:
            client: The librdkafka client.
            topic: A topic whose metadata the client may request.
        """
        if not self.is_due():
            return False
        now = self._clock()
        count = 1 if now < self._next + _LATE else _COUNT_OF_LATE
        self._disruptions = self._health.disruptions
        if has_broker(client, topic):
            self._next, self._failed_checks, self._was_connected = now + _HEALTHY_INTERVAL, 0, True
            return False
        self._next = now + _INTERVAL
        is_first = not self._failed_checks or self._health.last_answer <= self._last_check
        self._failed_checks = 1 if is_first else self._failed_checks + count
        self._last_check = now
        if self._failed_checks >= (_CHECKS if self._was_connected else _CHECKS_AT_START):
            self._next, self._failed_checks, self._was_connected = now + _HEALTHY_INTERVAL, 0, False
            return True
        self._health.suspect()
        return False


def leave_group(consumer: Consumer) -> None:
    """Ends a consumer's membership in its group, before it is closed. Its callbacks may run.

    A rebalance that is pending at `close` calls `assign`, which waits for librdkafka's main thread with Python's global
    lock held. If that thread has left the group already, neither returns, and the whole process stands still
    (librdkafka issue 4884). So the subscription ends first, and what is pending runs while the group can answer.
    """
    with contextlib.suppress(KafkaException, RuntimeError):
        consumer.unsubscribe()
        for timeout in _LEAVING_POLLS:
            consumer.poll(timeout)


def close_in_background(consumer: Consumer, wait: Callable[[], None] = lambda: None) -> None:
    """Closes a consumer on its own thread, as that may take a minute without a broker; the process's exit waits.

    Args:
        consumer: The consumer.
        wait: Returns when no other thread uses the consumer any more.
    """

    def close() -> None:
        wait()
        leave_group(consumer)
        with contextlib.suppress(KafkaException, RuntimeError):
            consumer.close()

    thread = threading.Thread(target=close, name="k2eg-abandoned", daemon=True)
    thread.start()
    await_at_exit(thread)
