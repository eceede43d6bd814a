"""Alarms that must last, be repeated, or be acknowledged, in virtual time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from reactivex import operators as ops
from reactivex.subject import Subject
from reactivex.testing import TestScheduler

from k2eg_rx import PVData
from k2eg_rx.operators import AlarmTransition, alarms
from k2eg_rx.testing import START, update

Shown = list[tuple[float, str, int, int, float]]


def run(steps: Sequence[tuple[float, Any]], until: float = 100.0, **options: Any) -> Shown:
    """Returns time, PV, severities and duration of each transition; a step is a severity, PV and severity, or acks."""
    clock, source, acknowledgements, seen = TestScheduler(), Subject[PVData](), Subject[str | None](), Shown()

    def note(alarm: AlarmTransition) -> None:
        seconds = -1.0 if math.isnan(alarm.seconds) else alarm.seconds
        seen.append((float(clock.clock), alarm.name, alarm.previous, alarm.current, seconds))

    if options.pop("latch", False):
        options["latch"] = acknowledgements
    source.pipe(alarms(**options)).subscribe(note, scheduler=clock)
    for time, step in steps:
        clock.advance_to(time)
        if step is None or isinstance(step, str):
            acknowledgements.on_next(step)
        else:
            name, severity = step if isinstance(step, tuple) else ("x", step)
            source.on_next(update(name, 0.0, severity=severity, timestamp=START + round(time * 1e9)))
    clock.advance_to(until)
    return seen


def test_an_alarm_must_last() -> None:
    assert run([(0, 0), (1, 1), (3, 0), (10, 1)], delay=5.0) == [(15.0, "x", 0, 1, 10.0)]


def test_an_alarm_that_changes_severity_meanwhile_is_emitted_with_the_newest_one() -> None:
    assert run([(0, 0), (1, 1), (3, 2), (5, 1), (5.5, 2)], delay=5.0) == [(6.0, "x", 0, 2, 1.0)]


def test_previous_is_what_was_emitted_before() -> None:
    steps = [(0, 0), (1, 1), (8, 2), (9, 1), (20, 2), (30, 0), (31, 2), (40, 0)]
    assert run(steps, delay=5.0, clear_after=3.0) == [
        (6.0, "x", 0, 1, 1.0),
        (25.0, "x", 1, 2, 19.0),
        (43.0, "x", 2, 0, 20.0),
    ]


def test_the_end_of_an_alarm_must_last() -> None:
    assert run([(0, 2), (1, 0), (2, 2), (3, 0)], clear_after=5.0) == [(0.0, "x", 4, 2, -1.0), (8.0, "x", 2, 0, 3.0)]


def test_an_alarm_must_be_repeated() -> None:
    assert run([(0, 0), (1, 1), (2, 0), (3, 1), (4, 1), (5, 2)], count=3) == [(5.0, "x", 0, 2, 3.0)]
    assert run([(0, 0), (1, 1), (2, 1), (9, 1)], count=3, delay=4.0) == [(9.0, "x", 0, 1, 1.0)]


def test_an_alarm_is_latched_until_its_end_is_acknowledged() -> None:
    steps = [(0, 1), (1, "pva://x"), (2, 0), (3, 2), (4, 0), (5, "y"), (6, "pva://x")]
    assert run(steps, latch=True) == [(0.0, "x", 4, 1, -1.0), (3.0, "x", 1, 2, 3.0), (6.0, "x", 2, 0, 1.0)]
    assert run([(0, 1), (0, ("y", 1)), (1, 0), (2, None)], latch=True)[2:] == [(2.0, "x", 1, 0, 1.0)]


def test_each_pv_has_its_own_delay_and_changes_below_the_minimum_are_ignored() -> None:
    steps = [(0, 0), (0, ("y", 0)), (1, 2), (2, ("y", 2)), (3, ("z", 1))]
    assert run(steps, minimum=2, delay=5.0) == [(6.0, "x", 0, 2, 1.0), (7.0, "y", 0, 2, 2.0)]


def test_nothing_is_emitted_after_dispose() -> None:
    clock, source, seen = TestScheduler(), Subject[PVData](), list[AlarmTransition]()
    watching = source.pipe(alarms(delay=5.0), ops.take(3)).subscribe(seen.append, scheduler=clock)
    source.on_next(update("x", 0.0, severity=1))
    watching.dispose()
    clock.advance_to(20.0)
    assert seen == []


@pytest.mark.parametrize("options", [{"delay": -1.0}, {"clear_after": math.nan}, {"count": 0}, {"latch": True}])
def test_wrong_options_are_refused(options: Any) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        alarms(**options)
