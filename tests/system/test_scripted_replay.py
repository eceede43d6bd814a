"""The scripted gateway replies to the recorded commands as the deployed gateway did.

Uses the cases and comparisons of test_gateway_replay.py, which runs the same commands against real EPICS.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import reactivex as rx

from k2eg_rx.protocol import connection_event
from k2eg_rx.testing import ScriptedGateway
from k2eg_rx.testing.memory_transport import MemoryTransport
from k2eg_rx.transport.interfaces import Receiver, Record


def load_recorded() -> ModuleType:
    """Returns the module with the recorded messages, which is not importable by name."""
    spec = importlib.util.spec_from_file_location("recorded_replay", Path(__file__).with_name("test_gateway_replay.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for their module
    spec.loader.exec_module(module)
    return module


REAL = load_recorded()

# Features that the scripted gateway does not have, as tests of scripts do not need them.
NOT_SUPPORTED = {
    "unions, images and tables of a PVAccess server": lambda name: any(
        "://P:" in text for _, text in REAL.CASES[name].commands
    ),
    "numbers of 64 bits, which real Channel Access rounds": lambda name: name == "put/ca/int64 array",
}
NAMES = [name for name in REAL.REPRODUCED if not any(is_unsupported(name) for is_unsupported in NOT_SUPPORTED.values())]


class RecordCollector(Receiver):
    """Records all received records but those of connections, which the deployed gateway does not publish."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def ready(self) -> bool:
        return True

    def receive(self, records: Sequence[Record]) -> None:
        self.records.extend(record for record in records if connection_event(record) is None)


def make_pvs(gateway: ScriptedGateway) -> None:
    """Creates the records of tests/data with the test kit."""
    gateway.pv("t:mbbo", "One", choices=["Zero", "One", "Two"])
    gateway.pv("t:bi", "On", choices=["Off", "On"])
    gateway.pv("t:bo", "Off", choices=["Off", "On"], severity=3, message="UDF")
    gateway.pv("t:str", "hello world", description="a string")
    gateway.pv("t:str.DESC", "a string")
    gateway.pv("t:lsi", "a long string value which is longer than forty characters for sure")
    gateway.pv("t:long", -123456, kind="int", units="cnt", limits=(-1000, 1000))
    gateway.pv("t:lout", 5, kind="int")
    gateway.pv("t:i64", 9007199254740993)
    gateway.pv("t:ao", 1.25, units="mA", limits=(-10, 10), description="an analog")
    gateway.pv("t:ao.HIGH", 6.0)
    gateway.pv("t:ao.DESC", "an analog")
    gateway.pv("t:ro", 3.0, read_only=True)
    gateway.pv("t:nan", float("nan"), severity=3, message="UDF")
    gateway.pv("t:static", 42.0)
    gateway.pv("t:static2", 43.0)
    gateway.pv("t:wfd", [1.5, 2.5, -3.0])
    gateway.pv("t:wff", [1.5, 2.25, -3.0], kind="float[]")
    gateway.pv("t:wfl", [1, 2, -3], kind="int[]")
    gateway.pv("t:wful", [1, 2, 4000000000], kind="uint[]")
    gateway.pv("t:wfs", [1, 2, -3], kind="short[]")
    gateway.pv("t:wfus", [1, 2, 65535], kind="ushort[]")
    gateway.pv("t:wfc", [72, 101, 108, 108, 111, -1], kind="byte[]")
    gateway.pv("t:wfuc", [72, 101, 255], kind="ubyte[]")
    gateway.pv("t:wfst", ["one", "two", "three"])
    gateway.pv("t:wfi64", [1, -2, 9007199254740993])
    gateway.pv("t:wfempty", [], severity=3, message="UDF")
    gateway.pv("variable:a", 0.0, limits=(0, 100))
    gateway.pv("variable:b", 0.0, limits=(0, 100))
    gateway.pv("channel:waveform", [], units="C", limits=(0, 3), description="Setpoints")
    for name, period in {
        "t:fast": 0.1,
        "T:Upper-Dash_1": 0.5,
        "variable:sum": 1.0,
        "channel:ramp:ramp": 1.0,
        "channel:ramp:rampa": 1.0,
        "channel:ramp:rampb": 1.0,
    }.items():
        pv = gateway.pv(name, 0.0)
        rx.interval(period).subscribe(lambda count, pv=pv: pv.post(count + 1.0))


@pytest.fixture(scope="module")
def replay() -> Any:
    collector = RecordCollector()
    with ScriptedGateway() as gateway:
        make_pvs(gateway)
        transport = MemoryTransport(gateway.broker, gateway.clock)
        source, sink = transport.events(collector, None), transport.sink()
        cases = map(REAL.CASES.get, NAMES)
        for topic in sorted({each["topic"] for case in cases for each in case.replies + case.events}):
            source.read(topic)
        gateway.settle()
        for at, text in REAL.timetable():
            gateway.advance(max(0.0, at - gateway.clock.elapsed))
            sink.send("commands", text.encode(), key=b"one partition, for the order")
        gateway.advance(30.0)  # longer than any timeout or window among the commands
        transport.close(0.0)
    return REAL.sort_records(collector, 0)


def test_most_recorded_commands_are_replayed() -> None:
    assert len(NAMES) > 0.8 * len(REAL.REPRODUCED)


@pytest.mark.parametrize("name", NAMES)
def test_replies(replay: Any, name: str) -> None:
    REAL.test_replies(replay, name)


def test_gets_without_an_id_are_answered_as_recorded(replay: Any) -> None:
    REAL.test_gets_without_an_id_are_answered_as_recorded(replay)


@pytest.mark.parametrize("name", [name for name in REAL.MONITORS if name in NAMES])
def test_monitor_events(replay: Any, name: str) -> None:
    REAL.test_monitor_events(replay, name)


def test_a_missing_pv_has_no_events(replay: Any) -> None:
    REAL.test_a_missing_pv_has_no_events(replay)


def test_a_snapshot_does_not_affect_a_monitor(replay: Any) -> None:
    REAL.test_a_snapshot_does_not_affect_a_monitor(replay)


@pytest.mark.parametrize("name", [name for name in REAL.SNAPSHOTS if name in NAMES])
def test_recurring_snapshots(replay: Any, name: str) -> None:
    REAL.test_recurring_snapshots(replay, name)
