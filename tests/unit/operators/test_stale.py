"""`stale`, in virtual time."""

from typing import Any

import pytest
from reactivex.subject import Subject
from reactivex.testing import TestScheduler

from k2eg_rx.operators import Staleness, stale
from k2eg_rx.protocol import ConnectionEvent, PVData, PVState
from k2eg_rx.testing import update


class Bench:
    """A subject and the items that `stale` emits for it."""

    def __init__(self, after: float = 5.0, **arguments: Any) -> None:
        self.scheduler = TestScheduler()
        self.source: Subject[PVData | ConnectionEvent] = Subject()
        self.found: list[Staleness] = []
        self.ends: list[Any] = []
        self.subscription = self.source.pipe(stale(after, **arguments)).subscribe(
            self.found.append, self.ends.append, lambda: self.ends.append("completed"), scheduler=self.scheduler
        )

    def heard(self, *names: str, at: float) -> None:
        self.scheduler.advance_to(at)
        for name in names:
            self.source.on_next(update(name, at))

    def connection(self, name: str, state: str, at: float) -> None:
        self.scheduler.advance_to(at)
        self.source.on_next(ConnectionEvent(name, f"pva://{name}", PVState(state), 0))

    def until(self, time: float) -> list[tuple[str, bool, float]]:
        self.scheduler.advance_to(time)
        found, self.found[:] = list(self.found), []
        return [(one.name, one.is_stale, one.silence) for one in found]


def test_silence_and_return_are_emitted_once_each() -> None:
    bench = Bench()
    bench.heard("x", at=1)
    bench.heard("x", at=5)
    assert bench.until(9.9) == []
    assert bench.until(30) == [("x", True, 5.0)]
    bench.heard("x", at=31)
    bench.heard("x", at=32)
    assert bench.until(36) == [("x", False, 26.0)]
    assert bench.until(60) == [("x", True, 5.0)]


def test_it_has_the_update_before_and_the_one_after_the_silence() -> None:
    bench = Bench()
    bench.heard("x", at=1)
    bench.heard("x", at=20)
    silent, back = bench.found
    assert (silent.update.value, back.update.value) == (1, 20) if silent.update and back.update else False


def test_named_pvs_are_watched_from_the_subscription_on() -> None:
    bench = Bench(pvs=["pva://lost", "also:lost", "pva://lost", "heard"])
    bench.heard("heard", at=3)
    assert bench.until(7) == [("lost", True, 5.0), ("also:lost", True, 5.0)]
    assert bench.until(8) == [("heard", True, 5.0)]
    bench.heard("lost", at=9)
    assert bench.until(9.5) == [("lost", False, 9.0)]


def test_a_pv_without_updates_has_no_update() -> None:
    bench = Bench(pvs=["lost"])
    bench.until(4)
    bench.scheduler.advance_to(5)
    assert bench.found == [Staleness("lost", True, 5.0, None)]


def test_each_pv_is_watched_separately() -> None:
    bench = Bench()
    bench.heard("x", "y", at=1)
    bench.heard("y", at=4)
    bench.heard("x", at=5.5)
    assert bench.until(9) == [("y", True, 5.0)]
    bench.heard("y", at=9.5)
    assert bench.until(10.5) == [("y", False, 5.5), ("x", True, 5.0)]


@pytest.mark.parametrize("after", [0.1, 0.3, 1 / 3, 1e-3])
def test_a_fractional_time_is_emitted_once_and_in_time(after: float) -> None:
    bench = Bench(after)
    for number in range(1, 20):
        bench.heard("x", at=number * after * 0.7)
    assert bench.until(20 * after * 0.7) == []
    assert [(name, is_stale) for name, is_stale, _ in bench.until(40 * after)] == [("x", True)]


def test_one_timer_is_enough_for_all() -> None:
    bench = Bench()
    scheduled: list[Any] = []
    schedule = bench.scheduler.schedule_relative

    def counting(*arguments: Any, **named: Any) -> Any:
        scheduled.append(arguments)
        return schedule(*arguments, **named)

    bench.scheduler.schedule_relative = counting  # type: ignore[method-assign]
    for number in range(100):
        bench.heard("x", "y", at=0.01 * (number + 1))
    assert len(scheduled) == 1


def test_nothing_is_emitted_after_dispose() -> None:
    bench = Bench(pvs=["lost"])
    bench.subscription.dispose()
    assert bench.until(100) == []
    assert not bench.source.observers


def test_completion_is_passed_on_and_ends_the_watch() -> None:
    bench = Bench(pvs=["lost"])
    bench.source.on_completed()
    assert bench.until(100) == []
    assert bench.ends == ["completed"]
    bench = Bench(pvs=["lost"])
    bench.source.on_error(KeyError("x"))
    assert bench.until(100) == []
    assert [type(end) for end in bench.ends] == [KeyError]


def test_bad_arguments_raise_at_the_call() -> None:
    with pytest.raises(ValueError, match="after"):
        stale(0)
    with pytest.raises(ValueError, match="pvs"):
        stale(1, pvs="pva://x")
    with pytest.raises(ValueError, match="protocol"):
        stale(1, pvs=["http://x"])


def test_a_pv_that_is_not_connected_is_stale_at_once_and_only_once() -> None:
    bench = Bench(pvs=["named"])
    bench.heard("x", at=1)
    bench.connection("x", "disconnected", at=2)
    bench.connection("x", "disconnected", at=3)
    bench.connection("named", "never_connected", at=4)
    bench.connection("unknown", "never_connected", at=4.5)
    assert bench.until(40) == [("x", True, 1.0), ("named", True, 4.0), ("unknown", True, 0.0)]


def test_a_pv_that_connects_again_returns_with_its_last_update() -> None:
    bench = Bench()
    bench.connection("x", "connected", at=0.5)
    bench.heard("x", at=1)
    bench.connection("x", "disconnected", at=2)
    bench.connection("x", "connected", at=8)
    lost, back = bench.found
    assert (lost.connection and lost.connection.state, back.connection and back.connection.state) == (
        PVState.DISCONNECTED,
        PVState.CONNECTED,
    )
    assert (back.is_stale, back.silence, back.update and back.update.value) == (False, 7.0, 1)
    bench.heard("x", at=9)
    assert bench.until(13.9)[2:] == []
    assert bench.until(30) == [("x", True, 5.0)], "silent since then"


def test_the_silence_of_one_pv_is_noticed_although_an_earlier_one_disconnected() -> None:
    bench = Bench()
    bench.heard("x", at=1)
    bench.heard("y", at=2)
    bench.connection("x", "disconnected", at=3)
    assert bench.until(30) == [("x", True, 2.0), ("y", True, 5.0)]
