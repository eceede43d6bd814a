"""`max_step` of `put_to`, in virtual time, and the rules of `SetpointSteps`."""

from typing import Any

import pytest
import reactivex as rx
from hypothesis import given
from hypothesis import strategies as st
from reactivex import Observable
from reactivex.subject import Subject
from reactivex.testing import TestScheduler

from k2eg_rx.errors import ClientClosedError, OperationTimeout
from k2eg_rx.operators import LoopChange, PutReport, put_to
from k2eg_rx.operators.put_setpoints import Setpoint, SetpointLimits
from k2eg_rx.operators.put_steps import OnStep, SetpointSteps
from k2eg_rx.protocol import PVData
from k2eg_rx.testing import structure

X = "pva://set:x"


def data(value: Any, severity: int = 0, **options: Any) -> PVData:
    return PVData("set:x", structure(value, severity=severity, **options))


class Bench:
    """A set point that starts at 0; the test answers the read, and puts are confirmed at once or fail."""

    def __init__(self, start: Any = 0.0, **arguments: Any) -> None:
        self.start: Subject[PVData] = Subject()
        self.reads: list[tuple[str, float | None]] = []
        self.puts: list[Any] = []
        self.failures: list[Exception] = []
        self.scheduler = TestScheduler()
        self.source: Subject[Any] = Subject()
        self.reports: list[PutReport] = []
        self.changes: list[LoopChange] = []
        self.ends: list[Any] = []
        options: dict[str, Any] = {
            "limits": (-10, 10),
            "rate": 1.0,
            "max_step": 1.0,
            "on_state": self.changes.append,
        } | arguments
        self.source.pipe(put_to(self, X, **options)).subscribe(
            self.reports.append, self.ends.append, lambda: self.ends.append("completed"), scheduler=self.scheduler
        )
        if start is not None:
            self.answer(start)

    def answer(self, start: Any) -> None:
        self.start.on_next(start if isinstance(start, PVData) else data(start))

    def get_stream(self, uri: str, timeout: float | None = None) -> Observable[PVData]:
        self.reads.append((uri, timeout))
        return self.start

    def put_stream(self, uri: str, value: object, timeout: float | None = None) -> Observable[Any]:
        self.puts.append(value)
        return rx.throw(self.failures.pop()) if self.failures else rx.of("done")

    def emit(self, *numbers: float) -> list[tuple[str, Any]]:
        """Emits numbers, one a second; returns their outcomes and values."""
        before = len(self.reports)
        for number in numbers:
            self.source.on_next(number)
            self.scheduler.advance_by(1.0)
        return [(report.outcome.value, report.value) for report in self.reports[before:]]

    @property
    def states(self) -> list[tuple[str, str, int]]:
        return [(change.state.value, change.reason, change.large_steps) for change in self.changes]


def test_a_larger_change_is_refused() -> None:
    bench = Bench(timeout=3.0)
    assert bench.emit(1.0, 2.5, 2.0, 0.5, 1.0) == [
        ("written", 1.0),
        ("refused", None),
        ("written", 2.0),
        ("refused", None),
        ("written", 1.0),
    ]
    assert bench.puts == [1.0, 2.0, 1.0]
    assert str(bench.reports[1].error) == f"{X}: {X}: the change from 1 to 2.5 is larger than max_step 1"
    assert bench.reads == [(X, 3.0)]  # once


def test_a_larger_change_is_clipped() -> None:
    bench = Bench(on_step="clip")
    assert bench.emit(0.5, 3.0, 3.0, -9.0) == [("written", 0.5), ("clipped", 1.5), ("clipped", 2.5), ("clipped", 1.5)]
    assert [report.wanted for report in bench.reports] == [0.5, 3.0, 3.0, -9.0]


@pytest.mark.parametrize("wanted", [9, -9, 10**6])
def test_whole_numbers_stay_whole(wanted: int) -> None:
    bench = Bench(3, on_step="clip", max_step=2, limits=(-(10**9), 10**9))
    bench.emit(wanted)
    assert bench.puts == [5 if wanted > 0 else 1]


