"""Users' scripts, tested with the test kit in virtual time."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import sys
import textwrap
import threading
import uuid
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas
import pytest
import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops

import k2eg_rx.testing as kit
from k2eg.broker import SnapshotProperties
from k2eg.dml import OperationError, OperationTimeout, dml
from k2eg_rx import Client, PVUpdate, Severity, aio, first
from k2eg_rx.testing import ScriptedGateway

pytest_plugins = ["k2eg_rx.testing.fixtures"]

EXAMPLES = Path(__file__).parents[2] / "examples"


# A script: the moving average of a PV, written back to another one


def write_average(client: Client, source: str, target: str, count: int) -> Any:
    """Writes the mean of the last `count` values of a PV to another PV."""
    average: Observable[float] = client.monitor_stream(source).pipe(
        ops.map(lambda update: float(update.value)),
        ops.buffer_with_count(count, 1),
        ops.filter(lambda values: len(values) == count),
        ops.map(lambda values: sum(values) / count),
    )
    return average.pipe(ops.flat_map(lambda mean: client.put_stream(target, mean))).subscribe()


# and its test


def test_average_is_written(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> None:
    current = k2eg_gateway.pv("demo:current", 0.0, units="A")
    average = k2eg_gateway.pv("demo:average", 0.0, units="A")
    write_average(k2eg_client, "pva://demo:current", "pva://demo:average", count=3)
    for value in (3.0, 6.0, 9.0):
        current.post(value)
    assert average.puts == [3.0, 6.0]


def test_a_script_can_continue_after_a_failed_put(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> None:
    current, average = k2eg_gateway.pv("demo:current", 0.0), k2eg_gateway.pv("demo:average", 0.0)
    failures: list[Exception] = []
    k2eg_gateway.faults.refuse("put", "demo:average", message="interlock")
    k2eg_client.monitor_stream("pva://demo:current").pipe(
        ops.flat_map(
            lambda update: k2eg_client.put_stream("pva://demo:average", update.value).pipe(
                ops.do_action(on_error=failures.append), ops.catch(rx.empty())
            )
        )
    ).subscribe()
    current.post(1.0)
    assert average.puts == [1.0]
    assert [str(error) for error in failures] == [
        "put of pva://demo:average: the gateway answered with error -2: interlock"
    ]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_moving_average_example(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> None:
    example = load("moving_average")
    temperature = k2eg_gateway.pv("demo:temperature", 20.0)
    updates = k2eg_client.monitor_stream("pva://demo:temperature")
    lines: list[str] = []
    rx.merge(example.moving_average(updates, 2), example.alarm_transitions(updates)).subscribe(lines.append)
    temperature.post(21.0)
    temperature.post(40.0, severity=Severity.MAJOR)
    assert lines == [
        "average of 2:   20.500   (newest   21.000)",
        "average of 2:   30.500   (newest   40.000)",
        "alarm: NO_ALARM -> MAJOR at 40.0",
    ]


def test_a_script_that_waits_on_an_event_needs_a_running_clock(
    k2eg_gateway: ScriptedGateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = load("moving_average")
    k2eg_gateway.pv("demo:temperature", 20.0)
    monkeypatch.setattr(sys, "argv", ["moving_average.py", "--window", "1", "--seconds", "30"])
    with k2eg_gateway.clock.running():
        example.main()
    assert "average of 1:   20.000" in capsys.readouterr().out
    assert k2eg_gateway.clock.elapsed >= 30.0


# The documented API


@pytest.fixture
def k(k2eg_gateway: ScriptedGateway) -> Any:
    with dml("demo", "my-script") as connected:
        yield connected


def test_blocking_calls_and_handlers(k2eg_gateway: ScriptedGateway, k: dml) -> None:
    motor = k2eg_gateway.pv("demo:motor", 1.0, units="mm", limits=(0, 10))
    seen: list[tuple[str, float]] = []
    k.monitor("pva://demo:motor", lambda name, data: seen.append((name, data["value"])))
    k.put("pva://demo:motor", 2.5)
    assert k.get("pva://demo:motor")["value"] == 2.5
    assert motor.puts == [2.5]
    assert seen == [("demo:motor", 1.0), ("demo:motor", 2.5)]
    k.stop_monitor("demo:motor")
    motor.post(3.0)
    assert len(seen) == 2


def test_a_handler_can_make_blocking_calls(k2eg_gateway: ScriptedGateway, k: dml) -> None:
    setpoint, readback = k2eg_gateway.pv("demo:set", 0.0), k2eg_gateway.pv("demo:read", 0.0, delay=2.0)
    results: list[float] = []

    def follow(_name: str, data: dict[str, Any]) -> None:
        k.put("pva://demo:read", data["value"] + 0.5)
        results.append(k.get("pva://demo:read")["value"])

    k.monitor("pva://demo:set", follow)
    setpoint.post(4.0)
    assert results == [0.5, 4.5]
    assert readback.value == 4.5


def test_long_timeouts_take_no_real_time(k2eg_gateway: ScriptedGateway, k: dml) -> None:
    k2eg_gateway.faults.ignore("get", times=None)
    with pytest.raises(OperationTimeout, match=r"get of pva://demo:x: no reply within 600 s"):
        k.get("pva://demo:x", timeout=600.0)
    assert k2eg_gateway.clock.elapsed == 600.0


def test_a_disconnected_pv_times_out_in_the_gateway(k2eg_gateway: ScriptedGateway, k: dml) -> None:
    pv = k2eg_gateway.pv("demo:x", 1.0)
    pv.disconnect()
    with pytest.raises(OperationError, match="-3: Timeout operation"):
        k.get("pva://demo:x")
    assert k2eg_gateway.clock.elapsed == 10.0
    pv.connect()
    assert k.get("pva://demo:x")["value"] == 1.0


def test_recurring_snapshots_follow_the_clock(k2eg_gateway: ScriptedGateway, k: dml) -> None:
    a = k2eg_gateway.pv("demo:a", 1.0)
    k2eg_gateway.pv("demo:b", 10.0)
    seen: list[tuple[int, float, float]] = []

    def handle(_name: str, data: dict[str, Any]) -> None:
        seen.append((data["iteration"], data["demo:a"]["value"], data["demo:b"]["value"]))

    properties = SnapshotProperties("orbit", ["pva://demo:a", "ca://demo:b"], time_window=1000)
    k.snapshot_recurring(properties, handle)
    k2eg_gateway.advance(1.0)
    a.post(2.0)
    k2eg_gateway.advance(60.0)
    assert seen[:2] == [(1, 1.0, 10.0), (2, 2.0, 10.0)]
    assert len(seen) == 61
    k.snapshot_stop("orbit")
    k2eg_gateway.advance(60.0)
    assert len(seen) == 62  # the last, partial one


def test_two_scripts_can_share_a_gateway(k2eg_gateway: ScriptedGateway) -> None:
    pv = k2eg_gateway.pv("demo:x", 0)
    with dml("demo", "one") as one, dml("demo", "two") as two:
        seen: list[int] = []
        one.monitor("pva://demo:x", lambda _, data: seen.append(data["value"]))
        two.put("pva://demo:x", 5)
    assert (seen, pv.puts) == ([0, 5], [5])


def test_windows_of_reactivex_operators_are_in_virtual_time(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> None:
    pv = k2eg_gateway.pv("demo:x", 0)
    windows: list[list[int]] = []
    k2eg_client.monitor_stream("pva://demo:x").pipe(
        ops.map(lambda update: update.value), ops.buffer_with_time(60.0)
    ).subscribe(windows.append)
    for value in (1, 2, 3):
        pv.post(value)
        k2eg_gateway.advance(30.0)
    k2eg_gateway.advance(30.0)
    assert windows == [[0, 1, 2], [3]]


def test_a_blocking_script_with_its_own_event(k2eg_gateway: ScriptedGateway, k: dml) -> None:
    pv, reached = k2eg_gateway.pv("demo:x", 0.0), threading.Event()
    k.monitor("pva://demo:x", lambda _, data: reached.set() if data["value"] > 1.0 else None)
    k2eg_gateway.clock.schedule_relative(120.0, lambda *_: pv.post(2.0))
    with k2eg_gateway.clock.running(speed=1000.0):
        assert reached.wait(30.0)


def test_an_asyncio_script(k2eg_gateway: ScriptedGateway) -> None:
    pv = k2eg_gateway.pv("demo:x", 1.0)

    async def script() -> float:
        async with aio.Client("demo", "my-service") as client:
            await client.put("pva://demo:x", 2.0)
            with pytest.raises(OperationError, match="Timeout"):
                await client.get("pva://demo:away")
            return (await client.get("pva://demo:x")).value

    with k2eg_gateway.clock.running():
        assert asyncio.run(script()) == 2.0
    assert pv.puts == [2.0]
    assert k2eg_gateway.clock.elapsed >= 10.0


def test_the_script_in_the_test_kits_docstring(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> None:
    shown = str(kit.__doc__).partition("::\n")[2]
    lines = [line for line in shown.splitlines() if not line or line.startswith("    ")]
    script: dict[str, Any] = {"ops": ops}
    exec(textwrap.dedent("\n".join(lines)), script)
    script["test_average_is_written"](k2eg_gateway, k2eg_client)
    assert k2eg_gateway["demo:average"].puts == [3.0, 6.0]


def test_first_in_a_test(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> None:
    k2eg_gateway.pv("demo:mode", "On", choices=["Off", "On"])
    update: PVUpdate = first(k2eg_client.monitor_stream("ca://demo:mode"))
    assert update.value == {"index": 1, "choices": ["Off", "On"]}


# A script for the client that laboratories run today: its names and forms of calls, positional and by keyword

TODAYS_SCRIPT = """
import uuid
from typing import Any, Dict

