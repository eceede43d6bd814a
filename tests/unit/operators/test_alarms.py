"""Transitions of severity."""

import math
from typing import Any

import pytest
import reactivex as rx

from k2eg_rx.operators import AlarmTransition, alarms
from k2eg_rx.protocol.messages import PVData
from k2eg_rx.protocol.structures import EPICS_EPOCH, NANOSECONDS, Severity
from k2eg_rx.testing import START, update


def at(seconds: float, severity: int, name: str = "x") -> PVData:
    return update(name, 0.0, severity=severity, timestamp=START + round(seconds * NANOSECONDS))


def transitions(*updates: PVData, **arguments: Any) -> list[AlarmTransition]:
    found: list[AlarmTransition] = []
    rx.from_iterable(updates).pipe(alarms(**arguments)).subscribe(found.append)
    return found


def summary(found: list[AlarmTransition]) -> list[tuple[str, int, int, float]]:
    return [(one.name, one.previous, one.current, one.seconds) for one in found]


def test_a_transition_has_the_duration_of_the_previous_severity() -> None:
    updates = [at(0, 0), at(1, 0), at(2.5, 2), at(3, 2), at(10, 1), at(11, 0)]
    found = transitions(*updates)
    assert summary(found) == [("x", 0, 2, 2.5), ("x", 2, 1, 7.5), ("x", 1, 0, 1.0)]
    assert [one.update for one in found] == [updates[2], updates[4], updates[5]]
    assert found[0].timestamp == START + 2_500_000_000


def test_each_pv_has_its_own_severity() -> None:
    found = transitions(at(0, 0), at(1, 0, "y"), at(2, 1), at(4, 2, "y"))
    assert summary(found) == [("x", 0, 1, 2.0), ("y", 0, 2, 3.0)]


def test_a_first_update_in_alarm_is_emitted_from_undefined() -> None:
    first, second = transitions(at(0, 3), at(5, 0))
    assert (first.previous, first.current) == (Severity.UNDEFINED, Severity.INVALID)
    assert math.isnan(first.seconds)
    assert (second.previous, second.seconds) == (Severity.INVALID, 5.0)


def test_a_first_update_without_alarm_is_not_emitted() -> None:
    assert transitions(at(0, 0), at(1, 0)) == []


def test_changes_below_the_minimum_are_ignored_and_durations_stay_right() -> None:
    updates = [at(0, 1), at(1, 0), at(2, 1), at(5, 2), at(6, 3), at(9, 1), at(10, 0)]
    found = transitions(*updates, minimum=Severity.MAJOR)
    assert summary(found) == [("x", 1, 2, 3.0), ("x", 2, 3, 1.0), ("x", 3, 1, 3.0)]


def test_with_minimum_no_alarm_the_first_update_is_emitted() -> None:
    (first,) = transitions(at(0, 0), minimum=0)
    assert (first.previous, first.current) == (Severity.UNDEFINED, Severity.NO_ALARM)


def test_without_timestamps_the_duration_is_unknown() -> None:
    found = transitions(update("x", 0, timestamp=None), update("x", 0, severity=1, timestamp=None), at(1, 0), at(3, 2))
    assert [one.timestamp for one in found] == [None, START + NANOSECONDS, START + 3 * NANOSECONDS]
    assert [math.isnan(one.seconds) for one in found] == [True, True, False]


@pytest.mark.parametrize("seconds", [0, EPICS_EPOCH])
def test_an_alarm_without_a_time_has_an_unknown_duration(seconds: int) -> None:
    never = update("x", 0, severity=3, timestamp=seconds * NANOSECONDS)
    first, second = transitions(never, at(0, 0))
    assert first.timestamp is None
    assert math.isnan(second.seconds)


def test_error_and_completion_are_passed_on() -> None:
    ends: list[Any] = []
    rx.throw(KeyError("x")).pipe(alarms()).subscribe(on_error=ends.append)
    rx.empty().pipe(alarms()).subscribe(on_completed=lambda: ends.append("completed"))
    assert [type(end) for end in ends] == [KeyError, str]


@pytest.mark.parametrize("minimum", [-1, 5])
def test_an_unknown_minimum_raises(minimum: int) -> None:
    with pytest.raises(ValueError, match="minimum must be a whole number"):
        alarms(minimum)
