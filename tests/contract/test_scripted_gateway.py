"""The scripted gateway as seen by clients.

It runs the real gateway and client code, so these tests hold for scripts that are tested with the kit.
"""

from __future__ import annotations

import doctest
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import reactivex as rx
from reactivex import operators as ops
from reactivex.scheduler import TimeoutScheduler

from k2eg_rx import (
    Client,
    ClientClosedError,
    ConnectionState,
    OperationError,
    OperationTimeout,
    PVAddress,
    PVUpdate,
    Scalar,
    Severity,
    Snapshot,
    SnapshotData,
    SnapshotHeader,
    SnapshotProperties,
    SnapshotTail,
    first,
)
from k2eg_rx.gateway import GatewayOptions
from k2eg_rx.history.pacing import play
from k2eg_rx.operators import stale
from k2eg_rx.protocol.commands import GetCommand, MonitorCommand, PutCommand
from k2eg_rx.settings import Settings
from k2eg_rx.testing import (
    ClockStalledError,
    EndlessLoopError,
    Faults,
    PutRejectedError,
    ScriptedGateway,
    VirtualClock,
    faults,
)
from k2eg_rx.testing import scripted_gateway as gateway_module

X = "pva://demo:x"
SECOND = 1_000_000_000


@pytest.fixture
def gateway() -> Iterator[ScriptedGateway]:
    with ScriptedGateway() as scripted:
        yield scripted


@pytest.fixture
def client(gateway: ScriptedGateway) -> Iterator[Client]:
    with gateway.client() as connected:
        yield connected


class Recorder(list[Any]):
    """Subscribes to a stream and records its items and error."""

    def __init__(self, stream: rx.Observable[Any]) -> None:
        super().__init__()
        self.error: Exception | None = None
        self.completed = False
        self.subscription = stream.subscribe(self.append, self._fail, self._complete)

    def _fail(self, error: Exception) -> None:
        self.error = error

    def _complete(self) -> None:
        self.completed = True


def values(stream: rx.Observable[Any]) -> Recorder:
    return Recorder(stream.pipe(ops.map(lambda update: update.value)))