import k2eg
from k2eg.broker import Broker, SnapshotProperties, SnapshotType
from k2eg.dml import OperationError, OperationTimeout, Snapshot, dml
from k2eg.serialization import Generic, MessagePackSerializable, NTTable, Scalar, Vector

assert k2eg.dml is dml
seen = {"monitor": [], "many": [], "snapshot": [], "recurring": [], "triggered": [], "errors": []}


def text_of(call, *kinds):
    try:
        call()
    except kinds as error:
        seen["errors"].append(str(error))
    else:
        raise AssertionError("no error")


text_of(lambda: dml("demo", None), ValueError)
broker = Broker("demo", "my-app", group_name="shift")
assert broker.get_reply_topic()
dml(environment_id="demo", app_name="my-app", group_name=uuid.uuid4(), poll_timeout=0.01).close()

client = dml("demo", "my-app", uuid.uuid4(), 0.01)
client.wait_for_backends()
assert client.parse_pv_url("pva://my:pv") == ("pva", "my:pv")
assert client.get("pva://my:pv", timeout=5.0)["value"] == client.get(pv_url="pva://my:pv", timeout=None)["value"]
for bad in ("//bad:pv:name", "pva://", "unknown://x"):
    text_of(lambda: client.get(bad, timeout=0.5), ValueError)
