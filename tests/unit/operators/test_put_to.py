"""`put_to`, in virtual time, with a client whose replies the test sends."""

import logging
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import reactivex as rx
from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import Disposable
from reactivex.subject import Subject
from reactivex.testing import TestScheduler

from k2eg_rx.errors import ClientClosedError, OperationTimeout
from k2eg_rx.operators import PutOutcome, PutReport, Staleness, put_to
from k2eg_rx.protocol import ConnectionEvent, PVState
from k2eg_rx.testing import update

NAN, INF = float("nan"), float("inf")
OPEN = (-INF, INF)


class FakeClient:
    """A client that replies at once, or when the test says so."""

    def __init__(self, *, at_once: bool = False) -> None:
        self.at_once = at_once
        self.puts: list[Any] = []
        self.calls: list[tuple[str, float | None]] = []
        self.pending: list[abc.ObserverBase[Any]] = []
        self.left = 0

    def put_stream(self, uri: str, value: object, timeout: float | None = None) -> Observable[Any]:
        def subscribe(observer: abc.ObserverBase[Any], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            self.puts.append(value)
            self.calls.append((uri, timeout))
            self.pending.append(observer)
            if self.at_once:
                self.reply()
            return Disposable(self.leave)

        return Observable(subscribe)

    def leave(self) -> None:
        self.left += 1

    def reply(self) -> None:
        observer = self.pending.pop()
        observer.on_next("done")
        observer.on_completed()


class Bench:
    def __init__(self, client: Any = None, **arguments: Any) -> None:
        self.client: Any = client or FakeClient()
        self.scheduler = TestScheduler()
        self.source: Subject[Any] = Subject()
        self.entries: list[PutReport] = []
        self.ends: list[Any] = []
        self.on_entry: Callable[[PutReport], None] = lambda _: None
        operator = put_to(self.client, "pva://set:x", **({"limits": (-10, 10), "rate": 1.0} | arguments))
        self.subscription = self.source.pipe(operator).subscribe(
            self.take, self.ends.append, lambda: self.ends.append("completed"), scheduler=self.scheduler
        )

    def take(self, entry: PutReport) -> None:
        self.entries.append(entry)
        self.on_entry(entry)

    def emit(self, *values: Any, at: float | None = None) -> None:
        if at is not None:
            self.scheduler.advance_to(at)
        for value in values:
            self.source.on_next(value)

    def log(self) -> list[tuple[Any, Any, str, int]]:
        return [(one.wanted, one.value, one.outcome.value, one.skipped) for one in self.entries]


def test_a_number_is_reported_after_the_reply() -> None:
    bench = Bench(timeout=3.0)
    bench.emit(1.5, at=2.0)
    assert bench.client.puts == [1.5]
    assert bench.client.calls == [("pva://set:x", 3.0)]
    assert bench.entries == []
    bench.scheduler.advance_to(2.5)
    bench.client.reply()
    when = datetime.fromtimestamp(2.0, UTC)
    assert bench.entries == [PutReport("pva://set:x", 1.5, 1.5, PutOutcome.WRITTEN, None, when, 0)]


def test_one_put_is_in_flight_and_the_newest_number_follows() -> None:
    bench = Bench(rate=1000.0)
    bench.emit(1, at=1)
    bench.emit(2, 3, at=2)
    bench.emit(4, at=3)
    assert bench.client.puts == [1]
    bench.client.reply()
    assert bench.client.puts == [1, 4]
    bench.client.reply()
    bench.scheduler.advance_to(10)
    assert bench.client.puts == [1, 4]
    assert bench.log() == [(1, 1, "written", 0), (4, 4, "written", 2)]


def test_puts_do_not_exceed_the_rate() -> None:
    client = FakeClient(at_once=True)
    bench = Bench(client, rate=0.5)
    times: list[float] = []
    bench.on_entry = lambda _: times.append(float(bench.scheduler.clock))
    for number in range(1, 100):
        bench.emit(number / 10, at=number / 10)
    bench.scheduler.advance_to(30)
    assert times == [0.1, 2.1, 4.1, 6.1, 8.1, 10.1]
    assert client.puts == [0.1, 2.0, 4.0, 6.0, 8.0, 9.9]  # at a tie the tick comes first
    assert sum(1 + entry.skipped for entry in bench.entries) == 99


def test_the_next_put_follows_a_slow_one_at_once() -> None:
    bench = Bench(rate=1.0)
    bench.emit(1, 2, at=1)
    bench.scheduler.advance_to(5)
    bench.client.reply()
    assert bench.client.puts == [1, 2]


def test_numbers_outside_the_limits_are_clamped() -> None:
    bench = Bench(FakeClient(at_once=True))
    for time, value in enumerate([10, 10.5, -11, INF, -10.0], start=1):
        bench.emit(value, at=time)
    assert bench.client.puts == [10, 10, -10, -10.0]
    outcomes = [outcome for _, _, outcome, _ in bench.log()]
    assert outcomes == ["written", "clamped", "clamped", "refused", "written"]


def test_numbers_outside_the_limits_are_refused() -> None:
    bench = Bench(FakeClient(at_once=True), on_limit="refuse")
    bench.emit(10.5, at=1)
    bench.emit(5, at=2)
    assert bench.client.puts == [5]
    refused = bench.entries[0]
    assert (refused.value, refused.outcome) == (None, PutOutcome.REFUSED)
    assert str(refused.error) == "pva://set:x: 10.5 is outside -10 to 10"


@pytest.mark.parametrize(
    "value", [NAN, INF, -INF, np.float32("nan"), None, "5", [5.0], np.asarray([5.0]), update("x", 5.0), 5j]
)
@pytest.mark.parametrize("limits", [(-10, 10), OPEN])
def test_items_other_than_finite_numbers_are_never_written(value: Any, limits: tuple[float, float]) -> None:
    bench = Bench(FakeClient(at_once=True), limits=limits)
    bench.emit(value)
    assert bench.client.puts == []
    assert [entry.outcome for entry in bench.entries] == [PutOutcome.REFUSED]
    assert isinstance(bench.entries[0].error, ValueError)


@pytest.mark.parametrize("value", [np.float64(2), np.float32(2), np.int16(2), np.asarray(2.0), 2, True])
def test_all_number_types_are_written_as_python_numbers(value: Any) -> None:
    bench = Bench(FakeClient(at_once=True))
    bench.emit(value)
    (put,) = bench.client.puts
    assert put == value
    assert type(put).__module__ == "builtins" or isinstance(put, float)


def test_a_refusal_drops_the_waiting_number() -> None:
    bench = Bench(FakeClient(at_once=True))
    bench.emit(1, 2, NAN, at=1)
    bench.scheduler.advance_to(10)
    assert bench.client.puts == [1]
    assert [(outcome, skipped) for _, _, outcome, skipped in bench.log()] == [("written", 0), ("refused", 1)]


def test_a_dry_run_does_everything_except_puts() -> None:
    bench = Bench(dry_run=True)
    bench.emit(50, 1, 2, at=1)
    bench.emit(NAN, at=1.5)
    bench.emit(3, at=1.6)
    bench.scheduler.advance_to(10)
    assert bench.client.puts == []
    found = [(value, outcome, skipped) for _, value, outcome, skipped in bench.log()]
    assert found == [(10, "dry_run", 0), (None, "refused", 2), (3, "dry_run", 0)]


def test_a_failed_put_is_reported_and_not_repeated() -> None:
    bench = Bench(rate=1000.0)
    bench.emit(1, at=1)
    error = OperationTimeout("put", "pva://set:x", 3.0)
    bench.client.pending.pop().on_error(error)
    bench.scheduler.advance_to(100)
    assert bench.client.puts == [1]
    bench.emit(2)
    bench.client.reply()
    assert bench.log() == [(1, 1, "failed", 0), (2, 2, "written", 0)]
    assert bench.entries[0].error is error


def test_a_client_that_raises_at_the_call_fails_the_put() -> None:
    class Raising:
        def put_stream(self, uri: str, value: object, timeout: float | None = None) -> Observable[Any]:
            raise ValueError("no such thing")

    bench = Bench(Raising())
    bench.emit(1)
    assert [(entry.outcome, str(entry.error)) for entry in bench.entries] == [(PutOutcome.FAILED, "no such thing")]
    assert bench.ends == []


def test_a_put_without_a_reply_fails() -> None:
    bench = Bench()
    bench.emit(1)
    bench.client.pending.pop().on_completed()
    assert bench.log() == [(1, 1, "failed", 0)]
    assert "without a reply" in str(bench.entries[0].error)


def test_a_closed_client_ends_the_stream() -> None:
    bench = Bench(rate=1000.0)
    bench.emit(1, 2)
    error = ClientClosedError("closed")
    bench.client.pending.pop().on_error(error)
    assert bench.log() == [(1, 1, "failed", 0)]
    assert bench.ends == [error]
    assert not bench.source.observers
    bench.scheduler.advance_to(10)
    assert bench.client.puts == [1]


def test_an_exception_in_an_operator_before_ends_the_writing(caplog: pytest.LogCaptureFixture) -> None:
    client = FakeClient(at_once=True)
    scheduler = TestScheduler()
    source: Subject[float] = Subject()
    ends: list[Any] = []
    divided = source.pipe(ops.map(lambda x: 1 / x), put_to(client, "pva://set:x", limits=OPEN, rate=1.0))
    divided.subscribe(on_error=ends.append, scheduler=scheduler)
    source.on_next(1)
    source.on_next(2)  # waits for the rate
    with caplog.at_level(logging.ERROR):
        source.on_next(0)
    source.on_next(4)
    scheduler.advance_to(100)
    assert client.puts == [1.0]
    assert [type(end) for end in ends] == [ZeroDivisionError]
    assert "no more puts" in caplog.text


def test_an_error_of_the_source_drops_the_reply_in_flight() -> None:
    bench = Bench()
    bench.emit(1, 2)
    bench.source.on_error(KeyError("x"))
    assert bench.client.left == 1
    bench.scheduler.advance_to(10)
    assert bench.client.puts == [1]
    assert bench.entries == []


@pytest.mark.parametrize("at_once", [False, True])
def test_an_exception_of_the_subscriber_ends_the_writing(at_once: bool) -> None:
    client = FakeClient(at_once=at_once)
    bench = Bench(client, rate=1000.0)

    def raising(entry: PutReport) -> None:
        raise ArithmeticError(entry.wanted)

    bench.on_entry = raising
    bench.emit(1, 2)
    if not at_once:
        client.reply()
    bench.emit(3)
    bench.scheduler.advance_to(100)
    assert client.puts == [1]
    assert [type(end) for end in bench.ends] == [ArithmeticError]
    assert not bench.source.observers


def test_an_exception_of_the_subscriber_at_a_refusal_ends_the_writing() -> None:
    bench = Bench(FakeClient(at_once=True))

    def raising(entry: PutReport) -> None:
        raise ArithmeticError(entry.wanted)

    bench.on_entry = raising
    bench.emit(NAN, 2)
    assert bench.client.puts == []
    assert [type(end) for end in bench.ends] == [ArithmeticError]


def test_after_dispose_nothing_is_sent() -> None:
    bench = Bench()
    bench.emit(1, 2)
    bench.subscription.dispose()
    assert bench.client.left == 1
    bench.client.pending[0].on_next("late")
    bench.scheduler.advance_to(100)
    bench.emit(3)
    assert bench.client.puts == [1]
    assert bench.entries == []


def test_dispose_within_a_report_prevents_the_next_put() -> None:
    bench = Bench(rate=1000.0)
    bench.on_entry = lambda _: bench.subscription.dispose()
    bench.emit(1, 2)
    bench.scheduler.advance_to(5)
    bench.client.reply()
    bench.scheduler.advance_to(100)
    assert bench.client.puts == [1]


def test_a_subscriber_may_feed_the_source() -> None:
    bench = Bench(FakeClient(at_once=True), rate=10.0)
    bench.on_entry = lambda entry: bench.emit(entry.wanted + 1) if entry.wanted < 4 else None
    bench.emit(1)
    bench.scheduler.advance_to(10)
    assert bench.client.puts == [1, 2, 3, 4]


def test_the_waiting_number_is_written_after_completion() -> None:
    bench = Bench(FakeClient(at_once=True))
    bench.emit(1, 2, at=1)
    bench.source.on_completed()
    assert bench.ends == []
    bench.scheduler.advance_to(1.9)
    assert bench.client.puts == [1]
    bench.scheduler.advance_to(2)
    assert bench.client.puts == [1, 2]
    assert bench.ends == ["completed"]


def test_completion_waits_for_the_reply() -> None:
    bench = Bench()
    bench.emit(1)
    bench.source.on_completed()
    assert bench.ends == []
    bench.client.reply()
    assert bench.log() == [(1, 1, "written", 0)]
    assert bench.ends == ["completed"]


def test_an_idle_stream_completes_at_once() -> None:
    bench = Bench(dry_run=True)
    bench.emit(1)
    bench.source.on_completed()
    assert bench.ends == ["completed"]
    scheduler = TestScheduler()
    ends: list[str] = []
    writing = rx.of(1, 2).pipe(put_to(FakeClient(), "pva://x", limits=OPEN, dry_run=True))
    writing.subscribe(on_completed=lambda: ends.append("completed"), scheduler=scheduler)
    scheduler.advance_to(0.5)
    assert ends == []
    scheduler.advance_to(2)
    assert ends == ["completed"]


def test_reports_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(FakeClient(at_once=True))
    with caplog.at_level(logging.DEBUG, "k2eg_rx.operators.put_to"):
        for time, value in enumerate([1.5, 11, 12, NAN, NAN, 2.5], start=1):
            bench.emit(value, at=time)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "put written: uri=pva://set:x value=1.5 wanted=1.5"),
        ("WARNING", "put clamped: uri=pva://set:x value=10 wanted=11"),
        ("DEBUG", "put clamped: uri=pva://set:x value=10 wanted=12"),
        ("WARNING", "put refused: uri=pva://set:x value=None wanted=nan error=number must be finite, got nan"),
        ("DEBUG", "put refused: uri=pva://set:x value=None wanted=nan error=number must be finite, got nan"),
        ("INFO", "put written: uri=pva://set:x value=2.5 wanted=2.5"),
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        {"limits": (1, 0)},
        {"limits": (NAN, 1)},
        {"limits": (0, NAN)},
        {"limits": 5},
        {"limits": (1, 2, 3)},
        {"limits": ("a", 1)},
        {"limits": (0, 1), "rate": 0},
        {"limits": (0, 1), "on_limit": "hope"},
        {"limits": (0, 1), "rate": math.inf},
    ],
)
def test_bad_arguments_raise_at_the_call(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"limit|rate"):
        put_to(FakeClient(), "pva://x", **arguments)