@pytest.mark.parametrize("module", [faults, gateway_module])
def test_docstring_examples(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


# PVs


@pytest.mark.parametrize("protocol", ["pva", "ca"])
@pytest.mark.parametrize(
    ("value", "put", "then"),
    [
        (1.5, 2, 2.0),
        (1, 2, 2),
        (True, False, False),
        ("one", "two", "two"),
        ([1.0, 2.0], [3, 4, 5], [3.0, 4.0, 5.0]),
        (np.arange(3, dtype=np.int16), np.array([7], dtype=np.int16), [7]),
        (["a"], ["b", "c"], ["b", "c"]),
        ({"a": [1, 2], "b": ["x", "y"]}, {"a": [3], "b": ["z"]}, {"a": [3], "b": ["z"]}),
    ],
)
def test_a_put_is_visible_to_gets_and_monitors(
    gateway: ScriptedGateway, client: Client, protocol: str, value: object, put: object, then: object
) -> None:
    pv = gateway.pv("demo:x", value)
    seen = values(client.monitor_stream(f"{protocol}://demo:x"))
    first(client.put_stream(f"{protocol}://demo:x", put))
    assert pv.puts == [then]
    assert pv.value == then
    assert first(client.get_stream(f"{protocol}://demo:x")).value == then
    assert seen[-1] == then


def test_an_enum_is_put_by_label_and_read_as_index(gateway: ScriptedGateway, client: Client) -> None:
    mode = gateway.pv("demo:mode", "Off", choices=["Off", "On", "Auto"])
    first(client.put_stream("pva://demo:mode", "Auto"))
    assert (mode.puts, mode.label) == ([2], "Auto")
    mode.post("On")
    assert first(client.get_stream("ca://demo:mode")).value == {"index": 1, "choices": ["Off", "On", "Auto"]}
    with pytest.raises(ValueError, match="not one of its labels"):
        first(client.put_stream("pva://demo:mode", "Broken"))


def test_equal_postings_without_a_time_are_events_but_a_gateways_repetition_is_none(
    gateway: ScriptedGateway, client: Client
) -> None:
    pv = gateway.pv("demo:x", 1)
    pv.post(1, timestamp=0)
    seen = values(client.monitor_stream(X))
    for _ in range(3):
        pv.post(1, timestamp=0)
    assert seen == [1] * 4
    with gateway.client("other") as other:
        again = values(other.monitor_stream(X))
        gateway.settle()
        assert again == [1], "another activation publishes the value again"
    assert seen == [1] * 4


def test_a_put_waits_if_asked_to(gateway: ScriptedGateway, client: Client) -> None:
    motor = gateway.pv("demo:x", 1.5)
    assert not first(client.put_stream(X, 2.5)).completed
    assert first(client.put_stream(X, 3.5, wait=True)).completed
    motor.delay = 20.0  # longer than a gateway waits for other puts
    assert first(client.put_many_stream({X: 4.5}, 60.0, wait=True)).result().completed
    with pytest.raises(OperationError, match="Timeout operation: demo:x: no answer within 8 s"):
        first(client.put_stream(X, 5.5, 10.0, wait=True))


def test_a_structure_without_a_value_is_put_by_field(gateway: ScriptedGateway, client: Client) -> None:
    pv = gateway.pv("demo:s", fields={"a": 7, "sub": {"b": 1.5, "c": "x"}})
    first(client.put_stream("pva://demo:s", {"sub": {"b": 2.5}}))
    assert pv.puts == [{"sub": {"b": 2.5}}]
    assert first(client.get_stream("pva://demo:s")).data["sub"] == {"b": 2.5, "c": "x"}
    assert first(client.get_stream("pva://demo:s.sub.b")).value == 2.5


def test_a_field_of_a_structure_is_put_by_its_path(gateway: ScriptedGateway, client: Client) -> None:
    pv = gateway.pv("demo:s", fields={"sub": {"b": {"c": 1.5, "d": 2}}})
    first(client.put_stream("pva://demo:s.sub.b.c", 2.5))
    assert pv.puts == [{"sub": {"b": {"c": 2.5}}}]
    assert pv.structure("pva")["sub"] == {"b": {"c": 2.5, "d": 2}}


def test_a_field_can_be_read_and_monitored(gateway: ScriptedGateway, client: Client) -> None:
    pv = gateway.pv("demo:x", 1.0, units="A")
    gateway.pv("demo:x.HIGH", 5.0)
    seen = values(client.monitor_stream("pva://demo:x.alarm.severity"))
    pv.post(2.0, severity=2)
    assert seen == [0, 2]
    assert first(client.get_stream("pva://demo:x.HIGH")).value == 5.0
    assert first(client.get_stream("pva://demo:x.display.units")).value == "A"


def test_an_update_has_the_posted_value_alarm_and_time(gateway: ScriptedGateway, client: Client) -> None:
    pv = gateway.pv("demo:x", 1.0, units="mA", limits=(0.0, 5.0))
    seen = Recorder(client.monitor_stream(X))
    gateway.advance(2.0)
    pv.post(2.0, severity=Severity.MAJOR, message="HIHI", timestamp=123 * SECOND + 7)
    update: PVUpdate = seen[-1]
    assert (update.value, update.severity, update.timestamp, update.units) == (2.0, 2, 123 * SECOND + 7, "mA")
    assert update.data["alarm"]["message"] == "HIHI"
    assert update.data["control"]["limitHigh"] == 5.0


def test_epics_time_is_the_clocks_and_differs_for_each_value(gateway: ScriptedGateway, client: Client) -> None:
    pv = gateway.pv("demo:x", 1)
    seen = Recorder(client.monitor_stream(X))
    pv.post(1)
    pv.post(1)
    gateway.advance(1.5)
    pv.post(1)
    begin = seen[0].timestamp
    assert [update.timestamp - begin for update in seen] == [0, 1, 2, 1_500_000_000]


@pytest.mark.parametrize(("value", "wrong"), [(1.0, "text"), (1, 1.5), ([1.0], 1.0), (True, "yes")])
def test_posting_an_unsuitable_value_raises(gateway: ScriptedGateway, value: Any, wrong: Any) -> None:
    pv = gateway.pv("demo:x", value)
    with pytest.raises(ValueError, match="demo:x"):
        pv.post(wrong)


def test_a_number_keeps_its_type(gateway: ScriptedGateway, client: Client) -> None:
    pv = gateway.pv("demo:x", 1.0)
    pv.post(2)
    assert type(first(client.get_stream(X)).value) is float
    gateway.pv("demo:short", 1, kind="short")
    with pytest.raises(ValueError, match="short"):
        first(client.put_stream("pva://demo:short", 40_000))


def test_a_read_only_pv_rejects_puts(gateway: ScriptedGateway, client: Client) -> None:
    pv = gateway.pv("demo:x", 1.0, read_only=True)
    with pytest.raises(OperationError, match="demo:x is read only"):
        first(client.put_stream(X, 2.0))
    assert (pv.puts, pv.value) == ([], 1.0)


def test_the_gateway_rejects_unchecked_values(gateway: ScriptedGateway, client: Client) -> None:
    gateway.pv("demo:x", 1.0)
    for value in (Scalar("value", "text"), Scalar("nothing", 1.0)):
        with pytest.raises(OperationError) as caught:
            first(client.put_stream(X, value))
        assert caught.value.error == -2


def test_on_put_can_post_replace_and_reject(gateway: ScriptedGateway, client: Client) -> None:
    readback = gateway.pv("demo:read", 0.0)

    def moved(value: float) -> float:
        if value < 0:
            raise PutRejectedError("interlock")
        readback.post(value + 0.1)
        return min(value, 5.0)

    setpoint = gateway.pv("demo:x", 0.0, on_put=moved)
    seen = values(client.monitor_stream("pva://demo:read"))
    first(client.put_stream(X, 9.0))
    assert (setpoint.puts, setpoint.value, seen) == ([9.0], 5.0, [0.0, 9.1])
    with pytest.raises(OperationError, match="interlock"):
        first(client.put_stream(X, -1.0))
    assert setpoint.puts == [9.0]


def test_a_pv_of_one_protocol_does_not_exist_over_the_other(gateway: ScriptedGateway, client: Client) -> None:
    gateway.pv("ca://demo:x", 1.0)
    assert first(client.get_stream("ca://demo:x")).value == 1.0
    with pytest.raises(OperationError, match="Timeout"):
        first(client.get_stream(X))
    assert gateway["demo:x"] is gateway["ca://demo:x"]
    with pytest.raises(KeyError, match="existing PVs: demo:x"):
        gateway["demo:y"]
    with pytest.raises(ValueError, match="already"):
        gateway.pv("demo:x", 2.0)


@pytest.mark.parametrize("overflow", ["block", "latest", "drop_oldest"])
def test_a_client_monitors_a_pv_over_both_protocols(gateway: ScriptedGateway, client: Client, overflow: str) -> None:
    over = {protocol: gateway.pv(f"{protocol}://demo:x", protocol) for protocol in ("pva", "ca")}
    both = Recorder(client.monitor_many_stream([X, "ca://demo:x"], overflow=overflow))
    alone = values(client.monitor_stream("ca://demo:x"))
    gateway.settle()
    over["ca"].post("ca again")
    over["pva"].post("pva again")
    assert {(item.address.uri, item.value) for item in both} == {
        (X, "pva"),
        ("ca://demo:x", "ca"),
        (X, "pva again"),
        ("ca://demo:x", "ca again"),
    }
    assert alone == ["ca", "ca again"]
    with gateway.client("other") as other:  # the other way round
        late = values(other.monitor_stream("ca://demo:x"))
        gateway.settle()
        assert late == ["ca again"]
    gateway.go_down()
    gateway.come_up()
    gateway.advance(61.0)  # another gateway carries the PV under other names
    over["pva"].post("new")
    over["ca"].post("new")
    assert [item.address.uri for item in both if item.value == "new"] == [X, "ca://demo:x"]
    assert client.status.discarded == 0


def test_a_started_gateway_gets_the_monitors_and_snapshots_again_at_once(
    gateway: ScriptedGateway, client: Client
) -> None:
    pv = gateway.pv("demo:x", 1)
    seen = values(client.monitor_stream(X))
    iterations = Recorder(client.snapshot_recurring_stream(SnapshotProperties("s", [X], time_window=100)))
    gateway.advance(10.0)
    gateway.go_down()
    pv.post(2)
    gateway.advance(5.0)
    before = len(iterations)
    gateway.come_up()
    gateway.advance(2.0)
    assert seen == [1, 2]
    assert iterations[-1].data["demo:x"][0]["value"] == 2
    assert len(iterations) > before
    assert gateway.broker.topics().count("commands-gateways") == 1


def test_the_status_tells_since_when_nothing_comes_from_a_gateway(gateway: ScriptedGateway, client: Client) -> None:
    pv = gateway.pv("demo:x", 1)
    seen = values(client.monitor_stream(X))
    statuses = Recorder(client.status_stream())
    gateway.advance(300.0)  # the PV is quiet, but the gateway answers
    assert {(status.silent_since, status.reason) for status in statuses} == {(None, "")}
    gateway.go_down()
    gateway.advance(0.5)
    asked = gateway.clock.now
    Recorder(client.get_stream(X))
    gateway.advance(11.0)
    assert client.status.silent_since is None
    gateway.advance(2.0)
    assert client.status.silent_since is not None
    assert client.status.silent_since.replace(tzinfo=None) == asked.replace(tzinfo=None)
    assert "check that a gateway runs for the command topic 'commands'" in client.status.reason
    assert client.status.connection is ConnectionState.UP
    gateway.come_up()
    pv.post(2)
    gateway.advance(2.0)
    assert (client.status.silent_since, client.status.reason) == (None, "")
    assert statuses[-1].reason == ""
    assert seen == [1, 2]


def test_the_history_of_a_pv_is_that_of_the_protocol(gateway: ScriptedGateway, client: Client) -> None:
    over = {protocol: gateway.pv(f"{protocol}://demo:x", protocol) for protocol in ("pva", "ca")}
    Recorder(client.monitor_many_stream([X, "ca://demo:x"]))
    gateway.settle()
    gateway.advance(1.0)
    for protocol, pv in over.items():
        pv.post(f"{protocol} again")
    for protocol in over:
        uri = f"{protocol}://demo:x"
        past = values(client.replay_stream([uri], timedelta(hours=1)))
        since = values(client.monitor_stream(uri, since=timedelta(hours=1)))
        gateway.settle()
        assert past == since == [protocol, f"{protocol} again"]
    assert client.status.discarded == 0


# time


def test_delay_delays_gets_and_puts(gateway: ScriptedGateway, client: Client) -> None:
    gateway.pv("demo:x", 1.0, delay=3.0)
    assert first(client.get_stream(X)).value == 1.0
    assert gateway.clock.elapsed == 3.0


def test_a_put_that_times_out_in_the_gateway_is_still_executed(gateway: ScriptedGateway, client: Client) -> None:
    pv = gateway.pv("demo:x", 1.0, delay=11.0)
    with pytest.raises(OperationError, match="-3: Timeout operation"):
        first(client.put_stream(X, 2.0, check=False))
    assert (gateway.clock.elapsed, pv.puts) == (10.0, [])
    gateway.advance(1.0)
    assert pv.puts == [2.0]


def test_a_gateway_answers_before_the_timeout_of_a_hasty_client(gateway: ScriptedGateway, client: Client) -> None:
    gateway.pv("demo:x", 1.0, delay=5.0)
    with pytest.raises(OperationTimeout, match=r"no reply within 1\.6 s; the gateway is there"):
        first(client.get_stream(X, timeout=2.0))
    assert gateway.clock.elapsed == 1.6


def test_latency_delays_replies_and_events(gateway: ScriptedGateway, client: Client) -> None:
    pv = gateway.pv("demo:x", 1)
    gateway.latency = 2.0
    seen: list[tuple[float, int]] = []
    client.monitor_stream(X).subscribe(lambda update: seen.append((gateway.clock.elapsed, update.value)))
    gateway.advance(1.0)
    pv.post(2)
    gateway.latency = 0.0
    pv.post(3)  # does not overtake
    gateway.advance(9.0)
    pv.post(4)
    assert seen == [(2.0, 1), (3.0, 2), (3.0, 3), (10.0, 4)]


def test_reactivex_timers_run_on_the_gateways_clock(gateway: ScriptedGateway, client: Client) -> None:
    pv = gateway.pv("demo:x", 0)
    rx.interval(10.0).subscribe(lambda count: pv.post(count + 1))
    seen = Recorder(client.monitor_stream(X).pipe(ops.map(lambda update: update.value), ops.throttle_first(15.0)))
    gateway.advance(60.0)
    assert seen == [0, 2, 4, 6]


def test_leaving_the_gateway_restores_the_runtime() -> None:
    real = TimeoutScheduler.__dict__["singleton"]
    with ScriptedGateway() as gateway, gateway.client() as client:
        gateway.pv("demo:x", 1.0)
        seen = values(client.monitor_stream(X))
        gateway.settle()
        assert gateway.broker.present() == ["test"]
    assert seen.completed
    assert gateway.broker.present() == []
    assert gateway.clock._steps == []
    assert TimeoutScheduler.__dict__["singleton"] is real
    with ScriptedGateway(), pytest.raises(RuntimeError, match="already"), ScriptedGateway():
        pass


def test_gateways_in_two_threads_are_independent() -> None:
    both_open, both_done = threading.Barrier(2, timeout=60), threading.Barrier(2, timeout=60)
    results: dict[float, list[Any]] = {}

    def script(start: float) -> list[Any]:
        """Makes its own client, waits, and uses a timer of reactivex and one of this library."""
        with Client("any", "script") as client:
            value = first(client.get_stream(X)).value
            went_stale = Recorder(client.monitor_stream(X).pipe(stale(5.0), ops.map(lambda item: item.is_stale)))
            late: list[int] = []
            rx.timer(10.0).subscribe(late.append)
            first(rx.timer(20.0))
            return [value, late, list(went_stale)]

    def run(start: float) -> None:
        with ScriptedGateway() as gateway:
            gateway.pv("demo:x", start)
            both_open.wait()
            results[start] = [*script(start), gateway.clock.elapsed, [type(command) for command in gateway.commands]]
            both_done.wait()

    threads = [threading.Thread(target=run, args=(start,)) for start in (1.0, 2.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (one, two) = (results[1.0], results[2.0])
    assert (one[0], two[0]) == (1.0, 2.0)
    assert one[1:3] == two[1:3] == [[0], [True]]
    assert one[3] == two[3] == pytest.approx(20.0)
    assert GetCommand in one[4]
    assert one[4] == two[4]


def test_clients_in_threads_of_a_script_use_the_gateway(gateway: ScriptedGateway) -> None:
    gateway.pv("demo:x", 1.5)
    results: list[float] = []

    def script() -> None:
        with Client("any", "script") as client:
            results.append(first(client.get_stream(X)).value)

    thread = threading.Thread(target=script)
    thread.start()
    thread.join()
    assert results == [1.5]


def test_a_client_can_be_closed_after_the_gateway() -> None:
    with ScriptedGateway() as gateway:
        client = gateway.client()
        gateway.pv("demo:x", 1.0)
        seen = values(client.monitor_stream(X))
        gateway.settle()
    client.close()
    assert (seen, seen.completed) == ([1.0], True)


def test_waiting_for_an_impossible_reply_raises(gateway: ScriptedGateway, client: Client) -> None:
    gateway.pv("demo:x", 1.0).disconnect()
    with pytest.raises(ClockStalledError, match=r"1:00:00 of virtual time"):
        first(client.monitor_stream(X))


def test_a_script_that_triggers_itself_raises() -> None:
    with ScriptedGateway(clock=VirtualClock(max_actions=1000)) as gateway:
        client, pv = gateway.client(), gateway.pv("demo:x", 0)
        feedback = client.monitor_stream(X).pipe(
            ops.flat_map(lambda update: client.put_stream(X, update.value + 1, check=False))
        )
        subscription = feedback.subscribe()
        with pytest.raises(EndlessLoopError, match="does a script write the PV whose update called it"):
            gateway.settle()
        assert pv.puts[:3] == [1, 2, 3]
    subscription.dispose()
    client.close()


# monitors


def test_post_settles_earlier_actions_first(gateway: ScriptedGateway, client: Client) -> None:
    pv = gateway.pv("demo:x", 0)
    seen = values(client.monitor_stream(X))
    pv.post(1)  # settles by itself
    pv.post(2)
    assert seen == [0, 1, 2]


def test_values_posted_together_are_conflated_by_overflow_latest(gateway: ScriptedGateway, client: Client) -> None:
    pv = gateway.pv("demo:x", 0)
    every, latest = values(client.monitor_stream(X)), values(client.monitor_stream(X, overflow="latest"))
    gateway.settle()
    for value in (1, 2, 3):
        pv.post(value, settle=False)
    gateway.settle()
    assert (every, latest) == ([0, 1, 2, 3], [0, 3])
    assert client.status.dropped == 2


def test_monitor_many_sends_one_command(gateway: ScriptedGateway, client: Client) -> None:
    pvs = [gateway.pv(f"demo:{n}", n) for n in range(3)]
    seen = values(client.monitor_many_stream([f"pva://demo:{n}" for n in range(3)]))
    pvs[1].post(10)
    assert sorted(seen) == [0, 1, 2, 10]
    assert [command.operation for command in gateway.commands] == ["multi-monitor"]


def test_a_disconnected_pv_has_no_updates_until_it_connects(gateway: ScriptedGateway, client: Client) -> None:
    pv = gateway.pv("demo:x", 1)
    seen = values(client.monitor_stream(X))
    gateway.settle()
    assert gateway.is_monitored("demo:x")
    pv.disconnect()
    pv.post(2)
    assert not pv.connected
    assert seen == [1]
    with pytest.raises(OperationError, match="-3: Timeout operation"):
        first(client.get_stream(X))
    pv.connect()
    assert seen == [1, 2]


def test_a_pv_created_later_is_monitored_from_then_on(gateway: ScriptedGateway, client: Client) -> None:
    seen = values(client.monitor_stream(X))
    gateway.advance(5.0)
    assert seen == []
    gateway.pv("demo:x", 7)
    gateway.settle()
    assert seen == [7]


def test_a_get_waits_for_a_pv_to_connect(gateway: ScriptedGateway, client: Client) -> None:
    pv = gateway.pv("demo:x", 1, connected=False)
    seen = values(client.get_stream(X))
    gateway.advance(4.0)
    pv.connect()
    assert (seen, gateway.clock.elapsed) == ([1], 4.0)


def test_the_status_names_disconnected_pvs(gateway: ScriptedGateway, client: Client) -> None:
    pv, _ = gateway.pv("demo:x", 1.0), gateway.pv("demo:y", 1.0)
    updates: list[object] = []
    client.monitor_many_stream(["pva://demo:x", "pva://demo:y"]).subscribe(lambda update: updates.append(update.value))
    gateway.clock.advance(5.0)
    assert client.status.disconnected == ()
    pv.disconnect()
    gateway.clock.advance(5.0)
    assert client.status.disconnected == ("pva://demo:x",)
    pv.connect()
    gateway.clock.advance(5.0)
    assert client.status.disconnected == ()
    assert updates[:2] == [1.0, 1.0]
    assert client.status.discarded == 0


def test_a_pv_that_disconnects_during_its_delay_does_not_reply(gateway: ScriptedGateway, client: Client) -> None:
    pv = gateway.pv("demo:x", 1, delay=3.0)
    seen = values(client.get_stream(X))
    gateway.advance(1.0)
    pv.disconnect()
    gateway.advance(4.0)
    assert seen == []
    pv.connect()
    gateway.advance(3.0)
    assert (seen, gateway.clock.elapsed) == ([1], 8.0)


def test_later_subscribers_do_not_receive_the_value_of_a_disconnected_pv(
    gateway: ScriptedGateway, client: Client
) -> None:
    pv = gateway.pv("demo:x", 1)
    client.monitor_stream(X).subscribe()
    gateway.settle()
    pv.disconnect()
    assert len(first(client.snapshot_stream([X])).data["demo:x"]) == 0


def test_a_group_shares_the_events(gateway: ScriptedGateway) -> None:
    pvs = [gateway.pv(f"demo:{n}", n) for n in range(20)]
    uris = [f"pva://{pv.name}" for pv in pvs]
    with gateway.client("one", "work") as one, gateway.client("two", "work") as two:
        seen = [values(member.monitor_many_stream(uris)) for member in (one, two)]
        gateway.settle()
        for pv in pvs:
            pv.post(100)
        assert sum(map(len, seen)) >= 20
        assert sum(each.count(100) for each in seen) == 20


# faults


def test_commands_has_the_received_commands(gateway: ScriptedGateway, client: Client) -> None:
    gateway.pv("demo:x", 1.0)
    first(client.get_stream(X))
    first(client.put_stream(X, 2.0, check=False))
    client.monitor_stream(X).subscribe()
    gateway.settle()
    assert [type(command) for command in gateway.commands] == [GetCommand, PutCommand, MonitorCommand]
    assert gateway.commands[0] == GetCommand(X)


def test_refuse_replies_with_an_error(gateway: ScriptedGateway, client: Client) -> None:
    pv = gateway.pv("demo:x", 1.0)
    gateway.faults.refuse("put", X, times=2, error=-7, message="no beam, no put")
    for _ in range(2):
        with pytest.raises(OperationError, match=r"put of pva://demo:x.*-7: no beam, no put"):
            first(client.put_stream(X, 2.0, check=False))
    assert pv.puts == []
    first(client.put_stream(X, 2.0, check=False))
    assert pv.puts == [2.0]


def test_ignore_and_lose_lead_to_timeouts(gateway: ScriptedGateway, client: Client) -> None:
    pv = gateway.pv("demo:x", 1.0)
    gateway.faults.ignore("put")
    gateway.faults.lose("put")
    for written in ([], [3.0]):
        with pytest.raises(OperationTimeout, match="may still be carried out"):
            first(client.put_stream(X, 3.0, timeout=1.0, check=False))
        assert pv.puts == written


def test_a_garbled_reply_is_counted_as_undecodable(
    gateway: ScriptedGateway, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.pv("demo:x", 1.0)
    gateway.faults.garble("get")
    with caplog.at_level(logging.WARNING), pytest.raises(OperationTimeout):
        first(client.get_stream(X, timeout=1.0))
    assert client.status.discarded == 1
    assert first(client.get_stream(X)).value == 1.0


def test_only_replies_are_garbled(gateway: ScriptedGateway, client: Client) -> None:
    gateway.pv("demo:x", 1.0)
    gateway.faults.garble("monitor")
    seen = values(client.monitor_stream(X))
    gateway.settle()
    assert seen == [1.0]
    assert client.status.discarded == 1
    with pytest.raises(OperationTimeout):
        first(client.activation_stream([X]))
    gateway["demo:x"].post(2.0)
    assert (seen, seen.error) == ([1.0, 2.0], None)


def test_an_error_in_a_running_clock_is_raised_at_the_end(gateway: ScriptedGateway) -> None:
    tried = threading.Event()

    def fail(*_: object) -> None:
        tried.set()
        raise LookupError("an error of the script")

    gateway.clock.schedule(fail)
    with pytest.raises(LookupError), gateway.clock.running():
        assert tried.wait(30.0)


def test_delay_delays_replies(gateway: ScriptedGateway, client: Client) -> None:
    gateway.pv("demo:x", 1.0)
    gateway.faults.delay(3.0, "get", times=None)
    with pytest.raises(OperationTimeout):
        first(client.get_stream(X, timeout=2.0))
    begin = gateway.clock.elapsed
    assert first(client.get_stream(X, timeout=5.0)).value == 1.0
    assert gateway.clock.elapsed - begin == 3.0
    gateway.faults.clear()
    begin = gateway.clock.elapsed
    first(client.get_stream(X))
    assert gateway.clock.elapsed == begin


def test_delay_does_not_delay_the_events_of_a_monitor(gateway: ScriptedGateway, client: Client) -> None:
    gateway.pv("demo:x", 1.0)
    gateway.faults.delay(5.0, "monitor")
    seen = values(client.monitor_stream(X))
    gateway.settle()
    confirmed = Recorder(client.activation_stream([X]))
    gateway.advance(4.9)
    assert (seen, confirmed) == ([1.0], [])
    gateway.advance(0.1)
    assert len(confirmed) == 1


def test_a_rejected_monitor_fails_its_stream(gateway: ScriptedGateway, client: Client) -> None:
    gateway.pv("demo:x", 1.0)
    gateway.faults.refuse("monitor", message="the gateway starts")
    seen = values(client.monitor_stream(X))
    gateway.settle()
    assert isinstance(seen.error, OperationError)
    again = values(client.monitor_stream(X))
    gateway.settle()
    assert again == [1.0]


def test_a_fault_applies_to_its_operation_and_subject(gateway: ScriptedGateway, client: Client) -> None:
    for name in ("demo:x", "demo:y"):
        gateway.pv(name, 1.0)
    gateway.faults.refuse("put", "demo:x", times=None)
    gateway.faults.refuse("multi-monitor", "ca://demo:y", times=None)
    gateway.faults.refuse("repeating_snapshot_trigger", "orbit", times=None, message="not now")
    assert first(client.get_stream(X)).value == 1.0
    first(client.put_stream("pva://demo:y", 2.0))
    with pytest.raises(OperationError):
        first(client.put_stream(X, 2.0))
    both = values(client.monitor_many_stream([X, "ca://demo:y"]))
    gateway.settle()
    assert isinstance(both.error, OperationError)
    with pytest.raises(OperationError, match="not now"):
        first(client.snapshot_trigger_stream("orbit"))
    with pytest.raises(OperationError, match="not been found"):
        first(client.snapshot_trigger_stream("other"))


def test_script_replies_with_given_messages(gateway: ScriptedGateway, client: Client) -> None:
    gateway.pv("demo:x", 1.0)
    gateway.faults.script(lambda command: [{"demo:x": {"value": 5}}], "get", X, times=1)
    assert first(client.get_stream(X)).data == {"value": 5}
    assert first(client.get_stream(X)).value == 1.0


@pytest.mark.parametrize("wrong", [{"operation": "read"}, {"times": 0}, {"operation": "get", "times": -1}])
def test_invalid_faults_are_rejected(gateway: ScriptedGateway, wrong: dict[str, Any]) -> None:
    for method in (Faults.refuse, Faults.ignore, Faults.lose, Faults.garble):
        with pytest.raises(ValueError, match=r"operation|times"):
            method(gateway.faults, **wrong)
    with pytest.raises(ValueError, match="negative"):
        gateway.faults.refuse(error=1)


# outages of gateway and broker


def test_a_restarted_gateway_has_lost_its_monitors(gateway: ScriptedGateway) -> None:
    pv = gateway.pv("demo:x", 1)
    with gateway.client(silence=10.0) as client:
        seen = values(client.monitor_stream(X))
        gateway.settle()
        gateway.go_down()
        assert not gateway.is_monitored("demo:x")
        pv.post(2)
        with pytest.raises(OperationTimeout):
            first(client.get_stream(X, timeout=1.0))
        gateway.come_up()
        assert seen == [1]
        gateway.advance(20.0)  # the client activates silent PVs again
        assert seen == [1, 2]
        pv.post(3)
        assert seen == [1, 2, 3]


def test_a_stopped_gateway_sends_no_late_replies(gateway: ScriptedGateway, client: Client) -> None:
    gateway.pv("demo:x", 1)
    gateway.faults.delay(5.0, "get")
    pending = Recorder(client.get_stream(X, timeout=60.0))
    gateway.go_down()
    gateway.come_up()
    gateway.advance(60.0)
    assert isinstance(pending.error, OperationTimeout)


def test_a_restarted_gateway_executes_recent_commands_only(gateway: ScriptedGateway, client: Client) -> None:
    pv = gateway.pv("demo:x", 1)
    gateway.go_down()
    early, late = (Recorder(client.put_stream(X, value, timeout=100.0, check=False)) for value in (2, 3))
    gateway.advance(29.0)
    third = Recorder(client.put_stream(X, 4, timeout=100.0, check=False))
    gateway.advance(2.0)
    gateway.come_up()
    assert pv.puts == [4]
    assert "waited 31.0 s" in str(early.error)
    assert isinstance(late.error, OperationError)
    assert len(third) == 1


@pytest.mark.parametrize("overflow", ["latest", "drop_oldest"])
def test_after_an_outage_each_value_comes_once_in_order_and_losses_are_told(overflow: str) -> None:
    options = GatewayOptions(outgoing_buffer=20, outgoing_overflow=overflow)
    with ScriptedGateway(options=options) as gateway, gateway.client() as client:
        fast, slow = gateway.pv("demo:fast", 0), gateway.pv("demo:slow", 0)
        seen: dict[str, list[int]] = {"demo:fast": [], "demo:slow": []}
        client.monitor_many_stream(["pva://demo:fast", "pva://demo:slow"]).subscribe(
            lambda update: seen[update.name].append(update.value)
        )
        gateway.settle()
        gateway.broker.go_down()
        fast.post(1)
        gateway.advance(1.0)
        slow.post(1)
        gateway.advance(1.0)
        slow.post(2)
        for number in range(2, 102):
            fast.post(number)
            gateway.advance(0.01)
        gateway.broker.come_up()
        gateway.advance(2.0)
        fast.post(102)
        slow.post(3)
        gateway.advance(2.0)
        for values in seen.values():
            assert values == sorted(set(values)), "in order, each once"
        assert seen["demo:fast"][-2:] == [101, 102]
        assert 2 in seen["demo:slow"], "the newest value of a slow PV is not lost to a fast one"
        missing = 103 - len(seen["demo:fast"])
        assert missing >= 80
        lost = client.status.lost
        assert lost["demo:fast"] == missing
        assert lost.get("demo:slow", 0) == (0 if overflow == "latest" else 1)
        assert "buffer" in client.status.loss_reasons["demo:fast"]


def test_commands_and_events_wait_for_a_broker_that_is_down(gateway: ScriptedGateway, client: Client) -> None:
    pv = gateway.pv("demo:x", 1)
    seen, status = values(client.monitor_stream(X)), Recorder(client.status_stream())
    gateway.settle()
    gateway.broker.go_down("maintenance")
    gateway.settle()
    assert (status[-1].connection, status[-1].reason) == (ConnectionState.DOWN, "maintenance")
    pv.post(2)
    with pytest.raises(OperationTimeout):
        first(client.get_stream(X, timeout=5.0))
    assert seen == [1]
    gateway.broker.come_up()
    gateway.settle()
    assert seen == [1, 2]
    assert status[-1].connection is ConnectionState.UP


def test_closing_the_client_fails_pending_operations(gateway: ScriptedGateway) -> None:
    gateway.pv("demo:x", 1, delay=5.0)
    client = gateway.client()
    pending = Recorder(client.get_stream(X))
    gateway.settle()
    client.close()
    assert isinstance(pending.error, ClientClosedError)


def test_gateway_options_apply() -> None:
    options = GatewayOptions(operation_timeout=2.0)
    with ScriptedGateway(options=options) as gateway, gateway.client() as client:
        gateway.pv("demo:x", 1).disconnect()
        with pytest.raises(OperationError, match="-3"):
            first(client.get_stream(X))
        assert gateway.clock.elapsed == 2.0


# snapshots


@pytest.fixture
def pair(gateway: ScriptedGateway) -> list[str]:
    gateway.pv("demo:x", 1)
    gateway.pv("demo:y", 10)
    return [X, "ca://demo:y"]


def test_a_snapshot_waits_for_its_window_and_omits_disconnected_pvs(
    gateway: ScriptedGateway, client: Client, pair: list[str]
) -> None:
    snapshot = first(client.snapshot_stream([*pair, "pva://demo:away"], duration=5.0))
    assert {name: len(samples) for name, samples in snapshot.data.items()} == {"demo:x": 1, "demo:y": 1, "demo:away": 0}
    assert gateway.clock.elapsed == 5.0


def test_a_normal_snapshot_has_the_last_value_of_each_window(
    gateway: ScriptedGateway, client: Client, pair: list[str]
) -> None:
    seen = Recorder(client.snapshot_recurring_stream(SnapshotProperties("s", pair, time_window=1000)))
    gateway.advance(0.5)
    gateway["demo:x"].post(2)
    gateway["demo:x"].post(3)
    gateway.advance(1.5)
    assert [(each.iteration, each.data["demo:x"]["value"], each.data["demo:y"]["value"]) for each in seen] == [
        (1, 3, 10),
        (2, 3, 10),
    ]
    assert seen[1].timestamp - seen[0].timestamp == 1_000_000_000


def test_a_triggered_snapshot_waits_for_the_trigger(gateway: ScriptedGateway, client: Client, pair: list[str]) -> None:
    seen = Recorder(client.snapshot_recurring_stream(SnapshotProperties("s", pair, triggered=True)))
    gateway.advance(100.0)
    assert seen == []
    first(client.snapshot_trigger_stream("s"))
    gateway["demo:x"].post(2)
    first(client.snapshot_trigger_stream("s"))
    assert [each.data["demo:x"]["value"] for each in seen] == [1, 2]
    first(client.snapshot_stop_stream("s"))
    gateway.advance(2.0)
    assert seen.completed
    assert len(seen) == 2, "the iteration that the gateway publishes at the stop is of no trigger"
    with pytest.raises(OperationError, match="not been found"):
        first(client.snapshot_trigger_stream("s"))


def test_a_buffered_snapshot_has_every_value_and_partial_pushes(
    gateway: ScriptedGateway, client: Client, pair: list[str]
) -> None:
    properties = SnapshotProperties(
        "s", pair, time_window=1000, sub_push_delay_msec=250, type="timedbuffered", pv_field_filter_list=["value"]
    )
    snapshots, messages = (
        Recorder(client.snapshot_recurring_stream(properties)),
        Recorder(client.snapshot_events_stream(properties)),
    )
    gateway.settle()
    begin = gateway.clock.elapsed
    for value in (2, 3):
        gateway["demo:x"].post(value)
    gateway.advance(0.25)
    assert [type(message) for message in messages[:2]] == [SnapshotHeader, SnapshotData]
    assert snapshots == []
    gateway.advance(1.0 - (gateway.clock.elapsed - begin))
    snapshot: Snapshot = snapshots[0]
    assert [sample["value"] for sample in snapshot.data["demo:x"]] == [1, 2, 3]
    assert list(snapshot.data["demo:x"][0]) == ["value"]
    assert isinstance(messages[-1], SnapshotTail)


# scripts that create their own clients


def test_any_environment_or_only_the_given_one_exists() -> None:
    with ScriptedGateway() as gateway, Client("anywhere", "me") as client:
        gateway.pv("demo:x", 1)
        assert first(client.get_stream(X)).value == 1
        assert client.settings.reply_topic == "me-reply"
        with pytest.raises(ValueError, match=r"app_name must .* got 'a b'"):
            Client("anywhere", "a b")
    no_dev = pytest.raises(ValueError, match="no environment 'dev' in this test, only 'prod'")
    with ScriptedGateway("prod"), Client("prod", "me"), no_dev:
        Client("dev", "me")


def test_settings_given_by_a_script_are_used(gateway: ScriptedGateway) -> None:
    gateway.pv("demo:x", 1)
    settings = Settings("own", "nowhere:9092", "own-commands", "own-replies")
    with Client("own", "me", settings=settings) as client:
        assert first(client.get_stream(X)).value == 1
    assert "own-replies" in gateway.broker.topics()


def test_since_replays_history_in_virtual_time(gateway: ScriptedGateway, client: Client) -> None:
    pv = gateway.pv("demo:x", 0)
    begin = gateway.clock.now
    before = values(client.monitor_stream(X))
    for value in (1, 2):
        gateway.advance(10.0)
        pv.post(value)
    gateway.advance(60.0)
    since = values(client.monitor_stream(X, since=timedelta(seconds=65.0)))
    gateway.advance(1.0)
    pv.post(3)
    assert (before, since) == ([0, 1, 2, 3], [2, 3])
    gateway.advance(1.0)  # the end of a replay is not part of it
    played: list[tuple[float, int]] = []
    start = gateway.clock.elapsed
    client.replay_stream([X], begin, gateway.clock.now, speed=2.0).subscribe(
        lambda update: played.append((gateway.clock.elapsed - start, update.value))
    )
    gateway.advance(60.0)
    assert played == [(0.0, 0), (5.0, 1), (10.0, 2), (40.5, 3)]


def test_replay_speed_applies_to_virtual_time(gateway: ScriptedGateway) -> None:
    played: list[str] = []
    play([("a", 0), ("b", 60 * SECOND)], lambda event: event[1]).subscribe(lambda event: played.append(event[0]))
    gateway.settle()
    assert played == ["a", "b"]
    spaced = Recorder(play([("a", 0), ("b", 60 * SECOND)], lambda event: event[1], speed=1.0))
    gateway.advance(59.0)
    assert len(spaced) == 1
    gateway.advance(1.0)
    assert len(spaced) == 2


def test_operators_run_in_virtual_time(gateway: ScriptedGateway, client: Client) -> None:
    pv = gateway.pv("demo:x", 0)
    silences = Recorder(client.monitor_stream(X).pipe(stale(30.0)))
    gateway.advance(29.0)
    quiet = len(silences)
    gateway.advance(2.0)
    assert len(silences) == quiet + 1
    pv.post(1)
    assert len(silences) == quiet + 2


def test_the_test_kit_needs_no_extra() -> None:
    script = """
import sys
for name in ("numpy", "p4p", "aioca", "pandas", "pyarrow", "xarray", "rich"):
    sys.modules[name] = None
from k2eg_rx import first
from k2eg_rx.testing import ScriptedGateway
with ScriptedGateway() as gateway, gateway.client() as client:
    gateway.pv("demo:x", [1.0, 2.0])
    first(client.put_stream("pva://demo:x", [3.0]))
    assert first(client.get_stream("ca://demo:x")).value == [3.0]
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_batches_run_in_virtual_time(gateway: ScriptedGateway, client: Client) -> None:
    for n in range(200):
        gateway.pv(f"demo:{n}", n)
    uris = [f"pva://demo:{n}" for n in range(201)]
    results = first(client.get_many_stream(uris, timeout=30.0).pipe(ops.to_list()))
    assert [result.uri for result in results if result.error is not None] == ["pva://demo:200"]
    assert gateway.clock.elapsed == 10.0


@pytest.mark.parametrize("name", ["error", "reply_id", "message", "timestamp", "iter_index", "lab..rack1..temp"])
def test_every_name_can_be_read_written_monitored_and_taken(
    gateway: ScriptedGateway, client: Client, name: str
) -> None:
    pv, other = gateway.pv(name, 1.0), gateway.pv("other", 5.0)
    uri, seen = f"pva://{name}", []
    client.monitor_stream(uri).subscribe(lambda update: seen.append((update.name, update.value)))
    first(client.put_stream(uri, 2.0))
    assert (first(client.get_stream(uri)).value, pv.value) == (2.0, 2.0)
    assert seen[-1] == (name, 2.0)
    result = first(client.get_many_stream([uri, "pva://other"]).pipe(ops.to_list()))
    assert sorted(each.result().value for each in result) == [2.0, other.value]
    key = PVAddress.parse(uri).key
    once = first(client.snapshot_stream([uri, "pva://other"]))
    assert (once.data[key]["value"], once.as_dict()[key]["value"], once.data["other"]["value"]) == (2.0, 2.0, 5.0)
    recurring = client.snapshot_recurring_stream(SnapshotProperties("s", [uri, "pva://other"], time_window=100))
    taken = first(recurring)
    assert (taken.data[key]["value"], taken.data["other"]["value"]) == (2.0, 5.0)
    assert taken.as_dict()["iteration"] == 1


def test_a_put_after_an_abandoned_one_has_the_last_word():
    with ScriptedGateway() as gateway, gateway.client() as client:
        pv = gateway.pv("mag:q", 10.0, delay=3.0)
        abandoned = client.put_stream("pva://mag:q", 6.0, check=False).subscribe()
        gateway.advance(1.0)
        abandoned.dispose()
        pv.delay = 0.5
        first(client.put_stream("pva://mag:q", 10.0, check=False))
        gateway.advance(20.0)
        assert (pv.puts, pv.value) == ([6.0, 10.0], 10.0)
