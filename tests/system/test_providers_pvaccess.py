"""Behaviour specific to PVAccess: custom structures, p4p servers, reconnection."""

from __future__ import annotations

import base64
import importlib.util
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

import msgpack
import numpy as np
import pytest
from p4p import Type, Value
from p4p.nt import NTEnum, NTScalar
from p4p.server import Server
from p4p.server.raw import SharedPV

from k2eg_rx.embedded.ioc import SoftIoc
from k2eg_rx.embedded.loopback import ServerPorts, merge_client_environments
from k2eg_rx.embedded.table_server import TableServer
from k2eg_rx.gateway.epics.provider import ProviderError, ProviderTimeout, PVReading
from k2eg_rx.gateway.epics.pva_provider import PVAccessProvider
from k2eg_rx.pv import PVAddress

TIMEOUT = 60.0  # seconds; far more than any operation takes
RECONNECTION = 40.0  # seconds; p4p repeats a search after at most 30 s
DATA = Path(__file__).parents[1] / "data"


class HasClientEnvironment(Protocol):
    client_environment: Any


def address(name: str) -> PVAddress:
    return PVAddress.parse(f"pva://{name}")


def plain(item: Any) -> Any:
    """Returns a structure with lists instead of arrays."""
    match item:
        case dict():
            return {name: plain(field) for name, field in item.items()}
        case list():
            return [plain(element) for element in item]
        case np.ndarray():
            return item.tolist()
        case _:
            return item


@pytest.fixture(scope="module")
def provider(records_ioc: SoftIoc, pvs_server: HasClientEnvironment) -> Iterator[PVAccessProvider]:
    environment = merge_client_environments(records_ioc.client_environment, pvs_server.client_environment)
    provider = PVAccessProvider(environment)
    yield provider
    provider.close()


@pytest.fixture
def read(provider: PVAccessProvider) -> Callable[[str], PVReading]:
    return lambda name: provider.get(address(name), TIMEOUT).result(TIMEOUT)


@pytest.fixture
def get(read: Callable[[str], PVReading]) -> Callable[[str], Any]:
    return lambda name: plain(read(name).structure)


@pytest.fixture
def put(provider: PVAccessProvider) -> Callable[[str, dict[str, Any]], None]:
    return lambda name, fields: provider.put(address(name), fields, TIMEOUT).result(TIMEOUT)


# --- structures recorded from the deployed gateway

RECORDED = {
    parts[3]: msgpack.unpackb(base64.b64decode(row["value_b64"]))[parts[3]]
    for row in map(json.loads, (DATA / "recorded.jsonl").read_text().splitlines())
    if len(parts := row["case"].split("/")) == 4
    and parts[0] == "get"
    and parts[1] in ("pva", "p4p")
    and parts[2].startswith("msgpack")
    and parts[3].startswith(("t:", "P:"))
}
# The deployed gateway packs 16-bit integers as unsigned.
DIFFERENCES = {"t:wfs": [1, 2, -3]}


@pytest.fixture(scope="module")
def untouched() -> Iterator[PVAccessProvider]:
    """A provider of PVs that no other test changes."""
    specification = importlib.util.spec_from_file_location("pvs", DATA / "pvs.py")
    assert specification is not None
    assert specification.loader is not None
    pvs = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(pvs)
    ports = ServerPorts.free()
    server = Server(providers=[pvs.process_variables()], conf=ports.pva_server_environment, useenv=False)
    with server, SoftIoc(DATA / "records.db") as ioc:
        provider = PVAccessProvider(merge_client_environments(ioc.client_environment, ports.pva_client_environment))
        yield provider
        provider.close()


def test_gets_and_puts_do_not_wait_for_monitors(provider: PVAccessProvider) -> None:
    handled, handling = threading.Event(), threading.Event()

    def handle(_: object) -> None:
        handling.set()
        assert handled.wait(TIMEOUT)

    subscription = provider.subscribe(address("P:RW"), handle, lambda _: None)
    try:
        assert handling.wait(TIMEOUT)
        provider.put(address("P:RW"), {"value": 2.5}, TIMEOUT).result(TIMEOUT)
        assert provider.get(address("P:RW"), TIMEOUT).result(TIMEOUT).structure["value"] == 2.5
    finally:
        handled.set()
        subscription.close()


