"""Operators behind a real client and a scripted gateway: no threads, virtual time."""

from datetime import timedelta
from typing import Any

import pytest
from reactivex import operators as ops

from k2eg_rx import Client, PVUpdate, Severity, first
from k2eg_rx.errors import ClientClosedError
from k2eg_rx.operators import (
    PutReport,
    Staleness,
    alarms,
    align,
    changed,
    combine_pvs,
    conflate,
    fresh,
    put_to,
    retry_activation,
    stale,
    value,
)
from k2eg_rx.testing import ScriptedGateway

pytest_plugins = ["k2eg_rx.testing.fixtures"]


def test_shots_after_a_move_have_none_from_before_it(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> None:
    shot, readback = k2eg_gateway.pv("bpm", 1.0), k2eg_gateway.pv("readback", 0.0)
    k2eg_client.monitor_stream("pva://bpm").subscribe()  # so that the client knows a last value
    settled: list[PVUpdate] = []
    k2eg_client.monitor_stream("pva://readback").subscribe(settled.append)
    k2eg_gateway.settle()
    k2eg_gateway.advance(0.1)
    readback.post(5.0)
    k2eg_gateway.settle()
    stale_too: list[float] = []
    shots: list[float] = []
    k2eg_client.monitor_stream("pva://bpm").subscribe(lambda update: stale_too.append(update.value))
    k2eg_client.monitor_stream("pva://bpm", last=False).subscribe(lambda update: shots.append(update.value))
    fresh_shots: list[float] = []
    k2eg_client.monitor_stream("pva://bpm").pipe(fresh(settled[-1]), value()).subscribe(fresh_shots.append)
    k2eg_gateway.settle()
    assert (stale_too, shots, fresh_shots) == ([1.0], [], [])
    k2eg_gateway.advance(0.1)
    shot.post(2.0)
    k2eg_gateway.settle()
    assert (stale_too, shots, fresh_shots) == ([1.0, 2.0], [2.0], [2.0])


def test_last_false_needs_a_live_start(k2eg_client: Client) -> None:
    with pytest.raises(ValueError, match="last must be True with since"):
        k2eg_client.monitor_stream("pva://x", since=timedelta(minutes=1), last=False)


@pytest.mark.parametrize(("overflow", "warned"), [("latest", True), ("block", False)])
def test_align_warns_of_a_source_that_keeps_the_latest_only(
    k2eg_client: Client, caplog: pytest.LogCaptureFixture, overflow: str, warned: bool
) -> None:
    pair = ["pva://a", "pva://b"]
    k2eg_client.monitor_many_stream(pair, overflow=overflow).pipe(align(pair))
    assert ("align will lose most instants" in caplog.text) is warned
    caplog.clear()
    k2eg_client.monitor_many_stream(pair, overflow=overflow).pipe(align(pair, hold={"a": 1.0}))
    assert caplog.text == ""


def test_a_put_that_was_given_up_is_carried_out_before_a_later_one(
    k2eg_gateway: ScriptedGateway, k2eg_client: Client
) -> None:
    magnet = k2eg_gateway.pv("magnet", 10.0, delay=3.0)
    first(k2eg_client.put_stream("pva://magnet", 10.0))
    magnet.puts.clear()
    given_up = k2eg_client.put_stream("pva://magnet", 6.0).subscribe()
    k2eg_gateway.advance(1.0)
    given_up.dispose()
    magnet.delay = 0.5  # the later one would be done first
    first(k2eg_client.put_stream("pva://magnet", 10.0))
    k2eg_gateway.advance(20.0)
    assert magnet.puts == [6.0, 10.0]
    assert magnet.value == 10.0


def test_a_feedback_loop_is_clamped_and_rate_limited(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> None:
    orbit, corrector = k2eg_gateway.pv("orbit", 0.0), k2eg_gateway.pv("corrector", 0.0)
    entries: list[PutReport] = []
    k2eg_client.monitor_stream("pva://orbit").pipe(
        value(), ops.map(lambda x: -2.0 * x), put_to(k2eg_client, "pva://corrector", limits=(-5.0, 5.0), rate=1.0)
    ).subscribe(entries.append)
    for position in (1.0, 2.0, 3.0, float("nan")):
        k2eg_gateway.advance(2.0)
        orbit.post(position)
    k2eg_gateway.advance(2.0)
    assert corrector.puts == [0.0, -2.0, -4.0, -5.0]
    assert [entry.outcome for entry in entries] == ["written", "written", "written", "clamped", "refused"]


def test_writing_ends_with_the_client(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> None:
    orbit, corrector = k2eg_gateway.pv("orbit", 1.0), k2eg_gateway.pv("corrector", 0.0)
    ends: list[Any] = []
    other = k2eg_gateway.client("other")
    k2eg_client.monitor_stream("pva://orbit").pipe(
        value(), put_to(other, "pva://corrector", limits=(-5.0, 5.0))
    ).subscribe(on_error=ends.append)
    k2eg_gateway.advance(2.0)
    other.close()
    orbit.post(2.0)
    k2eg_gateway.advance(2.0)
    assert corrector.puts == [1.0]
    assert [type(end) for end in ends] == [ClientClosedError]


def test_a_value_that_does_not_fit_the_pv_fails_and_the_next_is_written(
    k2eg_gateway: ScriptedGateway, k2eg_client: Client
) -> None:
    number, count = k2eg_gateway.pv("number", 1.5), k2eg_gateway.pv("count", 0)
    entries: list[PutReport] = []
    k2eg_client.monitor_stream("pva://number").pipe(
        value(), put_to(k2eg_client, "pva://count", limits=(0, 10))
    ).subscribe(entries.append)
    k2eg_gateway.advance(2.0)
    number.post(4.0)
    k2eg_gateway.advance(2.0)
    assert count.puts == [4]
    assert [entry.outcome for entry in entries] == ["failed", "written"]
    assert isinstance(entries[0].error, ValueError)


def test_a_monitor_is_retried_until_it_is_activated(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> None:
    k2eg_gateway.pv("x", 1.5)
    k2eg_gateway.go_down()
    values: list[float] = []
    errors: list[Exception] = []
    k2eg_client.monitor_stream("pva://x").pipe(retry_activation(5.0, jitter=0), value()).subscribe(
        values.append, errors.append
    )
    k2eg_gateway.advance(60.0)
    assert (values, errors) == ([], [])
    k2eg_gateway.come_up()
    k2eg_gateway.advance(60.0)
    assert values[0] == 1.5
    assert errors == []


def test_silence_and_return(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> None:
    beat = k2eg_gateway.pv("beat", 0)
    found: list[Staleness] = []
    k2eg_client.monitor_many_stream(["pva://beat", "pva://lost"]).pipe(stale(5.0, pvs=["pva://lost"])).subscribe(
        found.append
    )
    for count in range(10):
        k2eg_gateway.advance(1.0)
        beat.post(count)
    k2eg_gateway.advance(7.0)
    beat.post(99)
    assert [(one.name, one.is_stale) for one in found] == [("lost", True), ("beat", True), ("beat", False)]
    assert found[2].silence == pytest.approx(7.0)


def test_several_operators_together(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> None:
    x, y = k2eg_gateway.pv("x", 1.0), k2eg_gateway.pv("y", 2.0)
    updates = k2eg_client.monitor_many_stream(["pva://x", "ca://y"])
    sums: list[float] = []
    shown: list[tuple[str, float]] = []
    transitions: list[tuple[str, Severity]] = []
    updates.pipe(changed(0.1), combine_pvs(["x", "y"]), ops.map(lambda both: both["x"] + both["y"])).subscribe(
        sums.append
    )
    updates.pipe(conflate(1.0)).subscribe(lambda update: shown.append((update.name, update.value)))
    updates.pipe(alarms()).subscribe(lambda alarm: transitions.append((alarm.name, alarm.current)))
    k2eg_gateway.advance(2.0)
    shown.clear()
    x.post(1.05)
    x.post(1.5, severity=2)
    y.post(3.0)
    k2eg_gateway.advance(2.0)
    assert sums == [3.0, 3.5, 4.5]
    assert shown == [("x", 1.05), ("x", 1.5), ("y", 3.0)]
    assert transitions == [("x", Severity.MAJOR)]