text_of(lambda: client.get("pva://silent", 0.5), OperationTimeout)
text_of(lambda: client.put("pva://silent", Scalar("value", 0), timeout=0.5), k2eg.OperationTimeout)
try:
    client.get("pva://no:such:pv")
except OperationError as error:
    assert error.error < 0

client.put("pva://my:pv", 42, timeout=5.0)
client.put("pva://my:pv", Scalar("value", 43))
client.put(pv_url="pva://my:pv", value=Scalar(key="value", payload=44), timeout=5.0)
client.put("pva://my:array", Vector([1, 2, 3, 4]))
client.put("pva://my:array", Vector(payload=[5, 6]))
client.put("pva://my:mode", Generic("value", {"index": 1}))
table = NTTable(labels=["element", "s"])
table.set_column("element", ["SOL9000", "XC99"])
table.set_column("s", [0.0, 0.5])
assert isinstance(table, MessagePackSerializable)
client.put("pva://my:table", table)
rows = [{"element": "A", "s": 1.0}, {"element": "B", "s": 2.0}]
client.put("pva://my:table", NTTable(labels=["element", "s"], payload=rows))


def handler(pv_name, data):
    seen["monitor"].append((pv_name, data["value"]))


def many_handler(pv_name: str, data: Dict[str, Any]):
    seen["many"].append(pv_name)


client.monitor("pva://my:pv", handler, timeout=5.0)
client.monitor_many(["pva://my:pv1", "ca://my:pv2"], many_handler, 1000)
client.put("pva://my:pv", Scalar("value", 45))
client.stop_monitor("my:pv")
client.put("pva://my:pv", Scalar("value", 46))
text_of(lambda: client.monitor("pva://my:pv", lambda data: None), ValueError)

