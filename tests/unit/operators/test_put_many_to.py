"""`put_many_to`, in virtual time: with a client whose results the test sends, and with a scripted gateway."""

import math
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from reactivex import Observable, abc
from reactivex.disposable import Disposable
from reactivex.subject import Subject
from reactivex.testing import TestScheduler

from k2eg_rx import Client
from k2eg_rx.errors import ClientClosedError, OperationTimeout, PutWithheldError
from k2eg_rx.operators import LoopChange, PutOutcome, PutStepReport, put_many_to
from k2eg_rx.protocol import ConnectionEvent, PVState
from k2eg_rx.testing import ScriptedGateway, update

pytest_plugins = ["k2eg_rx.testing.fixtures"]

A, B = "pva://a", "pva://b"
NAN = float("nan")


def connection(uri: str, state: str = "connected") -> ConnectionEvent:
    return ConnectionEvent(uri.partition("://")[2], uri, PVState(state), 0, reason="gone")


class Bench:
    """A client whose results the test sends, and the stream of steps."""

    def __init__(self, *, connected: bool = True, at_once: bool = False, **arguments: Any) -> None:
        self.at_once = at_once
        self.steps: list[dict[str, Any]] = []
        self.calls: list[tuple[float | None, bool]] = []
        self.pending: list[abc.ObserverBase[Any]] = []
        self.connections: Subject[ConnectionEvent] = Subject()
        self.scheduler = TestScheduler()
        self.source: Subject[Any] = Subject()
        self.reports: list[PutStepReport] = []
        self.changes: list[LoopChange] = []
        self.ends: list[Any] = []
        options: dict[str, Any] = {"limits": (-10, 10), "rate": 1.0, "on_state": self.changes.append} | arguments
        self.subscription = self.source.pipe(put_many_to(self, [A, B], **options)).subscribe(
            self.reports.append, self.ends.append, lambda: self.ends.append("completed"), scheduler=self.scheduler
        )
        for uri in (A, B) if connected else ():
            self.connections.on_next(connection(uri))

    def connection_stream(self, uris: Iterable[str]) -> Observable[ConnectionEvent]:
        assert list(uris) == [A, B]
        return self.connections

    def get_many_stream(self, uris: Iterable[str], timeout: float | None = None) -> Observable[Any]:
        raise AssertionError("without max_step nothing is read")

    def put_many_stream(
        self, values: Mapping[str, object], timeout: float | None = None, *, all_or_none: bool
    ) -> Observable[Any]:
        def subscribe(observer: abc.ObserverBase[Any], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            self.steps.append(dict(values))
            self.calls.append((timeout, all_or_none))
            self.pending.append(observer)
            if self.at_once:
                self.finish()
            return Disposable()

        return Observable(subscribe)

    def result(self, uri: str, error: Exception | None = None) -> None:
        self.pending[0].on_next(SimpleNamespace(uri=uri, error=error))

    def finish(self, **errors: Exception) -> None:
        for uri in (B, A):  # in any order
            self.result(uri, errors.get(uri[6:]))
        self.pending.pop(0).on_completed()

    def emit(self, *items: Any, at: float) -> None:
        self.scheduler.advance_to(at)
        for item in items:
            self.source.on_next(item)

    @property
    def outcomes(self) -> list[str]:
        return [report.outcome.value for report in self.reports]


@pytest.mark.parametrize(
    "item", [[1.5, -2], (1.5, -2), np.array([1.5, -2.0]), np.array([1.5, -2], dtype=object), {B: -2, A: 1.5}]
)
def test_a_vector_is_one_step(item: Any) -> None:
    bench = Bench(timeout=3.0)
    bench.emit(item, at=2)
    assert (bench.steps, bench.calls, bench.reports) == ([{A: 1.5, B: -2}], [(3.0, True)], [])
    assert list(bench.steps[0]) == [A, B]
    assert all(type(number) in (int, float) for number in bench.steps[0].values())
    bench.result(B)
    assert bench.reports == []  # before all results are there
    bench.pending[0].on_next(SimpleNamespace(uri=A, error=None))
    bench.pending[0].on_completed()
    report = bench.reports[0]
    assert (report.uris, report.values, report.outcome) == ((A, B), {A: 1.5, B: -2}, PutOutcome.WRITTEN)
    assert (report.error, report.errors, report.skipped, report.time.timestamp()) == (None, {}, 0, 2.0)


@pytest.mark.parametrize(
    ("item", "text", "faults"),
    [
        ([1, NAN], "pva://b: number must be finite, got nan", {B}),
        (np.array([math.inf, NAN]), "pva://a: number must be finite, got inf", {A, B}),
        ([1, "2"], "pva://b: item must be a number, got str", {B}),
        ([1, None], "pva://b: item must be a number, got NoneType", {B}),
        ([update("b", 1.0), 1], "pva://a: item is an update", {A}),
        ([1], "vector must have 2 numbers, one for each PV, got 1", set()),
        ([1, 2, 3], "vector must have 2 numbers, one for each PV, got 3", set()),
        ({A: 1}, "'pva://b'", set()),
        ({A: 1, B: 2, "pva://c": 3}, "'pva://c'", set()),
        (1.0, "item must be a vector", set()),
        ("12", "item must be a vector", set()),
        ({1.0, 2.0}, "item must be a vector", set()),
        (np.ones((2, 1)), "item must be a vector", set()),
        (np.float64(1.0), "item must be a vector", set()),
    ],
)
def test_a_wrong_number_or_shape_refuses_the_whole_step(item: Any, text: str, faults: set[str]) -> None:
    bench = Bench(at_once=True)
    bench.emit([1, 1], [2, 2], at=0)
    bench.emit(item, at=0.5)  # drops the step that waits
    bench.scheduler.advance_to(5)
    assert bench.steps == [{A: 1, B: 1}]
    report = bench.reports[-1]
    assert (report.outcome, report.values, report.skipped, set(report.errors)) == ("refused", None, 1, faults)
    assert str(report.error).startswith("pva://a and 1 more: ")
    assert text in str(report.error)


def test_limits_are_those_of_each_pv() -> None:
    bench = Bench(at_once=True, limits={A: (0, 1), B: (-5, 5)})
    bench.emit([2, -7], at=0)
    bench.emit([0.5, 3], at=1)
    assert bench.steps == [{A: 1, B: -5}, {A: 0.5, B: 3}]
    assert bench.outcomes == ["clamped", "written"]


def test_one_number_outside_its_limits_refuses_the_step() -> None:
    bench = Bench(at_once=True, on_limit="refuse")
    bench.emit([2, 11], at=0)
    assert bench.steps == []
    assert set(bench.reports[0].errors) == {B}
    assert "pva://b: 11 is outside -10 to 10" in str(bench.reports[0].error)


def test_no_step_begins_before_the_one_before_has_ended() -> None:
    bench = Bench(rate=1000.0)
    bench.emit([1, 1], at=1)
    bench.emit([2, 2], [3, 3], at=2)
    bench.result(A)
    assert bench.steps == [{A: 1, B: 1}]
    bench.pending[0].on_next(SimpleNamespace(uri=B, error=OperationTimeout("put", B, 5.0, "may still be")))
    assert bench.steps == [{A: 1, B: 1}]
    bench.pending.pop(0).on_completed()
    assert bench.steps == [{A: 1, B: 1}, {A: 3, B: 3}]
    bench.finish()
    assert [(report.outcome.value, report.skipped) for report in bench.reports] == [("partial", 0), ("written", 1)]


def test_a_part_that_failed_is_reported_and_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.emit([1, 2], at=0)
    bench.finish(b=OSError("no"))
    bench.scheduler.advance_to(60)
    report = bench.reports[0]
    assert (report.outcome, report.values) == (PutOutcome.PARTIAL, {A: 1, B: 2})
    assert str(report.error) == "pva://a and 1 more: not confirmed: pva://b: no"
    assert {uri: str(error) for uri, error in report.errors.items()} == {B: "no"}
    assert bench.steps == [{A: 1, B: 2}]
    assert "put partial: uri=pva://a and 1 more" in caplog.text


def test_a_step_that_failed_as_a_whole_is_failed() -> None:
    bench = Bench()
    bench.emit([1, 2], at=0)
    bench.finish(a=OSError("x"), b=OSError("y"))
    assert bench.outcomes == ["failed"]
    bench.emit([1, 2], at=5)
    bench.pending[0].on_error(OSError("down"))
    assert {uri: str(error) for uri, error in bench.reports[-1].errors.items()} == {A: "down", B: "down"}


def test_a_step_that_was_withheld_is_refused() -> None:
    bench = Bench()
    bench.emit([1, 2.5], at=0)
    bench.finish(a=PutWithheldError(B, "does not fit"), b=ValueError("does not fit"))
    report = bench.reports[0]
    assert (report.outcome, report.values, set(report.errors)) == (PutOutcome.REFUSED, None, {B})
    assert str(report.error) == "pva://a and 1 more: nothing was written: pva://b: does not fit"


def test_a_closed_client_ends_the_stream() -> None:
    bench = Bench()
    bench.emit([1, 2], [3, 4], at=0)
    bench.result(A)
    bench.pending.pop(0).on_completed()  # without a result of B, which was not sent
    assert bench.outcomes == ["partial"]
    assert isinstance(bench.ends[0], ClientClosedError)
    bench.scheduler.advance_to(9)
    assert len(bench.steps) == 1


def test_steps_are_refused_until_all_pvs_are_connected() -> None:
    bench = Bench(connected=False, at_once=True)
    bench.emit([1, 1], at=0)
    bench.connections.on_next(connection(A))
    bench.emit([2, 2], at=2)
    bench.connections.on_next(connection(B))
    bench.emit([3, 3], at=4)
    bench.connections.on_next(connection(A, "disconnected"))
    bench.emit([4, 4], at=6)
    assert bench.steps == [{A: 3, B: 3}]
    assert [str(report.error).partition(": ")[2] for report in bench.reports if report.error] == [
        "target pva://a is not known to be connected",
        "target pva://b is not known to be connected",
        "target pva://a is disconnected: gone",
    ]


def test_a_step_that_waits_when_a_pv_is_lost_is_never_written() -> None:
    bench = Bench(at_once=True)
    bench.emit([1, 1], [2, 2], at=0)
    bench.connections.on_next(connection(B, "disconnected"))
    bench.connections.on_next(connection(B))
    bench.scheduler.advance_to(9)
    assert bench.steps == [{A: 1, B: 1}]
    assert [(change.state.value, change.reason) for change in bench.changes] == [
        ("open", "target pva://a is not known to be connected"),
        ("open", "target pva://b is not known to be connected"),
        ("closed", ""),
        ("open", "target pva://b is disconnected: gone"),
        ("closed", ""),
    ]
    assert {change.uri for change in bench.changes} == {"pva://a and 1 more"}


def test_the_end_of_the_connections_refuses_steps() -> None:
    bench = Bench(at_once=True)
    bench.connections.on_completed()
    bench.emit([1, 1], at=0)
    assert bench.steps == []
    assert "the stream of the targets' connections has ended" in str(bench.reports[0].error)


def test_a_dry_run_sends_nothing() -> None:
    bench = Bench(dry_run=True)
    bench.emit([1, 20], at=0)
    assert (bench.steps, bench.outcomes, bench.reports[0].values) == ([], ["dry_run"], {A: 1, B: 10})


def test_permit_and_stop_on_are_those_of_put_to() -> None:
    permit: Subject[bool] = Subject()
    stop: Subject[bool] = Subject()
    bench = Bench(at_once=True, permit=permit, stop_on=stop)
    bench.emit([1, 1], at=0)
    permit.on_next(True)
    bench.emit([2, 2], at=2)
    stop.on_next(True)
    bench.emit([3, 3], at=4)
    assert bench.steps == [{A: 2, B: 2}]
    assert bench.changes[-1].state == "tripped"


def test_after_dispose_nothing_is_sent() -> None:
    bench = Bench()
    bench.emit([1, 1], [2, 2], at=0)
    bench.subscription.dispose()
    bench.finish()
    bench.scheduler.advance_to(9)
    assert (len(bench.steps), bench.reports) == (1, [])


@pytest.mark.parametrize(
    ("uris", "arguments", "text"),
    [
        ([], {}, "must not be empty"),
        ([A, A], {}, "uris must name each PV once"),
        ([A, "ca://a"], {}, "uris must name each PV once"),
        ([A, "pva://a.VAL"], {}, "uris must name each PV once"),
        (A, {}, "a list of PV URIs"),
        ([A, B], {"limits": {A: (0, 1)}}, "limits must have the URIs of the PVs.*pva://b"),
        ([A, B], {"limits": {A: (0, 1), B: (1, 0)}}, "limits must be a pair"),
        ([A, B], {"max_step": {A: 1}}, "max_step must have the URIs"),
        ([A, B], {"max_step": {A: 1, B: 0}}, "max_step must be a finite number above 0"),
        ([A, B], {"max_step": 1, "on_step": "hope"}, "on_step must be 'refuse' or 'clip'"),
    ],
)
def test_bad_arguments_raise_at_the_call(uris: Any, arguments: dict[str, Any], text: str) -> None:
    client: Any = SimpleNamespace(put_many_stream=print, get_many_stream=print, connection_stream=print)
    options: dict[str, Any] = {"limits": (0, 1)} | arguments
    with pytest.raises(ValueError, match=text):
        put_many_to(client, uris, **options)


def test_the_client_must_have_its_methods() -> None:
    client: Any = SimpleNamespace(put_many_stream=print, get_many_stream=print)
    with pytest.raises(ValueError, match="client must have the method connection_stream"):
        put_many_to(client, [A], limits=(0, 1))


class Magnets:
    """Three PVs of a scripted gateway, the last one an integer, and steps of a client."""

    def __init__(self, gateway: ScriptedGateway, client: Client, **arguments: Any) -> None:
        self.gateway = gateway
        self.pvs = [gateway.pv("a", 1.0), gateway.pv("b", 1.0), gateway.pv("c", 1)]
        self.source: Subject[Any] = Subject()
        self.reports: list[PutStepReport] = []
        steps = put_many_to(client, [A, B, "pva://c"], limits=(-10, 10), **arguments)
        self.source.pipe(steps).subscribe(self.reports.append)
        gateway.settle()

    def emit(self, *vector: float) -> PutStepReport:
        self.source.on_next(vector)
        self.gateway.advance(30.0)
        return self.reports[-1]

    @property
    def puts(self) -> list[list[Any]]:
        return [pv.puts for pv in self.pvs]


def test_a_value_that_does_not_fit_its_pv_writes_none(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> None:
    magnets = Magnets(k2eg_gateway, k2eg_client)
    report = magnets.emit(2.0, 3.0, 4.5)
    assert magnets.puts == [[], [], []]
    assert (report.outcome, set(report.errors)) == (PutOutcome.REFUSED, {"pva://c"})
    assert magnets.emit(2.0, 3.0, 4).outcome == "written"  # now the types are known
    assert magnets.emit(3.0, 4.0, 5.5).outcome == "refused"
    assert magnets.puts == [[2.0], [3.0], [4]]


def test_a_lost_pv_writes_none(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> None:
    magnets = Magnets(k2eg_gateway, k2eg_client)
    magnets.emit(2.0, 3.0, 4)
    magnets.pvs[1].disconnect()
    k2eg_gateway.settle()
    report = magnets.emit(3.0, 4.0, 5)
    assert report.outcome == "refused"
    assert "target pva://b is disconnected" in str(report.error)
    magnets.pvs[1].connect()
    k2eg_gateway.settle()
    assert magnets.emit(4.0, 5.0, 6).outcome == "written"
    assert magnets.puts == [[2.0, 4.0], [3.0, 5.0], [4, 6]]


def test_a_put_that_the_gateway_refuses_is_named(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> None:
    magnets = Magnets(k2eg_gateway, k2eg_client)
    k2eg_gateway.faults.refuse("put", "b", message="no access")
    report = magnets.emit(2.0, 3.0, 4)
    assert (report.outcome, set(report.errors)) == (PutOutcome.PARTIAL, {B})
    assert "no access" in str(report.error)
    assert magnets.emit(2.5, 3.5, 5).outcome == "written"
    assert magnets.puts == [[2.0, 2.5], [3.5], [4, 5]]


def test_steps_are_limited_from_the_values_of_the_pvs(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> None:
    magnets = Magnets(k2eg_gateway, k2eg_client, max_step={A: 1.0, B: 2.0, "pva://c": 1})
    report = magnets.emit(1.5, 3.5, 1)
    assert (report.outcome, set(report.errors)) == (PutOutcome.REFUSED, {B})
    assert "pva://b: the change from 1 to 3.5 is larger than max_step 2" in str(report.error)
    assert magnets.emit(1.5, 3.0, 1).outcome == "written"
    assert magnets.emit(2.5, 5.0, 2).outcome == "written"
    assert magnets.puts == [[1.5, 2.5], [3.0, 5.0], [1, 2]]


def test_a_clipped_step_fits_an_integer(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> None:
    magnets = Magnets(k2eg_gateway, k2eg_client, max_step=2, on_step="clip")
    assert magnets.emit(1.0, 3.0, 9).outcome == "clipped"
    assert magnets.puts == [[1.0], [1.5], [3]]


def test_a_value_that_cannot_be_read_trips_the_loop(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> None:
    k2eg_gateway.faults.refuse("get", "b", message="no access")
    magnets = Magnets(k2eg_gateway, k2eg_client, max_step=1.0)
    report = magnets.emit(1.5, 1.5, 1)
    assert report.outcome == "refused"
    assert "the value to start from is not known: get of pva://b: " in str(report.error)
    assert magnets.puts == [[], [], []]