def test_larger_changes_are_counted_and_shown_in_rows() -> None:
    bench = Bench()
    bench.emit(1.0, 5.0, 6.0, 2.0, 9.0)
    bench.source.on_completed()
    assert bench.states == [
        ("closed", "", 0),
        ("closed", f"{X}: the change from 1 to 5 is larger than max_step 1", 1),
        ("closed", f"{X}: the change from 1 to 6 is larger than max_step 1", 2),
        ("closed", "", 2),
        ("closed", f"{X}: the change from 2 to 9 is larger than max_step 1", 3),
        ("open", "the stream has ended", 3),
    ]


def test_a_number_waits_until_the_value_is_read() -> None:
    bench = Bench(None)
    assert bench.emit(0.25, 0.5) == []
    bench.answer(0.0)
    bench.scheduler.advance_by(1.0)
    assert bench.puts == [0.5]
    assert bench.reports[0].skipped == 1


def test_the_stream_completes_after_the_number_that_waits_for_the_read() -> None:
    bench = Bench(None)
    bench.emit(0.5)
    bench.source.on_completed()
    assert bench.ends == []
    bench.answer(0.0)
    bench.scheduler.advance_by(1.0)
    assert (bench.puts, bench.ends) == ([0.5], ["completed"])


def test_a_stop_before_the_value_is_read_refuses_the_number_that_waits() -> None:
    stop: Subject[bool] = Subject()
    bench = Bench(None, stop_on=stop)
    bench.emit(0.5)
    stop.on_next(True)
    bench.answer(0.0)
    assert (bench.puts, [report.outcome.value for report in bench.reports]) == ([], ["refused"])


@pytest.mark.parametrize(
    ("start", "text"),
    [
        (OperationTimeout("get", X, 5.0), "Timeout: get of"),
        (data(0.0, severity=3), "must be valid, got 0.0 with INVALID"),
        (data(float("nan")), "must be a finite number, got nan"),
        (data("text"), "must be a finite number, got 'text'"),
        (data([1.0, 2.0]), "must be a finite number"),
    ],
)
@pytest.mark.parametrize("dry_run", [True, False])
def test_without_a_value_to_start_from_nothing_is_written(start: Any, text: str, dry_run: bool) -> None:
    bench = Bench(None, dry_run=dry_run)
    bench.emit(0.0)
    if isinstance(start, Exception):
        bench.start.on_error(start)
    else:
        bench.answer(start)
    assert bench.emit(0.5) == [("refused", None)]
    assert (bench.puts, len(bench.reports)) == ([], 2)
    assert bench.changes[-1].state == "tripped"
    assert text in bench.changes[-1].reason


def test_a_client_that_is_closed_meanwhile_ends_the_stream() -> None:
    bench = Bench(None)
    bench.start.on_error(ClientClosedError("closed"))
    assert isinstance(bench.ends[0], ClientClosedError)


def test_an_enum_starts_at_its_index() -> None:
    bench = Bench(data("Two", choices=["Zero", "One", "Two"]), max_step=1)
    assert bench.emit(0, 1) == [("refused", None), ("written", 1)]


def test_after_a_failed_put_a_change_is_limited_from_both_values() -> None:
    bench = Bench()
    bench.failures.append(OperationTimeout("put", X, 5.0, "may still be carried out"))
    assert bench.emit(1.0) == [("failed", 1.0)]  # 0 or 1
    assert bench.emit(-0.5, 1.5, 0.5, -0.5) == [
        ("refused", None),
        ("refused", None),
        ("written", 0.5),
        ("written", -0.5),
    ]
    assert "from 0 (or 0 to 1, after a failed put) to -0.5" in str(bench.reports[1].error)


def test_a_dry_run_goes_on_from_what_it_would_have_written() -> None:
    bench = Bench(dry_run=True)
    assert bench.emit(1.0, 2.0, 4.0) == [("dry_run", 1.0), ("dry_run", 2.0), ("refused", None)]
    assert bench.puts == []


def test_a_clipped_change_stays_within_the_limits() -> None:
    bench = Bench(20.0, on_step="clip")
    assert bench.emit(5.0) == [("refused", None)]
    assert "19, one max_step away, is outside -10 to 10" in str(bench.reports[0].error)


