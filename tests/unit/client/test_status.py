"""The stream of the client's status, in virtual time."""

import pytest
from reactivex.testing import TestScheduler

from k2eg_rx.client.status import LossCounter, Status, StatusBoard
from k2eg_rx.protocol import Notice
from k2eg_rx.transport.interfaces import ConnectionState, TransportStatus


def test_the_stream_starts_with_the_current_status_and_emits_changes() -> None:
    timers = TestScheduler()
    lag = [0]
    board = StatusBoard(lambda transport: Status(transport.connection, reason=transport.reason, lag=lag[0]), timers)
    seen: list[Status] = []
    completed: list[bool] = []
    board.stream().subscribe(seen.append, on_completed=lambda: completed.append(True))
    board.update(TransportStatus(ConnectionState.UP))
    board.update(TransportStatus(ConnectionState.UP))
    timers.advance_to(5)
    lag[0] = 7
    timers.advance_to(6.5)
    board.update(TransportStatus(ConnectionState.DOWN, "the broker is gone"))
    assert [(status.connection, status.lag, status.reason) for status in seen] == [
        (ConnectionState.CONNECTING, 0, ""),
        (ConnectionState.UP, 0, ""),
        (ConnectionState.UP, 7, ""),
        (ConnectionState.DOWN, 7, "the broker is gone"),
    ]
    late: list[Status] = []
    board.stream().subscribe(late.append)
    assert [status.connection for status in late] == [ConnectionState.DOWN]
    board.close()
    assert completed == [True]


def test_discarded_is_the_total_of_decode_errors() -> None:
    status = Status(ConnectionState.UP, decode_errors={("shape", "x"): 2, ("size", "y"): 1})
    assert status.discarded == 3
    assert status in {status}


def test_losses_are_counted_by_pv_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    losses = LossCounter()
    losses.add(Notice("a", 1, "too large"))
    before = losses.counts()
    losses.add(Notice("a", 2, "an outage"))
    assert (before, losses.counts()) == ({"a": 1}, {"a": 3}), "a reading does not change"
    assert losses.reasons() == {"a": "an outage"}
    assert [line for line in caplog.messages if "pv=a" in line][1:] == []
