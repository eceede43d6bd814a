"""Which records were certainly written a moment ago, by librdkafka's reports."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from k2eg_rx.kafka.consumer.arrivals import Arrivals

PARTITION = ("commands", 0)


class Consumer:
    """Polls, and reports as librdkafka does."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.arrivals = Arrivals(lambda: self.now, lambda: self.now)
        self.broker: dict[str, Any] = {"nodeid": 1, "state": "UP", "rxidle": 90_000}
        self.partition: dict[str, Any] = {
            "partition": 0, "broker": 1, "fetch_state": "active", "hi_offset": 7, "next_offset": 7,
        }  # fmt: skip

    def poll(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            self.arrivals.on_poll()

    def report(self, *, delay: float = 0.0) -> None:
        coordinator = {"nodeid": -1, "state": "UP", "rxidle": 0}
        topics = {"commands": {"partitions": {"0": self.partition}}}
        report = {"ts": (self.now - delay) * 1e6, "brokers": {"b": self.broker, "c": coordinator}, "topics": topics}
        self.arrivals.on_report(json.dumps(report))

    def report_twice(self, **delay: float) -> None:
        self.report(**delay)
        self.poll(1.0)
        self.report(**delay)

    def is_live(self, offset: int = 7) -> bool:
        return self.arrivals.is_live(PARTITION, offset)


@pytest.fixture
def consumer() -> Consumer:
    return Consumer()


def test_records_after_a_reported_end_are_live(consumer: Consumer) -> None:
    consumer.report()
    assert not consumer.is_live(), "the fetch may have been answered by another broker or long ago"
    consumer.poll(1.0)
    consumer.report()
    assert (consumer.is_live(6), consumer.is_live(7), consumer.is_live(8)) == (False, True, True)
    assert not consumer.arrivals.is_live(("commands", 1), 7)


def test_records_just_before_the_newest_report_are_live_too(consumer: Consumer) -> None:
    consumer.report_twice()
    consumer.poll(1.0)
    consumer.partition |= {"hi_offset": 9, "next_offset": 9}
    consumer.report()
    assert (consumer.is_live(6), consumer.is_live(7)) == (False, True)
    consumer.poll(1.0)
    consumer.report()
    consumer.poll(1.0)
    assert (consumer.is_live(8), consumer.is_live(9)) == (False, True)


def _no_reports(consumer: Consumer) -> None:
    consumer.report_twice()
    consumer.poll(2.7)


def _frozen(consumer: Consumer) -> None:
    consumer.report_twice()
    consumer.now += 20.0
    consumer.report(delay=20.0)  # from before
    consumer.poll(0.1)
    consumer.report()


def _reports_that_waited(consumer: Consumer) -> None:
    consumer.report_twice(delay=1.5)


def _not_polled(consumer: Consumer) -> None:
    consumer.report_twice()
    consumer.now += 1.5
    consumer.arrivals.on_poll()


def _reset(consumer: Consumer) -> None:
    consumer.report_twice()
    consumer.arrivals.reset()
    consumer.report()


def _changed(**changes: Any) -> Callable[[Consumer], None]:
    def change(consumer: Consumer) -> None:
        for target in (consumer.broker, consumer.partition):
            target.update({name: value for name, value in changes.items() if name in target})
        consumer.report_twice()

    return change


def _another_broker(consumer: Consumer) -> None:
    consumer.report()
    consumer.poll(1.0)
    consumer.broker["nodeid"] = consumer.partition["broker"] = 2
    consumer.report()


def _not_understood(consumer: Consumer) -> None:
    consumer.report()
    consumer.arrivals.on_report("{}")
    consumer.report()


@pytest.mark.parametrize(
    "happens",
    [
        pytest.param(_no_reports, id="no reports"),
        pytest.param(_frozen, id="frozen"),
        pytest.param(_reports_that_waited, id="reports that waited"),
        pytest.param(_not_polled, id="not polled"),
        pytest.param(_reset, id="assigned anew"),
        pytest.param(_another_broker, id="another broker"),
        pytest.param(_not_understood, id="not understood"),
        pytest.param(_changed(state="DOWN"), id="disconnected"),
        pytest.param(_changed(rxidle=1_100_000), id="the broker does not answer"),
        pytest.param(_changed(rxidle=-1), id="the broker never answered"),
        pytest.param(_changed(next_offset=6), id="backlog"),
        pytest.param(_changed(hi_offset=-1001), id="end unknown"),
        pytest.param(_changed(fetch_state="stopped"), id="not read"),
        pytest.param(_changed(nodeid=3), id="another broker answers"),
    ],
)
def test_records_are_not_live(consumer: Consumer, happens: Callable[[Consumer], None]) -> None:
    happens(consumer)
    assert not consumer.is_live(100)


def test_a_consumer_that_was_frozen_needs_new_reports(consumer: Consumer) -> None:
    _not_polled(consumer)
    consumer.report_twice()
    assert consumer.is_live()
