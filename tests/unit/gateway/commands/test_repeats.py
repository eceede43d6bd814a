"""Values that are published once more: for clients that subscribe late, and merged where many ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from reactivex.testing import TestScheduler

from k2eg_rx.gateway.commands.repeats import Repeats, RepeatState

Listener = Callable[[Mapping[str, int] | None], None]


class Monitor:
    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.repeats = RepeatState()


class Bench:
    """Repeats with consumers that the test sets; notes the times of what is published and looked up."""

    def __init__(self, delay: float = 1.0) -> None:
        self.scheduler = TestScheduler()
        self.consumers: dict[str, int] | None = {}
        self.published: list[tuple[str, float]] = []
        self.looks: list[float] = []
        self.has_value = True
        self.repeats = Repeats[Monitor](self.scheduler, self._publish, self._look_up, delay)
        self.monitor = Monitor("a")

    def _now(self) -> float:
        return round(self.scheduler.now.timestamp(), 3)

    def _publish(self, monitor: Monitor) -> bool:
        self.published.append((monitor.topic, self._now()))
        return self.has_value

    def _look_up(self, on_result: Listener) -> None:
        self.looks.append(self._now())
        on_result(self.consumers)

    def advance(self, seconds: float) -> None:
        self.scheduler.advance_by(seconds)

    def times(self) -> list[float]:
        return [time for _, time in self.published]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_request_is_answered_at_once(bench: Bench) -> None:
    bench.repeats.request(bench.monitor)
    bench.advance(10.0)
    bench.repeats.request(bench.monitor)
    assert bench.times() == [0.0, 10.0]


def test_requests_of_half_a_second_are_merged(bench: Bench) -> None:
    for _ in range(8):
        bench.repeats.request(bench.monitor)
        bench.advance(0.05)
    bench.advance(10.0)
    assert bench.times() == [0.0, 0.5]


def test_a_request_that_found_no_value_merges_no_other(bench: Bench) -> None:
    bench.has_value = False
    bench.repeats.request(bench.monitor)
    bench.has_value = True
    bench.repeats.request(bench.monitor)
    assert bench.times() == [0.0, 0.0]


def test_a_newer_value_answers_a_request_that_waits(bench: Bench) -> None:
    bench.repeats.request(bench.monitor)
    bench.repeats.request(bench.monitor)
    bench.monitor.repeats.owed = False  # as the monitor does with each event
    bench.advance(10.0)
    assert bench.times() == [0.0]


def test_a_subscribing_client_gets_the_value_after_the_delay(bench: Bench) -> None:
    bench.repeats.subscribing(bench.monitor)
    bench.monitor.repeats.owed = False  # the client may not read yet: an event does not replace it
    bench.advance(60.0)
    assert bench.times() == [1.0]


def test_subscribing_clients_share_repeats_and_each_has_one_after_its_delay(bench: Bench) -> None:
    for _ in range(8):
        bench.repeats.subscribing(bench.monitor)
        bench.advance(0.1)
    bench.advance(10.0)
    assert bench.times() == [1.0, 1.7]


def test_without_a_delay_nothing_is_repeated() -> None:
    bench = Bench(delay=0.0)
    bench.consumers = {"a": 1}
    bench.repeats.subscribing(bench.monitor)
    bench.advance(60.0)
    bench.repeats.consumers({"a": 2})
    bench.advance(60.0)
    assert (bench.published, bench.looks) == ([], [])


def test_a_new_consumer_gets_the_value_after_it_was_seen_and_once_more_after_the_next_look(bench: Bench) -> None:
    bench.repeats.subscribing(bench.monitor)
    bench.advance(5.0)
    bench.consumers = {"a": 1}
    bench.advance(60.0)
    assert bench.looks == [1.0, 2.0, 4.0, 7.0, 12.0, 20.0, 32.0]
    assert bench.times() == [1.0, 7.5, 12.5]
    bench.repeats.consumers({"a": 2, "b": 1})  # of the look-up once a minute
    bench.advance(60.0)
    bench.repeats.consumers(None)  # Kafka did not answer
    bench.advance(60.0)
    bench.repeats.consumers({"a": 1})
    bench.advance(60.0)
    bench.repeats.consumers({})
    bench.advance(60.0)
    assert bench.times() == [1.0, 7.5, 12.5, 65.5, 185.5]


def test_many_activations_look_up_consumers_once_a_second(bench: Bench) -> None:
    for _ in range(50):
        bench.repeats.subscribing(Monitor("b"))
        bench.advance(0.1)
    assert bench.looks[0] == 1.0
    assert 3 <= len(bench.looks) <= 5


def test_nothing_is_published_for_a_monitor_that_has_ended(bench: Bench) -> None:
    bench.repeats.subscribing(bench.monitor)
    bench.repeats.request(bench.monitor)
    bench.repeats.request(bench.monitor)
    bench.repeats.forget(bench.monitor)
    bench.advance(60.0)
    assert (bench.times(), bench.looks) == ([0.0], [])


def test_repeats_of_a_monitor_follow_a_clients_command(gateway: Any) -> None:
    """Only for a client that does not say that it reads already; marked, so that others skip it."""
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a", uri_keys=True)
    gateway.update("a", 1)
    gateway.advance(60.0)
    assert len([each for each in gateway.values if each.topic == "a"]) == 1
    gateway.command("multi-monitor", pv_name_list=["pva://a"])
    gateway.advance(60.0)
    gateway.handler.expire({"a": 1})
    gateway.advance(60.0)
    repeated = [dict(each.headers).get("k2eg-repeated") for each in gateway.values if each.topic == "a"]
    assert repeated == [None, "1", "1", "1"], "at once, after the delay, and for the new consumer"
    assert gateway.bodies("a") == [{"a": {"value": 1}}] * 4
