"""Dispatch threads yield while a request is in flight, and only then."""

import pytest

from k2eg_rx.concurrency import yielding as module
from k2eg_rx.concurrency.yielding import RequestPriority


class Time:
    """Replaces the module `time`: the test sets the time; sleeps are recorded."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(module, "time", time)
    return time


def test_a_dispatch_thread_does_not_yield_without_requests(time: Time) -> None:
    RequestPriority().yield_to_requests()
    assert time.slept == []


def test_a_dispatch_thread_yields_to_a_recent_request_only(time: Time) -> None:
    priority = RequestPriority()
    priority.note()
    priority.yield_to_requests()
    assert len(time.slept) == 1
    time.now += 1.0
    priority.yield_to_requests()
    assert len(time.slept) == 1