def without_time(structure: Any) -> str:
    """Returns a structure as text, so that NaN equals NaN and the order of fields counts."""
    return repr({name: field for name, field in plain(structure).items() if name != "timeStamp"})


def test_recorded_structures_exist() -> None:
    assert len(RECORDED) > 25
    assert {"P:TABLE", "P:IMG", "P:ENUM", "t:ao", "t:wfst", "t:mbbo"} <= RECORDED.keys()


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_a_structure_equals_that_of_the_deployed_gateway(untouched: PVAccessProvider, name: str) -> None:
    expected = RECORDED[name] | ({"value": DIFFERENCES[name]} if name in DIFFERENCES else {})
    structure = untouched.get(address(name), TIMEOUT).result(TIMEOUT).structure
    assert without_time(structure) == without_time(expected)
    assert list(structure) == list(expected)
    assert list(structure["timeStamp"]) == list(expected["timeStamp"])


def test_a_custom_structure_is_complete(untouched: PVAccessProvider) -> None:
    structure = plain(untouched.get(address("P:CUSTOM"), TIMEOUT).result(TIMEOUT).structure)
    assert structure == {
        "a": 7,
        "b": "bee",
        "sub": {"x": 1.5, "arr": [1.0, 2.0], "flag": True},
        "list": [{"k": "k1", "v": 1}, {"k": "k2", "v": -2}],
        "u": {"s": "uval"},
        "any": {"": 3.25},
        "anylist": [],
        "u8": 200,
        "f32": pytest.approx(0.1),
        "ul": 2**64 - 1,
        "as": ["p", "q"],
        "ab": [True, False],
    }
    assert list(structure) == ["a", "b", "sub", "list", "u", "any", "anylist", "u8", "f32", "ul", "as", "ab"]


@pytest.mark.parametrize("name", ["P:RW", "P:ARR", "P:FAST", "P:SLOW", "P:RATE", "t:fast", "T:Upper-Dash_1"])
def test_the_other_pvs_can_be_read(untouched: PVAccessProvider, name: str) -> None:
    reading = untouched.get(address(name), TIMEOUT).result(TIMEOUT)
    assert reading.types["value"] == ("double[]" if name == "P:ARR" else "double")
    assert reading.structure.keys() == reading.types.keys()


# --- types and puts beyond Channel Access


