"""What opens, closes and trips the loop of `put_to`, in virtual time."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import reactivex as rx
from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import Disposable
from reactivex.subject import Subject
from reactivex.testing import TestScheduler

from k2eg_rx import Client, PVUpdate
from k2eg_rx.errors import ClientClosedError
from k2eg_rx.operators import AlarmTransition, LoopChange, PutReport, Staleness, alarms, put_to, stale, value
from k2eg_rx.operators.put_loop import LoopConditions, Standing
from k2eg_rx.protocol import ConnectionEvent, PVState, ReplayedUpdate, Severity
from k2eg_rx.pv import PVAddress
from k2eg_rx.testing import ScriptedGateway, update

pytest_plugins = ["k2eg_rx.testing.fixtures"]


def at_once(*items: Any) -> Observable[Any]:
    """Returns a stream that emits at the subscription, without a scheduler, and then waits."""

    def subscribe(observer: abc.ObserverBase[Any], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        for item in items:
            observer.on_next(item)
        return Disposable()

    return Observable(subscribe)


class Loop:
    """A loop whose numbers and conditions the test emits; puts are confirmed at once."""

    def __init__(self, *, rate: float = 1.0, **arguments: Any) -> None:
        self.scheduler = TestScheduler()
        self.source: Subject[float] = Subject()
        self.puts: list[Any] = []
        self.reports: list[tuple[Any, str, str]] = []
        self.changes: list[LoopChange] = []
        self.ends: list[Any] = []
        self.on_report: Callable[[PutReport], None] = lambda _: None
        arguments = {"on_state": self.changes.append} | arguments
        operator = put_to(self, "pva://set:x", limits=(-10, 10), rate=rate, **arguments)
        self.subscription = self.source.pipe(operator).subscribe(
            self.take, self.ends.append, lambda: self.ends.append("completed"), scheduler=self.scheduler
        )

    def put_stream(self, uri: str, value: object, timeout: float | None = None) -> Observable[Any]:
        def send(observer: abc.ObserverBase[Any], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            self.puts.append(value)
            return at_once("done").subscribe(observer)

        return Observable(send)

    def take(self, report: PutReport) -> None:
        self.reports.append((report.wanted, report.outcome.value, str(report.error or "")))
        self.on_report(report)

    def emit(self, *numbers: float, at: float) -> None:
        self.scheduler.advance_to(at)
        for number in numbers:
            self.source.on_next(number)

    @property
    def states(self) -> list[tuple[str, str]]:
        return [(change.state.value, change.reason) for change in self.changes]


def connection(state: str, uri: str = "pva://mode") -> ConnectionEvent:
    return ConnectionEvent(uri.partition("://")[2], uri, PVState(state), 0, reason="gone")


UP, DOWN = connection("connected"), connection("disconnected")
ON, OFF = update("mode", 1), update("mode", 0)


def test_without_conditions_a_loop_is_closed_until_its_stream_ends() -> None:
    loop = Loop()
    loop.emit(1, at=1)
    loop.source.on_completed()
    assert loop.puts == [1]
    assert loop.states == [("closed", ""), ("open", "the stream has ended")]


def test_nothing_is_written_before_the_permit_is_known() -> None:
    permit: Subject[Any] = Subject()
    loop = Loop(permit=permit)
    loop.emit(1, at=1)
    permit.on_next(ON)
    loop.emit(2, at=3)
    permit.on_next(UP)
    loop.emit(3, at=5)
    assert loop.puts == [3]
    assert loop.states == [
        ("open", "permit has no value yet"),
        ("open", "permit mode: its connection is not known, monitor it with connection=True"),
        ("closed", ""),
    ]


@pytest.mark.parametrize(
    ("lost", "back", "reason"),
    [
        ([OFF], [ON], "permit mode is off"),
        ([update("mode", float("nan"))], [ON], "permit mode is off"),
        ([update("mode", 1, severity=3)], [ON], "permit mode is off"),
        ([DOWN], [UP, ON], "permit pva://mode is disconnected: gone"),
        ([DOWN, ON], [UP, ON], "permit pva://mode is disconnected: gone"),
        ([Staleness("mode", True, 5.0, ON)], [ON, Staleness("mode", False, 6.0, ON)], "permit mode is stale"),
        ([Staleness("mode", True, 5.0, ON)], [Staleness("mode", False, 6.0, ON)], "permit mode is stale"),
        ([False], [True], "permit mode is off"),
    ],
)
def test_the_number_that_waits_when_the_loop_opens_is_never_written(
    lost: list[Any], back: list[Any], reason: str
) -> None:
    permit: Subject[Any] = Subject()
    loop = Loop(permit=permit)
    permit.on_next(UP)
    permit.on_next(ON)
    loop.emit(1, 2, at=1)  # 2 waits for the rate
    for item in lost:
        permit.on_next(item)
    loop.emit(3, at=1.2)
    for item in back:
        permit.on_next(item)
    loop.scheduler.advance_to(9)
    assert loop.puts == [1]
    error = f"pva://set:x: {reason}"
    assert loop.reports == [(1, "written", ""), (2, "refused", error), (3, "refused", error)]
    loop.emit(4, at=10)
    assert loop.puts == [1, 4]
    assert loop.states[1:3] == [("closed", ""), ("open", reason)]
    assert loop.states[-1] == ("closed", "")


def test_a_pv_that_returns_permits_with_its_next_value_only() -> None:
    permit: Subject[Any] = Subject()
    loop = Loop(permit=permit)
    for item in (UP, ON, DOWN, ON, UP):  # the second ON is older than the loss, or the client's last known
        permit.on_next(item)
    loop.emit(1, at=1)
    permit.on_next(OFF)
    loop.emit(2, at=3)
    assert loop.puts == []
    assert loop.states[-2:] == [
        ("open", "permit mode has had no new value since it was lost"),
        ("open", "permit mode is off"),
    ]


@pytest.mark.parametrize("error", [None, OSError("gone")])
def test_nothing_is_written_after_the_end_of_the_permit(error: OSError | None) -> None:
    permit: Subject[Any] = Subject()
    loop = Loop(permit=permit)
    permit.on_next(True)
    loop.emit(1, 2, at=1)
    if error is None:
        permit.on_completed()
    else:
        permit.on_error(error)
    loop.emit(3, at=5)
    assert loop.puts == [1]
    reason = "the stream of permit has ended" if error is None else "the stream has failed: OSError('gone')"
    assert loop.states[-1] == ("open", reason)
    assert loop.ends == ([] if error is None else [error])


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (update("other", 1), "permit must be one PV, got mode and other"),
        (update("mode", "Beam"), "use permit_when"),
        (1, "permit must emit PVUpdate, ConnectionEvent, Staleness or bool, got 1"),
    ],
)
def test_a_permit_that_says_neither_on_nor_off_ends_the_writing(item: Any, text: str) -> None:
    permit: Subject[Any] = Subject()
    loop = Loop(permit=permit)
    permit.on_next(UP)
    permit.on_next(ON)
    loop.emit(1, 2, at=1)
    permit.on_next(item)
    loop.emit(3, at=5)
    assert loop.puts == [1]
    assert [type(end) for end in loop.ends] == [TypeError]
    assert text in str(loop.ends[0])
    assert loop.states[-1][0] == "open"


def test_updates_of_the_past_do_not_permit() -> None:
    permit: Subject[Any] = Subject()
    loop = Loop(permit=permit)
    permit.on_next(UP)
    permit.on_next(ReplayedUpdate(PVAddress.parse("pva://mode"), ON.record))
    loop.emit(1, at=1)
    assert loop.puts == []


def transition(severity: Severity) -> AlarmTransition:
    return AlarmTransition("loss", Severity.NO_ALARM, severity, None, 1.0, update("loss", 9.0, severity=severity))


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (update("loss", 9.0, severity=2), "loss is MAJOR"),
        (transition(Severity.INVALID), "loss is INVALID"),
        (Staleness("loss", True, 5.0, None), "stop_on loss is stale"),
        (connection("never_connected", "pva://loss"), "stop_on pva://loss was never connected"),
        (True, "stop_on has emitted True"),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_tripped_loop_stays_open_until_it_is_subscribed_to_again(item: Any, reason: str, dry_run: bool) -> None:
    stop: Subject[Any] = Subject()
    loop = Loop(stop_on=stop, dry_run=dry_run)
    for harmless in (update("loss", 1.0, severity=1), transition(Severity.NO_ALARM), UP, False):
        stop.on_next(harmless)
    loop.emit(1, 2, at=1)
    stop.on_next(item)
    for over in (update("loss", 1.0), transition(Severity.NO_ALARM), UP, Staleness("loss", False, 6.0, None), False):
        stop.on_next(over)
    loop.emit(3, at=5)
    error = f"pva://set:x: {reason}"
    outcome = "dry_run" if dry_run else "written"
    assert loop.puts == ([] if dry_run else [1])
    assert loop.reports == [(1, outcome, ""), (2, "refused", error), (3, "refused", error)]
    assert loop.states == [("closed", ""), ("tripped", reason)]


def test_a_trip_comes_before_what_opens_the_loop() -> None:
    permit: Subject[Any] = Subject()
    stop: Subject[Any] = Subject()
    loop = Loop(permit=permit, stop_on=stop)
    stop.on_next(True)
    stop.on_next(DOWN)  # the first reason stays
    permit.on_next(True)
    permit.on_next(False)
    assert loop.states == [("open", "permit has no value yet"), ("tripped", "stop_on has emitted True")]


def test_the_end_of_stop_on_trips() -> None:
    stop: Subject[Any] = Subject()
    loop = Loop(stop_on=stop)
    stop.on_completed()
    loop.emit(1, at=1)
    assert loop.puts == []
    assert loop.states[-1] == ("tripped", "the stream of stop_on has ended")


def test_stop_on_that_emits_something_else_ends_the_writing() -> None:
    stop: Subject[Any] = Subject()
    loop = Loop(stop_on=stop)
    stop.on_next("MAJOR")
    loop.emit(1, at=1)
    assert loop.puts == []
    assert [type(end) for end in loop.ends] == [TypeError]


def test_what_is_there_at_the_subscription_is_one_state() -> None:
    loop = Loop(permit=at_once(UP, OFF, ON), stop_on=rx.never(), inputs=rx.never())
    assert loop.states == [("closed", "")]
    tripped = Loop(stop_on=at_once(update("loss", 9.0, severity=2)))
    assert tripped.states == [("tripped", "loss is MAJOR")]


def test_completion_refuses_the_waiting_number_of_a_loop_that_opens() -> None:
    permit: Subject[Any] = Subject()
    loop = Loop(permit=permit)
    permit.on_next(True)
    loop.emit(1, 2, at=1)
    loop.source.on_completed()
    permit.on_next(False)
    assert loop.puts == [1]
    assert loop.ends == ["completed"]


class Elsewhere:
    """Emits items of a permit on other threads while the test's thread holds the lock of the stage."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, fails: bool = False) -> None:
        made: list[Any] = []

        class Conditions(LoopConditions):
            def __init__(self, **arguments: Any) -> None:
                super().__init__(**arguments)
                made.append(self)

        monkeypatch.setattr("k2eg_rx.operators.put_writer.LoopConditions", Conditions)
        self.permit: Subject[Any] = Subject()
        self._made = made
        self._fails = fails
        self._seen = threading.Event()
        self._threads: list[threading.Thread] = []

    def when(self, pv: PVUpdate) -> bool:
        if threading.current_thread() in self._threads:
            self._seen.set()
            if self._fails:
                raise ArithmeticError("permit_when")
        return bool(pv.value)

    def emit(self, item: PVUpdate) -> None:
        self._seen.clear()
        self._threads.append(threading.Thread(target=lambda: self.permit.on_next(item)))
        self._threads[-1].start()
        assert self._seen.wait(30)
        with self._made[-1]._lock:  # free once the item has been taken
            pass

    def join(self) -> None:
        for thread in self._threads:
            thread.join(30)


