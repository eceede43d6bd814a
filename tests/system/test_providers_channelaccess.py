"""Behaviour specific to Channel Access."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import msgpack
import pytest

from k2eg_rx.embedded.ioc import SoftIoc
from k2eg_rx.embedded.loopback import without_epics
from k2eg_rx.gateway.epics.ca_provider import ChannelAccessProvider
from k2eg_rx.gateway.epics.provider import ProviderError, PVReading
from k2eg_rx.pv import PVAddress

TIMEOUT = 60.0  # seconds; far more than any operation takes
PROCESS_TIMEOUT = 50.0  # seconds for a process that starts an IOC twice
DATA = Path(__file__).parents[1] / "data"


def address(name: str) -> PVAddress:
    return PVAddress.parse(f"ca://{name}")


@pytest.fixture(scope="module")
def provider(records_ioc: SoftIoc) -> Iterator[ChannelAccessProvider]:
    provider = ChannelAccessProvider()
    yield provider
    provider.close()


@pytest.fixture
def read(provider: ChannelAccessProvider) -> Callable[[str], PVReading]:
    return lambda name: provider.get(address(name), TIMEOUT).result(TIMEOUT)


@pytest.fixture
def put(provider: ChannelAccessProvider) -> Callable[[str, object], None]:
    return lambda name, value: provider.put(address(name), {"value": value}, TIMEOUT).result(TIMEOUT)


SCRIPT_HEADER = """
import base64, json, os, sys
from queue import SimpleQueue
import msgpack
from k2eg_rx.embedded.ioc import SoftIoc
from k2eg_rx.gateway.epics.ca_provider import ChannelAccessProvider
from k2eg_rx.gateway.epics.provider import ProviderTimeout
from k2eg_rx.pv import PVAddress

ioc = SoftIoc(sys.argv[1]).start()
os.environ.update(ioc.client_environment)
provider = ChannelAccessProvider()

def get(name, timeout=30.0):
    return provider.get(PVAddress.parse("ca://" + name), timeout).result(timeout + 1.0).structure

def report(**values):
    packed = msgpack.packb(values, default=lambda array: array.tolist())
    print(base64.b64encode(packed).decode(), flush=True)
"""


def run_script(script: str, *arguments: str, database: Path = DATA / "records.db") -> list[dict[str, Any]]:
    """Runs a script in a process with an IOC and a provider; returns its reports and asserts empty stderr."""
    command = [sys.executable, "-c", SCRIPT_HEADER + script, str(database), *arguments]
    done = subprocess.run(
        command, env=without_epics(), capture_output=True, text=True, timeout=PROCESS_TIMEOUT, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [msgpack.unpackb(base64.b64decode(line)) for line in done.stdout.splitlines()]


# --- structures recorded from the deployed gateway

RECORDED = {
    parts[3]: msgpack.unpackb(base64.b64decode(row["value_b64"]))[parts[3]]
    for row in map(json.loads, (DATA / "recorded.jsonl").read_text().splitlines())
    if len(parts := row["case"].split("/")) == 4
    and parts[:2] == ["get", "ca"]
    and parts[2].startswith("msgpack")
    and parts[3].startswith("t:")
}
# The deployed gateway treats all characters as signed, and packs 16-bit integers as unsigned.
DIFFERENCES = {"t:wfuc": [72, 101, 255], "t:wfs": [1, 2, -3]}


def without_time(structure: dict[str, Any]) -> str:
    """Returns a structure as text, so that NaN equals NaN and the order of fields counts."""
    return repr({name: held for name, held in structure.items() if name != "timeStamp"})


def test_structures_equal_those_of_the_deployed_gateway() -> None:
    names = sorted(RECORDED)
    assert len(names) > 15
    assert {"t:ao", "t:mbbo", "t:wfst", "t:wfuc"} <= set(names)
    (reports,) = run_script(
        "report(**{name: get(name) for name in sys.argv[2:]}); provider.close(); ioc.stop()", *names
    )
    for name in names:
        expected = RECORDED[name] | ({"value": DIFFERENCES[name]} if name in DIFFERENCES else {})
        assert without_time(reports[name]) == without_time(expected), name
        assert list(reports[name]) == list(expected), name
        assert list(reports[name]["timeStamp"]) == list(expected["timeStamp"]), name


def test_library_threads_keep_their_python_state_between_callbacks() -> None:
    (reports,) = run_script(
        """
import threading
from k2eg_rx.gateway.epics.ca_loop import CALoop

state = threading.local()  # lost with the Python state of its thread
calls = {}
loop = CALoop._current.loop
call_soon = loop.call_soon_threadsafe

