"""The thread for what has to happen later."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from k2eg_rx.gateway.epics.deadlines import Deadlines

PATIENCE = 60.0


@pytest.fixture
def deadlines() -> Iterator[Deadlines]:
    deadlines = Deadlines("deadlines-under-test")
    yield deadlines
    deadlines.close()


def test_actions_come_in_the_order_of_their_time_on_its_own_thread(deadlines: Deadlines) -> None:
    called: SimpleQueue[str] = SimpleQueue()
    deadlines.after(0.04, lambda: called.put("last"))
    deadlines.after(0.02, lambda: called.put("second"))
    deadlines.soon(lambda: called.put(threading.current_thread().name))
    assert [called.get(timeout=PATIENCE) for _ in range(3)] == ["deadlines-under-test", "second", "last"]


def test_those_of_the_same_time_come_in_the_order_they_were_asked_for(deadlines: Deadlines) -> None:
    called: SimpleQueue[int] = SimpleQueue()
    go_on = threading.Event()
    deadlines.soon(lambda: go_on.wait(PATIENCE) or None)
    for number in range(50):
        deadlines.soon(lambda number=number: called.put(number))
    go_on.set()
    assert [called.get(timeout=PATIENCE) for _ in range(50)] == list(range(50))


def test_a_cancelled_one_does_not_come(deadlines: Deadlines) -> None:
    called: SimpleQueue[str] = SimpleQueue()
    cancelled = deadlines.after(0.01, lambda: called.put("cancelled"))
    deadlines.after(0.03, lambda: called.put("other"))
    cancelled.cancel()
    cancelled.cancel()
    assert called.get(timeout=PATIENCE) == "other"
    assert called.empty()


def test_cancelled_ones_do_not_pile_up(deadlines: Deadlines) -> None:
    for _ in range(5000):
        deadlines.after(3600.0, lambda: None).cancel()
    assert len(deadlines._heap) < 2000


def test_one_that_fails_stops_no_other(deadlines: Deadlines, caplog: pytest.LogCaptureFixture) -> None:
    called = threading.Event()

    def failing() -> None:
        raise RuntimeError("a fault of the action's")

    deadlines.soon(failing)
    deadlines.soon(called.set)
    assert called.wait(PATIENCE)
    assert "an action on deadlines-under-test failed" in caplog.text


def test_closing_does_what_is_due_and_forgets_the_rest() -> None:
    deadlines = Deadlines("deadlines-under-test")
    called: list[str] = []
    deadlines.after(3600.0, lambda: called.append("late"))
    deadlines.soon(lambda: called.append("due"))
    deadlines.close()
    deadlines.close()
    assert called == ["due"]
    assert not any(thread.name == "deadlines-under-test" for thread in threading.enumerate())


def test_an_action_may_close_it() -> None:
    deadlines = Deadlines("deadlines-under-test")
    closed = threading.Event()
    deadlines.soon(deadlines.close)
    deadlines.soon(closed.set)
    assert closed.wait(PATIENCE)
    deadlines.close()
