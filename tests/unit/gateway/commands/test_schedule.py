"""Window schedule of recurring snapshots, in virtual time."""

from __future__ import annotations

import pytest
from reactivex.testing import TestScheduler

from k2eg_rx.gateway.commands.schedule import SnapshotTiming, WindowEvent, window_events

OPEN, PUSH, END = WindowEvent.OPEN, WindowEvent.PUSH, WindowEvent.END


def seen(timing: SnapshotTiming, seconds: float) -> list[tuple[float, WindowEvent]]:
    scheduler = TestScheduler()
    found: list[tuple[float, WindowEvent]] = []
    window_events(timing, scheduler).subscribe(lambda event: found.append((round(scheduler.now.timestamp(), 3), event)))
    scheduler.advance_to(seconds)
    return found


@pytest.mark.parametrize(
    ("timing", "expected"),
    [
        (SnapshotTiming(1.0), [(1.0, END), (2.0, END), (3.0, END)]),
        (SnapshotTiming(1.0, 0.5), [(1.0, END), (1.5, OPEN), (2.5, END), (3.0, OPEN)]),
        (SnapshotTiming(1.0, 0.0, 0.4), [(0.4, PUSH), (0.8, PUSH), (1.0, END), (1.4, PUSH), (1.8, PUSH), (2.0, END)]),
        (SnapshotTiming(1.0, 0.0, 0.5), [(0.5, PUSH), (1.0, END), (1.5, PUSH), (2.0, END)]),
        (SnapshotTiming(1.5), [(1.0, PUSH), (1.5, END), (2.5, PUSH), (3.0, END)]),
        (SnapshotTiming(1.0, 0.0, 1.0), [(1.0, END), (2.0, END)]),
        (SnapshotTiming(0.0, 1.0), [(0.0, END), (1.0, OPEN), (1.0, END), (2.0, OPEN), (2.0, END)]),
    ],
)
def test_window_events(timing: SnapshotTiming, expected: list[tuple[float, WindowEvent]]) -> None:
    assert seen(timing, 3.05)[: len(expected)] == expected


def test_a_late_scheduler_skips_windows() -> None:
    scheduler = TestScheduler()
    found: list[float] = []

    def slow(_: WindowEvent) -> None:
        found.append(round(scheduler.now.timestamp(), 3))
        if len(found) == 2:
            scheduler.sleep(3.3)  # work that takes longer than three windows

    window_events(SnapshotTiming(1.0), scheduler).subscribe(slow)
    scheduler.advance_to(9.0)
    assert found == [1.0, 2.0, 6.3, 7.3, 8.3]


def test_disposing_ends_the_events() -> None:
    scheduler = TestScheduler()
    found: list[WindowEvent] = []
    subscription = window_events(SnapshotTiming(1.0), scheduler).subscribe(found.append)
    scheduler.advance_to(2.5)
    subscription.dispose()
    scheduler.advance_to(9.0)
    assert len(found) == 2


def test_small_delays_do_not_accumulate() -> None:
    scheduler = TestScheduler()
    found: list[float] = []

    def busy(_: WindowEvent) -> None:
        found.append(round(scheduler.now.timestamp(), 3))
        scheduler.sleep(0.1)

    window_events(SnapshotTiming(1.0), scheduler).subscribe(busy)
    scheduler.advance_to(5.5)
    assert found == [1.0, 2.0, 3.0, 4.0, 5.0]
