"""When the sink's thread polls its producer, and when it rests; with a producer that has a script."""

from collections import deque
from typing import Any

import pytest

from k2eg_rx.kafka import producer as module
from k2eg_rx.kafka.producer import KafkaSink


class ScriptedProducer:
    """Has so many records under way at each look, and so many reports at each poll."""

    def __init__(self, under_way: list[int], reports: list[int]) -> None:
        self._under_way = deque(under_way)
        self._reports = deque(reports)
        self.timeouts: list[float] = []

    def __len__(self) -> int:
        return self._under_way.popleft()

    def poll(self, timeout: float) -> int:
        self.timeouts.append(timeout)
        return self._reports.popleft()


@pytest.fixture
def sink() -> KafkaSink:
    """Without its thread, which the test stands for."""
    sink: Any = object.__new__(KafkaSink)
    sink._deadline, sink._failed, sink._topic = None, deque(), ""
    return sink


def listen(sink: Any, producer: ScriptedProducer) -> list[float]:
    sink._poll_reports(producer)
    return producer.timeouts


def test_with_nothing_under_way_it_rests_at_once(sink: KafkaSink) -> None:
    assert listen(sink, ScriptedProducer([0], [0])) == [0]


def test_it_waits_for_what_is_under_way_however_long_that_takes(sink: KafkaSink) -> None:
    poll, linger = module._POLL, module._LINGER
    assert listen(sink, ScriptedProducer([1, 1, 1, 0, 0], [0, 0, 0, 1, 0])) == [0, poll, poll, poll, linger]


def test_it_lingers_as_long_as_reports_come(sink: KafkaSink) -> None:
    linger = module._LINGER
    assert listen(sink, ScriptedProducer([0, 0, 0], [1, 1, 0])) == [0, linger, linger]
