"""A PV that comes to a value: tolerance, time to stay, interruptions, stalls of the process."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from reactivex.subject import Subject
from reactivex.testing import TestScheduler

from k2eg_rx import ConnectionEvent, OperationTimeout, PVUpdate
from k2eg_rx.operators import settled
from k2eg_rx.testing import ScriptedGateway, update

Seen = list[tuple[float, object]]


def run(values: Sequence[tuple[float, object]], *, until: float, stays: float = 1.0, timeout: float = 10.0) -> Seen:
    """Runs the operator for target 5 and tolerance 0.1; returns values and errors with their times."""
    clock, source, seen = TestScheduler(), Subject[PVUpdate | ConnectionEvent](), Seen()

    def note(item: object) -> None:
        seen.append((float(clock.clock), item))

    source.pipe(settled(5.0, 0.1, stays=stays, timeout=timeout)).subscribe(
        lambda item: note(item.value), note, scheduler=clock
    )
    for time, value in values:
        clock.advance_to(time)
        source.on_next(value if isinstance(value, PVUpdate) else update("q", value, units="A"))
    clock.advance_to(until)
    return seen


def test_a_pv_settles_when_it_stays_within_the_tolerance() -> None:
    assert run([(1.0, 4.0), (2.0, 4.95)], until=9.0) == [(3.0, 4.95)]  # without a further update
    assert run([(1.0, 4.95), (1.5, 5.05), (1.8, 5.0)], until=9.0) == [(2.0, 5.0)]  # the newest one
    assert run([(1.0, 5.0)], stays=0.0, until=9.0) == [(1.0, 5.0)]


@pytest.mark.parametrize("disturbance", [5.2, math.nan, update("q", 5.0, severity=3)])
def test_a_disturbance_begins_the_wait_anew(disturbance: object) -> None:
    assert run([(1.0, 5.0), (1.9, disturbance), (2.5, 5.0)], until=9.0) == [(3.5, 5.0)]


def test_the_timeout_names_the_last_value() -> None:
    ((time, error),) = run([(1.0, 4.0)], until=20.0)
    assert time == 10.0
    assert isinstance(error, OperationTimeout)
    assert str(error) == ("Timeout: settling of q: not within 0.1 of 5 for 1 s within 10 s; the last value was 4.0 A")
    ((_, error),) = run([], until=20.0)
    assert "no value arrived" in str(error)


def test_a_text_does_not_settle() -> None:
    ((_, error),) = run([(1.0, "five")], until=20.0)
    assert str(error) == "q: the value must be a number to settle, got 'five'"


def test_updates_that_wait_during_a_stall_are_looked_at_first() -> None:
    clock, source, seen = TestScheduler(), Subject[PVUpdate | ConnectionEvent](), Seen()
    source.pipe(settled(5.0, 0.1, stays=1.0)).subscribe(lambda item: seen.append((0.0, item.value)), scheduler=clock)
    source.on_next(update("q", 5.0))
    clock.sleep(8.0)  # the process stalls: its timer is late
    clock.advance_by(0.01)
    source.on_next(update("q", 6.0))  # overshot meanwhile
    clock.advance_by(5.0)
    assert seen == []


def test_a_lost_connection_begins_the_wait_anew() -> None:
    with ScriptedGateway() as gateway, gateway.client() as client:
        pv, seen = gateway.pv("q", 5.0), list[float]()
        stream = client.monitor_stream("pva://q", connection=True).pipe(settled(5.0, 0.1, stays=2.0))
        stream.subscribe(lambda item: seen.append(item.value))
        gateway.advance(1.0)
        pv.disconnect()
        gateway.advance(10.0)
        assert seen == []
        pv.connect()
        gateway.advance(5.0)
        assert seen == [5.0]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((math.nan, 0.1), "target must be a finite number"),
        ((True, 0.1), "target must be a finite number"),
        ((1.0, -0.1), "tolerance must be"),
    ],
)
def test_wrong_arguments_are_refused(arguments: tuple[float, float], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        settled(*arguments)
    with pytest.raises(ValueError, match="timeout must be above stays"):
        settled(1.0, 0.1, stays=2.0, timeout=2.0)
