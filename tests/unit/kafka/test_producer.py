"""Polling of the producer by the sink's thread."""

from collections import deque
from typing import Any

import pytest

from k2eg_rx.kafka import producer as module
from k2eg_rx.kafka.producer import KafkaSink


class ScriptedProducer:
    """Returns scripted numbers of records in flight and of reports."""

    def __init__(self, in_flight: list[int], reports: list[int]) -> None:
        self._in_flight = deque(in_flight)
        self._reports = deque(reports)
        self.timeouts: list[float] = []

    def __len__(self) -> int:
        return self._in_flight.popleft()

    def poll(self, timeout: float) -> int:
        self.timeouts.append(timeout)
        return self._reports.popleft()


@pytest.fixture
def sink() -> KafkaSink:
    """A sink without its thread."""
    sink: Any = object.__new__(KafkaSink)
    sink._deadline, sink._failed, sink._topic = None, deque(), ""
    return sink


def poll_timeouts(sink: Any, producer: ScriptedProducer) -> list[float]:
    sink._poll_reports(producer)
    return producer.timeouts


def test_polling_ends_at_once_without_records_in_flight(sink: KafkaSink) -> None:
    assert poll_timeouts(sink, ScriptedProducer([0], [0])) == [0]


def test_polling_continues_while_records_are_in_flight(sink: KafkaSink) -> None:
    poll, linger = module._POLL, module._LINGER
    assert poll_timeouts(sink, ScriptedProducer([1, 1, 1, 0, 0], [0, 0, 0, 1, 0])) == [0, poll, poll, poll, linger]


def test_polling_lingers_while_reports_arrive(sink: KafkaSink) -> None:
    linger = module._LINGER
    assert poll_timeouts(sink, ScriptedProducer([0, 0, 0], [1, 1, 0])) == [0, linger, linger]