class Slow(Loop):
    """A loop whose puts the test confirms."""

    def __init__(self, **arguments: Any) -> None:
        self.replies: list[Subject[str]] = []
        super().__init__(**arguments)

    def put_stream(self, uri: str, value: object, timeout: float | None = None) -> Observable[Any]:
        self.puts.append(value)
        self.replies.append(Subject())
        return self.replies[-1]


@pytest.mark.parametrize("fails", [False, True])
def test_the_next_put_sees_a_loss_that_waits_for_the_lock(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = Elsewhere(monkeypatch, fails=fails)
    loop = Slow(rate=1.0, permit=elsewhere.permit, permit_when=elsewhere.when)
    elsewhere.permit.on_next(UP)
    elsewhere.permit.on_next(ON)
    loop.on_report = lambda report: elsewhere.emit(OFF) if report.wanted == 1 else None
    loop.emit(1, 2, at=1)  # 2 waits for the reply
    loop.scheduler.advance_to(5)
    loop.replies[0].on_next("done")
    elsewhere.join()
    assert loop.puts == [1]
    assert [outcome for _, outcome, _ in loop.reports] == ["written", "refused"]


def test_a_refusal_whose_subscriber_feeds_the_source_leaves_one_put_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = Elsewhere(monkeypatch)
    loop = Slow(rate=1.0, permit=elsewhere.permit, permit_when=elsewhere.when)
    elsewhere.permit.on_next(UP)
    elsewhere.permit.on_next(ON)

    def feed(report: PutReport) -> None:
        if report.wanted == 1:
            elsewhere.emit(OFF)
            elsewhere.emit(ON)
        elif report.wanted == 2:
            loop.source.on_next(7)
            loop.source.on_next(8)

    loop.on_report = feed
    loop.emit(1, 2, at=1)
    loop.scheduler.advance_to(5)
    loop.replies[0].on_next("done")
    elsewhere.join()
    loop.scheduler.advance_to(9)
    assert loop.puts == [1, 7]  # 8 waits for the reply


@pytest.mark.parametrize("arrives_while_open", [False, True])
def test_a_number_that_waited_for_the_lock_while_the_loop_was_opened_is_refused(
    monkeypatch: pytest.MonkeyPatch, arrives_while_open: bool
) -> None:
    permit: Subject[Any] = Subject()
    loop = Slow(rate=1.0, permit=permit)
    permit.on_next(True)
    arrived = threading.Event()
    feeding = threading.Thread(target=lambda: loop.source.on_next(2))

    def standing(conditions: Any) -> Standing:
        if threading.current_thread() is feeding:
            arrived.set()
        return conditions._standing

    monkeypatch.setattr(LoopConditions, "standing", property(standing))

    def blink(report: PutReport) -> None:
        if report.wanted == 1:
            if arrives_while_open:
                permit.on_next(False)
            feeding.start()
            assert arrived.wait(30)
            permit.on_next(False)
            permit.on_next(True)

    loop.on_report = blink
    loop.emit(1, at=1)
    loop.scheduler.advance_to(5)
    loop.replies[0].on_next("done")
    feeding.join(30)
    loop.scheduler.advance_to(9)
    assert loop.puts == [1]
    assert loop.reports[1:] == [(2, "refused", "pva://set:x: permit is off")]


def test_a_number_that_on_state_emits_at_the_end_of_the_client_is_not_sent() -> None:
    def feed(change: LoopChange) -> None:
        if "failed" in change.reason:
            loop.source.on_next(5)

    loop = Slow(on_state=feed)
    loop.emit(1, at=1)
    loop.scheduler.advance_to(5)
    loop.replies[0].on_error(ClientClosedError("closed"))
    assert loop.puts == [1]


def test_on_state_that_raises_ends_the_writing() -> None:
    def fail(change: LoopChange) -> None:
        if change.state == "closed":
            raise ArithmeticError("shown")

    permit: Subject[Any] = Subject()
    loop = Loop(permit=permit, on_state=fail)
    permit.on_next(True)
    loop.emit(1, at=1)
    assert loop.puts == []
    assert [type(end) for end in loop.ends] == [ArithmeticError]


def test_a_number_that_on_state_emits_at_the_end_is_not_written() -> None:
    def feed(change: LoopChange) -> None:
        if "failed" in change.reason:
            loop.source.on_next(5)

    permit: Subject[Any] = Subject()
    loop = Loop(permit=permit, on_state=feed)
    permit.on_next(True)
    permit.on_error(OSError("gone"))
    assert loop.puts == []


def test_after_dispose_no_state_is_shown_and_conditions_are_left() -> None:
    permit: Subject[Any] = Subject()
    stop: Subject[Any] = Subject()
    loop = Loop(permit=permit, stop_on=stop)
    permit.on_next(True)
    loop.emit(1, 2, at=1)
    loop.subscription.dispose()
    assert (permit.observers, stop.observers) == ([], [])
    loop.scheduler.advance_to(9)
    assert loop.puts == [1]
    assert loop.states == [("open", "permit has no value yet"), ("closed", "")]


def test_states_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    permit: Subject[Any] = Subject()
    with caplog.at_level("INFO", "k2eg_rx.operators.put_to"):
        Loop(permit=permit)
        permit.on_next(True)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "loop open: uri=pva://set:x reason=permit has no value yet"),
        ("INFO", "loop closed: uri=pva://set:x"),
    ]


