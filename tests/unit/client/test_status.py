"""The stream of the client's status, in virtual time."""

from reactivex.testing import TestScheduler

from k2eg_rx.client.status import Status, StatusBoard
from k2eg_rx.transport.interfaces import ConnectionState, TransportStatus


def test_the_present_status_comes_first_and_then_each_change() -> None:
    timers = TestScheduler()
    lag = [0]
    board = StatusBoard(lambda told: Status(told.connection, told.reason, lag=lag[0]), timers)
    seen: list[Status] = []
    ends: list[bool] = []
    board.stream().subscribe(seen.append, on_completed=lambda: ends.append(True))
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
    assert ends == [True]
