"""The log lines of an outage, in virtual time."""

from __future__ import annotations

import logging

import pytest

from k2eg_rx.testing import VirtualClock
from k2eg_rx.transport import ConnectionLog, ConnectionState, TransportStatus

UP = TransportStatus(ConnectionState.UP)
DOWN = TransportStatus(ConnectionState.DOWN, "the broker cannot be reached")


class Bench:
    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "test")
        self.clock = VirtualClock()
        self.losses = {"undelivered": 5, "dropped": 0}
        self.log = ConnectionLog(logging.getLogger("test"), self.clock, lambda: self.losses, lambda: "pending=3")
        self._caplog = caplog

    def lines(self) -> list[str]:
        lines = [f"{record.levelname} {record.getMessage()}" for record in self._caplog.records]
        self._caplog.clear()
        return lines


@pytest.fixture
def bench(caplog: pytest.LogCaptureFixture) -> Bench:
    return Bench(caplog)


def test_an_outage_is_logged_at_its_begin_once_a_minute_and_at_its_end(bench: Bench) -> None:
    bench.log.on_status(UP)
    assert bench.lines() == ["INFO Kafka connection up: reason=none"]
    bench.log.on_status(DOWN)
    for _ in range(20):  # reasons change with each attempt
        bench.log.on_status(TransportStatus(ConnectionState.DOWN, "timed out"))
        bench.log.on_status(DOWN)
    assert bench.lines() == ["WARNING Kafka connection lost: reason=the broker cannot be reached"]
    bench.clock.advance(130.0)
    assert bench.lines() == [
        f"WARNING Kafka connection still lost: for={seconds} s pending=3 reason=the broker cannot be reached"
        for seconds in (60, 120)
    ]
    bench.losses = {"undelivered": 12, "dropped": 0}
    bench.log.on_status(UP)
    assert bench.lines() == ["WARNING Kafka connection is back: away=130.0 s lost: undelivered=7"]
    bench.clock.advance(600.0)
    assert bench.lines() == []


def test_an_outage_without_losses_ends_with_information_only(bench: Bench) -> None:
    bench.log.on_status(DOWN)
    bench.clock.advance(2.5)
    bench.log.on_status(UP)
    assert bench.lines()[1:] == ["INFO Kafka connection is back: away=2.5 s lost: nothing"]


def test_a_refusal_during_an_outage_is_logged_at_once(bench: Bench) -> None:
    bench.log.on_status(DOWN)
    bench.log.on_status(TransportStatus(ConnectionState.DOWN, "wrong password", refused=True))
    assert bench.lines()[1:] == ["WARNING Kafka refuses the connection: reason=wrong password"]


def test_a_missing_permission_is_a_warning(bench: Bench) -> None:
    bench.log.on_status(TransportStatus(ConnectionState.UP, "no permission to read t"))
    assert bench.lines() == ["WARNING Kafka connection up: reason=no permission to read t"]


def test_nothing_is_logged_after_close(bench: Bench) -> None:
    bench.log.on_status(DOWN)
    bench.lines()
    bench.log.close()
    bench.clock.advance(120.0)
    bench.log.on_status(UP)
    assert bench.lines() == []