def test_an_invalid_uri_raises_at_the_call() -> None:
    with pytest.raises(ValueError, match="protocol"):
        put_to(FakeClient(), "set:x", limits=(0, 1))


# inputs


def connection(state: str, uri: str = "pva://in:x") -> ConnectionEvent:
    return ConnectionEvent(uri.partition("://")[2], uri, PVState(state), 0, reason="gone")


def staleness(*, is_stale: bool) -> Staleness:
    return Staleness("in:x", is_stale, 5.0, None)


@pytest.mark.parametrize(
    ("lost", "back", "reason"),
    [
        (connection("disconnected"), connection("connected"), "input pva://in:x is disconnected: gone"),
        (connection("never_connected"), connection("connected"), "input pva://in:x was never connected"),
        (staleness(is_stale=True), staleness(is_stale=False), "input in:x is stale"),
    ],
)
def test_numbers_are_refused_while_an_input_is_missing(lost: Any, back: Any, reason: str) -> None:
    inputs: Subject[Any] = Subject()
    bench = Bench(FakeClient(at_once=True), inputs=inputs)
    inputs.on_next(connection("connected"))
    bench.emit(1, at=1)
    inputs.on_next(lost)
    bench.emit(2, at=3)
    inputs.on_next(connection("connected", "pva://in:y"))
    bench.emit(3, at=5)
    inputs.on_next(back)
    bench.emit(4, at=7)
    assert bench.client.puts == [1, 4]
    assert bench.log() == [(1, 1, "written", 0), (2, None, "refused", 0), (3, None, "refused", 0), (4, 4, "written", 0)]
    assert str(bench.entries[1].error) == f"pva://set:x: {reason}"