assert client.snapshot(["pva://my:pv1", "ca://my:pv2"], lambda id, data: seen["snapshot"].append((id, data)))
taken = client.snapshot_sync(["pva://my:pv1", "ca://my:pv2"], timeout=10.0)
assert taken["error"] == 0 and taken["snapshot"]["my:pv1"][0]["value"] == 1.0


def snapshot_handler(snapshot_id: str, snapshot_obj: Dict[str, Any]):
    seen["recurring"].append((snapshot_id, snapshot_obj["iteration"], snapshot_obj["timestamp"]))


properties = SnapshotProperties(
    snapshot_name="my_snapshot",
    pv_uri_list=["pva://my:pv1", "ca://my:pv2"],
    time_window=1000,
    repeat_delay=0,
    sub_push_delay_msec=0,
    triggered=False,
    type=SnapshotType.NORMAL,
)
client.snapshot_recurring(properties, snapshot_handler, timeout=5.0)
triggered = SnapshotProperties(snapshot_name="triggered", pv_uri_list=["pva://my:pv1"], triggered=True)
client.snapshot_recurring(triggered, lambda name, data: seen["triggered"].append(name))
client.snapshost_trigger("triggered", timeout=5.0)
advance(3.0)
client.snapshot_stop("my_snapshot", timeout=5.0)
client.snapshot_stop("triggered", 5.0)
client.close()
"""


def test_a_script_for_todays_library_runs_unchanged(k2eg_gateway: ScriptedGateway) -> None:
    pv, array = k2eg_gateway.pv("my:pv", 1.0), k2eg_gateway.pv("my:array", [0])
    mode = k2eg_gateway.pv("my:mode", "Off", choices=["Off", "On"])
    table = k2eg_gateway.pv("my:table", {"element": ["x"], "s": [0.0]})
    k2eg_gateway.pv("my:pv1", 1.0)
    k2eg_gateway.pv("my:pv2", 2.0)
    k2eg_gateway.faults.ignore("get", "silent", times=None)
    k2eg_gateway.faults.ignore("put", "silent", times=None)
    script: dict[str, Any] = {"advance": k2eg_gateway.advance}
    exec(TODAYS_SCRIPT, script)
    seen = script["seen"]
    assert pv.puts == [42, 43, 44, 45, 46]
    assert array.puts == [[1, 2, 3, 4], [5, 6]]
    assert mode.value == {"index": 1, "choices": ["Off", "On"]}
    assert table.puts == [{"element": ["SOL9000", "XC99"], "s": [0.0, 0.5]}, {"element": ["A", "B"], "s": [1.0, 2.0]}]
    assert seen["monitor"] == [("my:pv", 44), ("my:pv", 45)]
    assert sorted(set(seen["many"])) == ["my:pv1", "my:pv2"]
    assert [set(data) for _, data in seen["snapshot"]] == [{"my:pv1", "my:pv2"}]
    assert [iteration for _, iteration, _ in seen["recurring"][:2]] == [1, 2]
    assert len(str(seen["recurring"][0][2])) == 13  # milliseconds
    assert seen["triggered"] == ["triggered"]
    app, *malformed, get, put, handler = seen["errors"]
    assert "app_name" in app
    assert [re.search(".*url.*not.*formed", text) is not None for text in malformed] == [True] * 3
    assert get.startswith("Timeout")
    assert put.startswith("Timeout")
    assert "must take 2 arguments" in handler


def test_the_same_in_asyncio(k2eg_gateway: ScriptedGateway) -> None:
    """Groups, values, texts of errors as for `dml`."""
    k2eg_gateway.faults.ignore("get", "silent", times=None)
    table = k2eg_gateway.pv("my:table", {"element": ["x"], "s": [0.0]})

    async def script() -> None:
        async with aio.Client("demo", "my-service", group_name=uuid.uuid4()) as client:
            await client.put("pva://my:table", pandas.DataFrame({"element": ["A"], "s": [1.0]}))
            with pytest.raises(ValueError, match="url is not well formed"):
                await client.get("my:table")
            with pytest.raises(OperationTimeout, match=r"^Timeout: get of pva://silent: no reply within 1 s"):
                await client.get("pva://silent", timeout=1.0)
            with pytest.raises(ValueError, match="which holds complex numbers"):
                await client.put("pva://my:table", np.array([1j]))

    with k2eg_gateway.clock.running():
        asyncio.run(script())
    assert table.puts == [{"element": ["A"], "s": [1.0]}]
