"""The moments of windows, in virtual time."""

from __future__ import annotations

import pytest
from reactivex.testing import TestScheduler

from k2eg_rx.gateway.commands.schedule import Moment, Timing, moments

OPEN, PUSH, END = Moment.OPEN, Moment.PUSH, Moment.END


def seen(timing: Timing, seconds: float) -> list[tuple[float, Moment]]:
    scheduler = TestScheduler()
    found: list[tuple[float, Moment]] = []
    moments(timing, scheduler).subscribe(lambda moment: found.append((round(scheduler.now.timestamp(), 3), moment)))
    scheduler.advance_to(seconds)
    return found


@pytest.mark.parametrize(
    ("timing", "expected"),
    [
        (Timing(1.0), [(1.0, END), (2.0, END), (3.0, END)]),
        (Timing(1.0, 0.5), [(1.0, END), (1.5, OPEN), (2.5, END), (3.0, OPEN)]),
        (Timing(1.0, 0.0, 0.4), [(0.4, PUSH), (0.8, PUSH), (1.0, END), (1.4, PUSH), (1.8, PUSH), (2.0, END)]),
        (Timing(1.0, 0.0, 0.5), [(0.5, PUSH), (1.0, END), (1.5, PUSH), (2.0, END)]),
        (Timing(1.5), [(1.0, PUSH), (1.5, END), (2.5, PUSH), (3.0, END)]),
        (Timing(1.0, 0.0, 1.0), [(1.0, END), (2.0, END)]),
        (Timing(0.0, 1.0), [(0.0, END), (1.0, OPEN), (1.0, END), (2.0, OPEN), (2.0, END)]),
    ],
)
def test_moments(timing: Timing, expected: list[tuple[float, Moment]]) -> None:
    assert seen(timing, 3.05)[: len(expected)] == expected


def test_a_late_thread_leaves_windows_out() -> None:
    scheduler = TestScheduler()
    found: list[float] = []

    def slow(_: Moment) -> None:
        found.append(round(scheduler.now.timestamp(), 3))
        if len(found) == 2:
            scheduler.sleep(3.3)  # work that takes longer than three windows

    moments(Timing(1.0), scheduler).subscribe(slow)
    scheduler.advance_to(9.0)
    assert found == [1.0, 2.0, 6.3, 7.3, 8.3]


def test_disposing_ends_them() -> None:
    scheduler = TestScheduler()
    found: list[Moment] = []
    subscription = moments(Timing(1.0), scheduler).subscribe(found.append)
    scheduler.advance_to(2.5)
    subscription.dispose()
    scheduler.advance_to(9.0)
    assert len(found) == 2


def test_small_delays_do_not_add_up() -> None:
    scheduler = TestScheduler()
    found: list[float] = []

    def busy(_: Moment) -> None:
        found.append(round(scheduler.now.timestamp(), 3))
        scheduler.sleep(0.1)

    moments(Timing(1.0), scheduler).subscribe(busy)
    scheduler.advance_to(5.5)
    assert found == [1.0, 2.0, 3.0, 4.0, 5.0]