def test_clamped_numbers_are_limited_too() -> None:
    bench = Bench(9.5)
    assert bench.emit(12.0) == [("clamped", 10)]
    bench = Bench(0.0)
    assert bench.emit(12.0) == [("refused", None)]


def test_the_rate_is_not_used_up_by_refused_numbers() -> None:
    bench = Bench()
    bench.source.on_next(5.0)
    bench.source.on_next(0.5)
    assert bench.puts == [0.5]


def test_each_subscription_reads_and_counts_anew() -> None:
    bench = Bench(0.0)
    source: Subject[float] = Subject()
    changes: list[LoopChange] = []
    stream = source.pipe(put_to(bench, X, limits=(-10, 10), max_step=1.0, on_state=changes.append))
    for start in (0.0, 5.0):
        with stream.subscribe(scheduler=bench.scheduler):
            bench.answer(start)
            source.on_next(start + 2)
    assert len(bench.reads) == 3
    assert [change.large_steps for change in changes] == [0, 1, 0, 1]


def test_the_client_must_read() -> None:
    class Writer:
        def put_stream(self, uri: str, value: object, timeout: float | None = None) -> Observable[Any]:
            raise AssertionError

    with pytest.raises(ValueError, match="client must have the method get_stream"):
        put_to(Writer(), X, limits=(0, 1), max_step=0.5)


@pytest.mark.parametrize("max_step", [0, -1, float("nan"), float("inf"), "1", True])
def test_the_largest_change_is_a_number_above_zero(max_step: Any) -> None:
    with pytest.raises(ValueError, match="max_step"):
        Bench(max_step=max_step)


NUMBERS = st.floats(-20, 20)
STEPS = st.lists(st.tuples(NUMBERS, NUMBERS, st.sampled_from(["", "a", "b", "ab"])), max_size=20)


@given(STEPS, st.sampled_from(["refuse", "clip"]), st.tuples(NUMBERS, NUMBERS))
def test_no_value_is_further_than_a_step_from_any_that_the_pv_may_hold(
    items: list[tuple[float, float, str]], on_step: OnStep, start: tuple[float, float]
) -> None:
    largest = {"a": 1.0, "b": 3.0}
    limits = {uri: SetpointLimits(-15, 15, "clamp") for uri in largest}
    steps = SetpointSteps(largest, on_step, limits)
    steps.start({uri: data(value) for uri, value in zip(largest, start, strict=True)})
    held = {uri: {value} for uri, value in zip(largest, start, strict=True)}
    for *numbers, failed in items:
        wanted = dict(zip(largest, numbers, strict=True))
        values = steps.limited(Setpoint(numbers, wanted)).values
        if values is None:
            continue
        for uri, value in values.items():
            assert all(abs(value - each) <= largest[uri] + 1e-9 for each in held[uri])
            assert values == wanted or -15 <= value <= 15
            held[uri] = held[uri] | {value} if uri in failed else {value}
        steps.sent(values, dict.fromkeys(failed))


@given(st.tuples(NUMBERS, NUMBERS), st.tuples(NUMBERS, NUMBERS))
def test_a_clipped_step_keeps_its_direction_and_is_the_longest(
    start: tuple[float, float], wanted: tuple[float, float]
) -> None:
    largest = {"a": 1.0, "b": 3.0}
    steps = SetpointSteps(largest, "clip", {uri: SetpointLimits(-100, 100, "clamp") for uri in largest})
    steps.start({uri: data(value) for uri, value in zip(largest, start, strict=True)})
    values = steps.limited(Setpoint(wanted, dict(zip(largest, wanted, strict=True)))).values
    assert values is not None
    done = [value - before for value, before in zip(values.values(), start, strict=True)]
    full = [value - before for value, before in zip(wanted, start, strict=True)]
    assert abs(done[0] * full[1] - done[1] * full[0]) < 1e-6
    assert list(values.values()) == list(wanted) or any(
        abs(abs(change) - most) < 1e-9 for change, most in zip(done, largest.values(), strict=True)
    )