def counting(*arguments):
    state.calls = getattr(state, "calls", 0) + 1
    calls.setdefault(threading.get_ident(), []).append(state.calls)
    return call_soon(*arguments)

loop.call_soon_threadsafe = counting
python = {thread.ident for thread in threading.enumerate()}  # enumerate() registers unknown threads
for _ in range(3):
    get("t:static")
report(calls=[numbers for thread, numbers in calls.items() if thread not in python])
provider.close()
ioc.stop()
"""
    )
    assert reports["calls"], "no library thread called back"
    for numbers in reports["calls"]:
        assert numbers == list(range(1, len(numbers) + 1))
    assert max(map(len, reports["calls"])) >= 3


def test_an_open_provider_is_closed_when_the_process_ends(tmp_path: Path) -> None:
    busy = tmp_path / "busy.db"  # many channels for libca to close
    busy.write_text(
        "".join(f'record(calc, "busy{n}") {{ field(CALC, "VAL+1") field(SCAN, ".1 second") }}\n' for n in range(500))
    )
    reports = run_script(
        """
events = SimpleQueue()
for number in range(500):
    updated = lambda structure, number=number: events.put(number)
    provider.subscribe(PVAddress.parse(f"ca://busy{number}"), updated, lambda connected: None)
silent = set(range(500))
while silent:
    silent.discard(events.get(timeout=30))
report(silent=len(silent))
ioc.stop()
""",
        database=busy,
    )
    assert reports == [{"silent": 0}]


def test_it_reconnects_and_prints_nothing_when_the_ioc_stops_after_close() -> None:
    reports = run_script(
        """
events = SimpleQueue()
subscription = provider.subscribe(
    PVAddress.parse("ca://t:static"),
    lambda update: events.put(update["value"]),
    lambda connected: events.put(connected),
)
report(events=[events.get(timeout=10) for _ in range(2)])
report(server_is_known=subscription.server.endswith(f":{ioc.ports.ca}"))
ioc.stop()
report(events=[events.get(timeout=10)])
try:
    get("t:static", 0.1)
except ProviderTimeout as error:
    report(error=str(error))
ioc.start()
report(events=[events.get(timeout=30) for _ in range(2)])
report(value=get("t:static")["value"])
provider.close()
ioc.stop()
report(left=events.empty())
"""
    )
    assert reports == [
        {"events": [True, 42.0]},
        {"server_is_known": True},
        {"events": [False]},
        {"error": "t:static: no answer within 0.1 s"},
        {"events": [True, 42.0]},
        {"value": 42.0},
        {"left": True},
    ]


def test_the_sign_of_characters_is_that_of_the_record_as_it_is_now(tmp_path: Path) -> None:
    database = tmp_path / "characters.db"
    record = 'record(waveform, "chars") {{ field(FTVL, "{}") field(NELM, "4") field(INP, {{const: [{}, 1]}}) }}'
    database.write_text(record.format("UCHAR", 200))
    reports = run_script(
        f"""
report(values=get("chars")["value"].tolist())
ioc.stop()
open(sys.argv[1], "w").write({record.format("CHAR", -56)!r})
ioc.start()
report(values=get("chars")["value"].tolist(), slice=get("chars.[0:0]")["value"])
provider.put(PVAddress.parse("ca://chars"), {{"value": [-1, 2]}}, 30).result(30)
report(values=get("chars")["value"].tolist())
provider.close()
ioc.stop()
""",
        database=database,
    )
    assert reports == [{"values": [200, 1]}, {"values": [-56, 1], "slice": -56}, {"values": [-1, 2]}]


def test_a_new_provider_works_after_the_last_one_was_closed() -> None:
    reports = run_script(
        """