async def is_beam_later(_: PVUpdate) -> bool:
    return False


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"permit": True}, "permit must be an Observable"),
        ({"stop_on": "MAJOR"}, "stop_on must be an Observable"),
        ({"permit_when": bool}, "permit_when must be given together with permit"),
        ({"permit": rx.never(), "permit_when": is_beam_later}, "permit_when must be a plain function"),
        ({"permit": rx.never(), "permit_when": "Beam"}, "permit_when must be callable"),
        ({"on_state": 5}, "on_state must be callable"),
    ],
)
def test_bad_conditions_raise_at_the_call(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Loop(**arguments)


# behind a client and a gateway


def is_beam(pv: PVUpdate) -> bool:
    return pv.label == "Beam"


def closed_by(k2eg_client: Client, changes: list[LoopChange], **conditions: Any) -> None:
    k2eg_client.monitor_stream("pva://orbit").pipe(
        value(),
        put_to(k2eg_client, "pva://corrector", limits=(-5.0, 5.0), rate=1.0, on_state=changes.append, **conditions),
    ).subscribe()


def test_a_loop_follows_the_mode_of_the_machine(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> None:
    mode = k2eg_gateway.pv("mode", "Beam", choices=["Off", "Standby", "Beam"])
    orbit, corrector = k2eg_gateway.pv("orbit", 0.5), k2eg_gateway.pv("corrector", 0.0)
    changes: list[LoopChange] = []
    closed_by(
        k2eg_client,
        changes,
        permit=k2eg_client.monitor_stream("pva://mode", connection=True),
        permit_when=is_beam,
    )
    k2eg_gateway.advance(2.0)
    mode.post("Standby")
    orbit.post(1.0)
    k2eg_gateway.advance(2.0)
    mode.post("Beam")
    k2eg_gateway.advance(2.0)
    assert corrector.puts == [0.5]  # 1.0 is not written now
    orbit.post(1.5)
    k2eg_gateway.advance(2.0)
    mode.disconnect()
    orbit.post(2.0)
    k2eg_gateway.advance(2.0)
    mode.connect()
    k2eg_gateway.advance(2.0)
    orbit.post(2.5)  # the mode is the same as before
    k2eg_gateway.advance(2.0)
    assert corrector.puts == [0.5, 1.5, 2.5]
    reasons = [change.reason for change in changes if change.state == "open"]
    assert "permit mode is off" in reasons
    assert any(reason.startswith("permit pva://mode is disconnected") for reason in reasons)
    assert changes[-1].state == "closed"


def test_a_silent_permit_opens_a_loop(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> None:
    beat, orbit, corrector = (
        k2eg_gateway.pv("beat", 1),
        k2eg_gateway.pv("orbit", 0.5),
        k2eg_gateway.pv("corrector", 0.0),
    )
    changes: list[LoopChange] = []
    permit = k2eg_client.monitor_stream("pva://beat", connection=True).pipe(
        ops.publish(lambda beats: rx.merge(beats, beats.pipe(stale(5.0))))
    )
    closed_by(k2eg_client, changes, permit=permit)
    k2eg_gateway.advance(1.0)
    orbit.post(1.0)
    k2eg_gateway.advance(10.0)
    orbit.post(2.0)
    k2eg_gateway.advance(2.0)
    beat.post(2)
    k2eg_gateway.advance(1.0)
    orbit.post(3.0)
    k2eg_gateway.advance(2.0)
    assert corrector.puts[-2:] == [1.0, 3.0]
    assert "permit beat is stale" in [change.reason for change in changes]


def test_an_alarm_trips_a_loop(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> None:
    loss, orbit, corrector = (
        k2eg_gateway.pv("loss", 0.1),
        k2eg_gateway.pv("orbit", 0.5),
        k2eg_gateway.pv("corrector", 0.0),
    )
    changes: list[LoopChange] = []
    closed_by(k2eg_client, changes, stop_on=k2eg_client.monitor_stream("pva://loss").pipe(alarms()))
    k2eg_gateway.advance(2.0)
    loss.post(9.0, severity=2)
    loss.post(0.1)
    k2eg_gateway.advance(1.0)
    orbit.post(1.0)
    k2eg_gateway.advance(5.0)
    assert corrector.puts == [0.5]
    assert [(change.state.value, change.reason) for change in changes] == [
        ("closed", ""),
        ("tripped", "loss is MAJOR"),
    ]
