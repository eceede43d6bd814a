"""Replacement of clients that have lost their brokers while the cluster answers others."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException

from k2eg_rx.kafka.connection.errors import ErrorTranslator
from k2eg_rx.kafka.connection.health import Health
from k2eg_rx.kafka.connection.reconnect import ConnectionWatchdog, close_in_background
from k2eg_rx.kafka.connection.status_events import StatusEvents


class Harness:
    """A watched client, a clock, and a cluster that answers other clients if `answers` is set."""

    def __init__(self) -> None:
        self.now = 0.0
        self.code = KafkaError._TIMED_OUT  # of a connected client, since the request does not wait
        self.requests = 0
        self.answers = True
        self.health = Health(StatusEvents(), ErrorTranslator("broker:9092"), clock=lambda: self.now)
        self.health.on_answer()
        self.health.on_suspicion = self._answer
        self.watchdog = ConnectionWatchdog(self.health, clock=lambda: self.now)

    def _answer(self) -> None:
        if self.answers:
            self.now += 0.01
            self.health.on_answer()

    def list_topics(self, topic: str, timeout: float) -> None:
        assert (topic, timeout) == ("t", 0)
        self.requests += 1
        raise KafkaException(KafkaError(self.code))

    def connect(self) -> None:
        """Lets the watchdog see that the client has a broker."""
        self.now += 6.0
        assert not self.watchdog.is_disconnected(self, "t")
        self.requests = 0

    def checks(self, number: int, interval: float = 1.0) -> list[bool]:
        results: list[bool] = []
        for _ in range(number):
            self.now += interval
            results.append(self.watchdog.is_disconnected(self, "t"))
        return results


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_a_connected_client_is_checked_every_five_seconds(harness):
    assert not any(harness.checks(60))
    assert harness.requests == 12


def test_a_client_without_a_broker_is_replaced_while_others_get_answers(harness):
    harness.connect()
    harness.code = KafkaError._TRANSPORT
    assert harness.checks(10).index(True) == 7, "five seconds until the first check, and three further checks"


def test_a_client_is_kept_while_the_cluster_does_not_answer(harness):
    harness.connect()
    harness.code, harness.answers = KafkaError._TRANSPORT, False
    assert not any(harness.checks(60))
    harness.answers = True
    assert harness.checks(5).index(True) == 3, "from the first answer on"


def test_a_reconnected_client_is_kept(harness):
    harness.connect()
    harness.code = KafkaError._TRANSPORT
    assert not any(harness.checks(7))
    harness.code = KafkaError._TIMED_OUT
    assert not any(harness.checks(20))
    harness.code = KafkaError._TRANSPORT
    assert harness.checks(9).index(True) >= 3


def test_an_error_triggers_a_check_at_once(harness):
    harness.checks(6)
    assert harness.requests == 1
    harness.health.on_error(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    harness.checks(1)
    assert harness.requests == 2


def test_a_client_that_has_not_had_a_broker_yet_has_more_time(harness):
    """It connects late on a busy machine; its replacement would start again."""
    harness.code = KafkaError._TRANSPORT
    results = harness.checks(60)
    assert [second for second, disconnected in enumerate(results) if disconnected] == [23, 47]


def test_time_in_which_the_process_was_not_scheduled_is_no_silence_of_a_broker(harness):
    harness.connect()
    harness.checks(5)
    harness.code = KafkaError._TRANSPORT
    assert harness.checks(20, interval=4.0).index(True) == 13, (
        "the first failed check, and twelve of which four count as one"
    )


def test_a_client_is_replaced_when_the_process_is_scheduled_again(harness):
    harness.connect()
    harness.code = KafkaError._TRANSPORT
    assert not any(harness.checks(4, interval=10.0))
    assert harness.checks(3).index(True) == 2


class Member:
    """A consumer of a group that records its calls; a rebalance waits for each of the first polls."""

    def __init__(self, pending: int) -> None:
        self.pending = pending
        self.calls: list[str] = []
        self.closed = threading.Event()

    def unsubscribe(self) -> None:
        self.calls.append("unsubscribe")

    def poll(self, timeout: float) -> None:
        if self.pending:
            self.pending -= 1
            self.calls.append("rebalance")

    def close(self) -> None:
        self.calls += ["rebalance during close"] * self.pending + ["close"]
        self.closed.set()


def test_a_member_runs_pending_rebalances_before_it_is_closed():
    """They would wait for a group that librdkafka has left, with Python's global lock held."""
    member = Member(pending=2)
    close_in_background(cast("Any", member))
    assert member.closed.wait(60.0)
    assert member.calls == ["unsubscribe", "rebalance", "rebalance", "close"]