report(value=get("t:static")["value"])
provider.close()
provider = ChannelAccessProvider()
report(value=get("t:static2")["value"])
provider.close()
ioc.stop()
"""
    )
    assert reports == [{"value": 42.0}, {"value": 43.0}]


# --- types and limits of Channel Access


def test_empty_values_of_one_element_are_read_monitored_and_written(
    provider: ChannelAccessProvider, read: Callable[[str], PVReading], put: Callable[[str, object], None]
) -> None:
    assert read("t:lsoempty").structure["value"] == ""
    assert read("t:wfst1").structure["value"] == ""
    assert read("t:wfd1").structure["value"] == 0.0
    texts: SimpleQueue[str] = SimpleQueue()
    subscription = provider.subscribe(
        address("t:lsoempty"), lambda update: texts.put(update["value"]), lambda connected: None
    )
    assert texts.get(timeout=TIMEOUT) == ""
    for text in ("one", "", "two", ""):
        put("t:lsoempty", text)
        assert texts.get(timeout=TIMEOUT) == text
    subscription.close()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("t:ao", "double"),
        ("t:lout", "int"),
        ("t:i64", "double"),
        ("t:str", "string"),
        ("t:mbbo", "enum"),
        ("t:ao.PREC", "short"),
        ("t:ao.DISP", "ubyte"),
        ("t:ao.SCAN", "enum"),
        ("t:ao.DESC$", "string"),
        ("t:wff", "float[]"),
        ("t:wful", "double[]"),
        ("t:wfs", "short[]"),
        ("t:wfus", "int[]"),
        ("t:wfc", "byte[]"),
        ("t:wfc.VAL", "byte[]"),
        ("t:wfuc", "ubyte[]"),
        ("t:wfst", "string[]"),
    ],
)
def test_types_have_pvdata_names(read: Callable[[str], PVReading], name: str, kind: str) -> None:
    reading = read(name)
    assert reading.types["value"] == kind
    assert reading.types.keys() == reading.structure.keys()


def test_long_strings_are_read_and_written_with_a_dollar_suffix(
    read: Callable[[str], PVReading], put: Callable[[str, object], None]
) -> None:
    for name, text in (("t:lsi.VAL$", "x" * 150), ("t:ao.DESC$", "désc"), ("t:ao.DESC$", "")):
        put(name, text)
        assert read(name).structure["value"] == text


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("t:str", "x" * 40, "is longer than the 39 bytes that Channel Access carries for it"),
        ("t:wfst", ["a", "x" * 40], "is longer than the 39 bytes that Channel Access carries for it"),
        ("t:ao.DESC$", "x" * 100, "bytes that Channel Access carries for it"),
        ("t:wfd", [0.0] * 6, "has 6 elements; there is room for 5"),
        ("t:ao.NAME", "other", "^t:ao.NAME: Write access denied"),
        ("t:ao.alarm.severity", 1, "over Channel Access only the value can be put"),
        ("t:ro", 9.0, "^t:ro: Channel write request failed; its record does not take it, as one with DISP=1$"),
    ],
)
def test_limits_of_the_protocol_and_rejections_by_the_server_raise(
    put: Callable[[str, object], None], name: str, value: object, why: str
) -> None:
    with pytest.raises(ProviderError, match=why):
        put(name, value)


def test_the_first_value_is_delivered_once(provider: ChannelAccessProvider, put: Callable[[str, object], None]) -> None:
    put("t:lout", 1)
    updates: SimpleQueue[Any] = SimpleQueue()
    for _ in range(5):
        subscription = provider.subscribe(
            address("t:lout"), lambda update: updates.put(update["value"]), lambda connected: None
        )
        assert updates.get(timeout=TIMEOUT) == 1
        put("t:lout", 2)
        assert updates.get(timeout=TIMEOUT) == 2
        put("t:lout", 1)
        assert updates.get(timeout=TIMEOUT) == 1
        subscription.close()


def test_strings_and_enums_can_be_monitored(
    provider: ChannelAccessProvider, put: Callable[[str, object], None]
) -> None:
    put("t:bo", "Off")
    put("t:str", "before")
    values: SimpleQueue[Any] = SimpleQueue()
    for name, first, then in (
        ("t:str", "before", "after"),
        ("t:bo", {"index": 0, "choices": ["Off", "On"]}, {"index": 1, "choices": ["Off", "On"]}),
    ):
        subscription = provider.subscribe(
            address(name), lambda update: values.put(update["value"]), lambda connected: None
        )
        assert values.get(timeout=TIMEOUT) == first
        put(name, then if isinstance(then, str) else "On")
        assert values.get(timeout=TIMEOUT) == then
        subscription.close()


def test_providers_share_a_thread_that_ends_with_the_last_one() -> None:
    reports = run_script(
        """
import threading
other = ChannelAccessProvider()
report(value=other.get(PVAddress.parse("ca://t:static"), 30.0).result(30.0).structure["value"])
threads = lambda: sum(thread.name == "k2eg-ca" for thread in threading.enumerate())
report(threads=threads())
provider.close()
report(threads=threads(), value=other.get(PVAddress.parse("ca://t:static2"), 30.0).result(30.0).structure["value"])
other.close()
report(threads=threads())
ioc.stop()
"""
    )
    assert reports == [{"value": 42.0}, {"threads": 1}, {"threads": 1, "value": 43.0}, {"threads": 0}]