def test_the_types_of_a_table_are_those_of_its_columns(read: Callable[[str], PVReading]) -> None:
    types = read("P:TABLE").types
    assert types["value"] == {"element": "string[]", "device_name": "string[]", "s": "double[]", "n": "int[]"}
    assert types["labels"] == "string[]"


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("P:CUSTOM", {"a": 99}),
        ("P:CUSTOM", {"sub": {"x": 8.5}}),
        ("P:CUSTOM", {"sub": {"arr": [], "flag": False}, "b": "bzz"}),
        ("P:CUSTOM", {"list": [{"k": "z", "v": 5}]}),
        ("P:CUSTOM", {"u": {"i": 9}}),
        ("P:CUSTOM", {"any": {"": "text"}}),
        ("P:CUSTOM", {"anylist": [{"": 1}, {"": "x"}, {"": [1.5]}]}),
        ("P:CUSTOM", {"ul": 2**64 - 1, "u8": 0, "f32": 0.5, "as": [], "ab": [False]}),
        ("P:RW", {"value": -2.5}),
        ("P:STR", {"value": "long enough to be cut by Channel Access, which carries 39"}),
        ("P:BOOL", {"value": False}),
        ("P:ARR", {"value": [1.0, 2.0]}),
        ("t:lsi", {"value": "y" * 150}),
        ("P:TABLE", {"value": {"element": ["A"], "device_name": ["a"], "s": [1.0], "n": [5]}}),
    ],
)
def test_a_put_of_fields_does_not_change_others(
    get: Callable[[str], Any], put: Callable[[str, dict[str, Any]], None], name: str, fields: dict[str, Any]
) -> None:
    before = get(name)
    put(name, fields)
    after = get(name)

    def expected(was: Any, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(was, dict) or set(given) - set(was):
            return given
        return {field: expected(current, given[field]) if field in given else current for field, current in was.items()}

    for structure in (before, after):
        structure.pop("timeStamp", None)
    assert after == expected(before, fields)


def test_an_enum_accepts_a_label(get: Callable[[str], Any], put: Callable[[str, dict[str, Any]], None]) -> None:
    put("P:ENUM", {"value": "C"})
    assert get("P:ENUM")["value"] == {"index": 2, "choices": ["A", "B", "C"]}


def test_a_structure_path_can_be_written(get: Callable[[str], Any], put: Callable[[str, dict[str, Any]], None]) -> None:
    put("P:CUSTOM.sub.x", {"value": 3.25})
    assert get("P:CUSTOM.sub.x") == {"value": 3.25}
    with pytest.raises(ProviderError, match="No fields to update"):
        put("P:CUSTOM.sub.nope", {"value": 3.25})


@pytest.mark.parametrize(
    ("name", "fields", "why"),
    [
        ("P:RO", {"value": 3.0}, "^this PV is read only$"),
        ("t:ro", {"value": 9.0}, "^Unable to put value: Field Disabled: S_db_putDisabled$"),
        ("P:TABLE", {"value": {"s": [9.0, 9.0]}}, "^ValueError"),  # this server requires all columns
        ("P:TABLE", {"value": {"zzz": [9.0]}}, "has a column 'zzz'; there are element, device_name, s, n"),
        ("P:TABLE", {"value": {"s": [9.0], "n": [1, 2]}}, "has columns of different lengths"),
        ("P:CUSTOM", {"u": {"zzz": 1}}, "does not select one of i, s"),
        ("P:CUSTOM", {"u8": 256}, "is of type ubyte; 256 is not between 0 and 255"),
        ("P:BOOL", {"value": 2}, "is neither true nor false"),
    ],
)
def test_rejections_by_the_server_and_invalid_types_raise(
    get: Callable[[str], Any], put: Callable[[str, dict[str, Any]], None], name: str, fields: dict[str, Any], why: str
) -> None:
    before = get(name)
    with pytest.raises(ProviderError, match=why):
        put(name, fields)
    assert repr(get(name)) == repr(before)  # as text, NaN equals NaN


# --- subscriptions


def test_changed_union_members_and_array_lengths_are_delivered_completely(provider: PVAccessProvider) -> None:
    spec = Type([("value", ("U", None, [("i", "i"), ("text", "s")])), ("n", "ad"), ("note", "s")])
    pv = SharedPV(initial=Value(spec, {"value": ("i", 1), "n": [1.0], "note": "kept"}))
    ports = ServerPorts.free()
    updates: SimpleQueue[Any] = SimpleQueue()
    with Server(providers=[{"own": pv}], conf=ports.pva_server_environment, useenv=False):
        own = PVAccessProvider(ports.pva_client_environment)
        own.subscribe(address("own"), updates.put, lambda connected: None)
        assert plain(updates.get(timeout=TIMEOUT)) == {"value": {"i": 1}, "n": [1.0], "note": "kept"}
        pv.post(Value(spec, {"value": ("text", "x")}))
        pv.post(Value(spec, {"n": [1.0, 2.0]}))
        received = [plain(updates.get(timeout=TIMEOUT)) for _ in range(2)]
        own.close()
    assert received == [
        {"value": {"text": "x"}, "n": [1.0], "note": "kept"},
        {"value": {"text": "x"}, "n": [1.0, 2.0], "note": "kept"},
    ]


def test_a_burst_of_updates_is_delivered_completely_and_in_order(provider: PVAccessProvider) -> None:
    spec = Type([("value", "i")])
    pv = SharedPV(initial=Value(spec, {"value": 0}))
    ports = ServerPorts.free()
    updates: SimpleQueue[Any] = SimpleQueue()
    with Server(providers=[{"burst": pv}], conf=ports.pva_server_environment, useenv=False):
        own = PVAccessProvider(ports.pva_client_environment)
        own.subscribe(address("burst"), lambda update: updates.put(update["value"]), lambda connected: None)
        assert updates.get(timeout=TIMEOUT) == 0
        for number in range(1, 51):  # half the capacity of the subscription's queue
            pv.post(Value(spec, {"value": number}))
        assert [updates.get(timeout=TIMEOUT) for _ in range(50)] == list(range(1, 51))
        own.close()


def test_library_threads_keep_their_python_state_between_callbacks(provider: PVAccessProvider) -> None:
    state = threading.local()  # lost with the Python state of its thread
    callbacks: SimpleQueue[tuple[int, int]] = SimpleQueue()

    def count(_: object) -> None:
        state.calls = getattr(state, "calls", 0) + 1
        callbacks.put((threading.get_ident(), state.calls))

    seen: Counter[int] = Counter()
    while max((calls for thread, calls in seen.items() if thread != threading.get_ident()), default=0) < 3:
        # p4p has several threads; the callback of a completed future runs on this one
        provider.get(address("P:RW"), TIMEOUT).add_done_callback(count)
        thread, calls = callbacks.get(timeout=TIMEOUT)
        seen[thread] += 1
        assert calls == seen[thread]


def test_a_slow_callback_blocks_neither_calls_nor_close(provider: PVAccessProvider) -> None:
    entered, proceed = threading.Event(), threading.Event()

    def slow(update: Any) -> None:
        entered.set()
        proceed.wait(TIMEOUT)

    subscription = provider.subscribe(address("P:RW"), slow, lambda connected: None)
    assert entered.wait(TIMEOUT)
    getting = provider.get(address("P:RW"), TIMEOUT)
    other = provider.subscribe(address("P:RW"), lambda update: None, lambda connected: None)
    other.close()
    subscription.close()
    assert "value" in getting.result(TIMEOUT).structure
    proceed.set()


TEXT = NTScalar.buildType("s")
UNION = [("d", "d"), ("f", "f"), ("s", "s"), ("ad", "ad"), ("st", ("S", None, [("x", "d")]))]


@pytest.fixture
def served() -> Iterator[tuple[PVAccessProvider, dict[str, SharedPV]]]:
    """A provider, and PVs of a server in this process that are not valid UTF-8 or have unions in arrays."""
    unions = Value(Type([("value", ("aU", None, UNION))]))
    unions["value"] = [("d", 1.5), ("f", 0.5), ("s", "two"), ("ad", [1.0]), ("ad", []), ("st", {"x": 2.5})]
    labels = NTEnum().wrap({"index": 1, "choices": ["a"]})
    labels["value.choices"] = ["Off", b"20 \xb0C"]
    pvs = {
        "my:text": SharedPV(initial=Value(TEXT, {"value": b"20 \xb0C"})),
        "my:labels": SharedPV(initial=labels, handler=Storing()),
        "my:unions": SharedPV(initial=unions),
    }
    with Server(providers=[pvs], isolate=True) as server:
        provider = PVAccessProvider(server.conf())
        yield provider, pvs
        provider.close()


class Storing:
    def put(self, pv: Any, operation: Any) -> None:
        pv.post(operation.value())
        operation.done()


def test_texts_that_are_not_utf8_are_read_and_cost_no_update(
    served: tuple[PVAccessProvider, dict[str, SharedPV]],
) -> None:
    provider, pvs = served
    texts: SimpleQueue[str] = SimpleQueue()
    subscription = provider.subscribe(
        address("my:text"), lambda update: texts.put(update["value"]), lambda connected: None
    )
    assert texts.get(timeout=TIMEOUT) == "20 \ufffdC"
    for posted, shown in (("good", "good"), (b"\xff", "\ufffd"), ("again", "again")):
        pvs["my:text"].post(Value(TEXT, {"value": posted}))
        assert texts.get(timeout=TIMEOUT) == shown
    subscription.close()
    assert provider.get(address("my:text"), TIMEOUT).result(TIMEOUT).structure["value"] == "again"
    provider.put(address("my:labels"), {"value": "20 \ufffdC"}, TIMEOUT).result(TIMEOUT)
    labels = provider.get(address("my:labels"), TIMEOUT).result(TIMEOUT).structure["value"]
    assert labels == {"index": 1, "choices": ["Off", "20 \ufffdC"]}


def test_unions_in_arrays_have_their_selected_member(served: tuple[PVAccessProvider, dict[str, SharedPV]]) -> None:
    provider, _ = served
    structure = provider.get(address("my:unions"), TIMEOUT).result(TIMEOUT).structure
    expected = [{"d": 1.5}, {"f": 0.5}, {"s": "two"}, {"ad": [1.0]}, {"ad": []}, {"st": {"x": 2.5}}]
    assert plain(structure)["value"] == expected


def test_it_reconnects_when_the_server_restarts() -> None:
    updates: SimpleQueue[Any] = SimpleQueue()
    connections: SimpleQueue[bool] = SimpleQueue()
    ioc = SoftIoc(DATA / "records.db", {"P": "restart:"})
    with ioc:
        provider = PVAccessProvider(ioc.client_environment)
        provider.subscribe(address("restart:t:static"), updates.put, connections.put)
        assert connections.get(timeout=TIMEOUT) is True
        provider.put(address("restart:t:static"), {"value": 7.0}, TIMEOUT).result(TIMEOUT)
        assert [updates.get(timeout=TIMEOUT)["value"] for _ in range(2)] == [42.0, 7.0]
    assert connections.get(timeout=TIMEOUT) is False
    with pytest.raises(ProviderTimeout):
        provider.get(address("restart:t:static"), 0.1).result(TIMEOUT)
    with ioc:
        assert connections.get(timeout=RECONNECTION) is True
        assert updates.get(timeout=RECONNECTION)["value"] == 42.0
        assert provider.get(address("restart:t:static"), RECONNECTION).result(RECONNECTION).types["value"] == "double"
        provider.close()
    assert connections.empty()


def test_it_reconnects_to_a_pv_of_another_type() -> None:
    updates: SimpleQueue[Any] = SimpleQueue()
    ports = ServerPorts.free()
    provider = PVAccessProvider(ports.pva_client_environment)
    provider.subscribe(address("own"), updates.put, lambda connected: None)
    for spec, value, structure in (
        ([("value", "i")], {"value": 1}, {"value": 1}),
        ([("value", ("U", None, [("a", "i")]))], {"value": ("a", 5)}, {"value": {"a": 5}}),
    ):
        pv = SharedPV(initial=Value(Type(spec), value))
        with Server(providers=[{"own": pv}], conf=ports.pva_server_environment, useenv=False):
            assert updates.get(timeout=RECONNECTION) == structure
    provider.close()


def test_a_channel_stays_open_between_operations(records_ioc: SoftIoc) -> None:
    """A closed channel costs a search per get; p4p closes it when all of its operations are closed."""
    provider = PVAccessProvider(records_ioc.client_environment)
    for _ in range(3):
        provider.get(address("t:static"), TIMEOUT).result(TIMEOUT)
    provider.get(address("t:ao"), TIMEOUT).result(TIMEOUT)
    with pytest.raises(ProviderTimeout):
        provider.get(address("no:such:pv"), 0.05).result(TIMEOUT)
    assert list(provider._channels) == ["t:static", "t:ao"]
    assert not provider._pending
    provider.close()
    assert not provider._channels


# --- the table server of the demo


def test_a_table_server_accepts_tables_and_columns_of_equal_length() -> None:
    rows = [{"name": "one", "n": 1}, {"name": "two", "n": 2}]
    with TableServer("my:table", {"name": "s", "n": "i"}, rows) as server:
        provider = PVAccessProvider(server.client_environment)

        def put(columns: dict[str, Any]) -> None:
            provider.put(address("my:table"), {"value": columns}, TIMEOUT).result(TIMEOUT)

        structure = provider.get(address("my:table"), TIMEOUT).result(TIMEOUT).structure
        assert structure["labels"] == ["name", "n"]
        assert plain(structure["value"]) == {"name": ["one", "two"], "n": [1, 2]}
        assert structure["timeStamp"]["secondsPastEpoch"] > 0
        put({"name": ["a", "b", "c"], "n": [1, 2, 3]})
        put({"n": [4, 5, 6]})
        assert server.columns == {"name": ["a", "b", "c"], "n": [4, 5, 6]}
        with pytest.raises(ProviderError, match="the columns of a table must have one length"):
            put({"n": [7]})
        assert server.columns == {"name": ["a", "b", "c"], "n": [4, 5, 6]}
        provider.close()


def test_a_table_server_without_rows_has_its_columns() -> None:
    with TableServer("my:table", {"name": "s", "n": "i"}) as server:
        provider = PVAccessProvider(server.client_environment)
        structure = provider.get(address("my:table"), TIMEOUT).result(TIMEOUT).structure
        assert plain(structure["value"]) == {"name": [], "n": []}
        provider.close()
    server.stop()