def test_a_waiting_number_is_refused_when_an_input_is_lost() -> None:
    inputs: Subject[Any] = Subject()
    bench = Bench(FakeClient(at_once=True), inputs=inputs)
    bench.emit(1, 20, at=1)
    inputs.on_next(connection("disconnected"))
    bench.source.on_completed()
    bench.scheduler.advance_to(9)
    assert bench.client.puts == [1]
    assert bench.log() == [(1, 1, "written", 0), (20, None, "refused", 0)]
    assert bench.ends == ["completed"]


def test_the_state_of_an_input_is_known_before_the_first_number() -> None:
    bench = Bench(FakeClient(at_once=True), inputs=rx.concat(rx.of(connection("disconnected")), rx.never()))
    bench.emit(1, at=1)
    assert bench.client.puts == []


def test_all_numbers_are_refused_after_the_end_of_the_inputs() -> None:
    inputs: Subject[Any] = Subject()
    bench = Bench(FakeClient(at_once=True), inputs=inputs)
    bench.emit(1, 2, at=1)
    inputs.on_completed()
    bench.emit(3, at=5)
    assert bench.client.puts == [1]
    assert str(bench.entries[-1].error) == "pva://set:x: the stream of inputs has ended"


def test_an_error_of_the_inputs_ends_the_writing() -> None:
    inputs: Subject[Any] = Subject()
    bench = Bench(FakeClient(at_once=True), inputs=inputs)
    bench.emit(1, 2, at=1)
    inputs.on_error(OSError("gone"))
    bench.scheduler.advance_to(9)
    assert bench.client.puts == [1]
    assert [type(end) for end in bench.ends] == [OSError]


def test_inputs_of_another_kind_end_the_writing() -> None:
    inputs: Subject[Any] = Subject()
    bench = Bench(FakeClient(at_once=True), inputs=inputs)
    inputs.on_next(update("in:x", 1))
    bench.emit(1, at=1)
    assert bench.client.puts == []
    assert [str(end)[:51] for end in bench.ends] == ["inputs must emit ConnectionEvent or Staleness, got "]


def test_inputs_must_be_an_observable() -> None:
    with pytest.raises(ValueError, match="inputs must be an Observable"):
        Bench(inputs=["pva://in:x"])


def test_inputs_are_left_with_the_stream() -> None:
    inputs: Subject[Any] = Subject()
    bench = Bench(inputs=inputs)
    assert inputs.observers
    bench.subscription.dispose()
    assert not inputs.observers
