"""Rows restore their items; columns for other programs."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2eg_rx import PVAddress, PVData, PVUpdate, Snapshot, WireError
from k2eg_rx.protocol.msgpack_codec import UNPACK_ERRORS
from k2eg_rx.protocol.snapshots import Samples
from k2eg_rx.recording.rows import Assembler, Kind, Recordable, Row, rows_of
from k2eg_rx.recording.value_codec import pack_exactly, unpack_exactly
from k2eg_rx.testing import snapshot, update
from k2eg_rx.transport.interfaces import Record

NOW = 1_800_000_000_000_000_000

# a structure takes a while to draw; without a deadline, for the machine may be busy
fairly = settings(max_examples=40, deadline=None)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(st.characters())
    | st.binary()
)
odd_scalars = scalars | st.integers() | st.text(st.characters(categories=["Cs", "Ll"]))
values = st.recursive(odd_scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)
structures = st.fixed_dictionaries(
    {"value": values},
    optional={
        "alarm": st.dictionaries(st.sampled_from(["severity", "status", "message"]), values),
        "timeStamp": st.dictionaries(st.sampled_from(["secondsPastEpoch", "nanoseconds", "userTag"]), values),
        "display": values,
    },
)


def exactly(value: Any) -> Any:
    """Returns a form that is equal only for identical values: types, bits of NaN and sign of zero included."""
    match value:
        case float():
            return struct.pack(">d", value)
        case dict():
            return {key: exactly(item) for key, item in value.items()}
        case list() | tuple():
            return type(value), [exactly(item) for item in value]
        case _:
            return type(value), value


def again(item: Recordable) -> Any:
    assembler = Assembler()
    fed = [assembler.feed(row) for row in rows_of(item, NOW)]
    assert fed[:-1] == [None] * (len(fed) - 1)
    assert fed[-1] is not None
    return fed[-1][1]


@fairly
@given(values)
def test_packing_is_lossless(value: Any) -> None:
    assert exactly(unpack_exactly(pack_exactly(value))) == exactly(value)


@fairly
@given(
    st.builds(
        Record,
        st.text("abc.:_", min_size=1),
        st.integers(0, 2**31 - 1),
        st.integers(0, 2**63 - 1),
        st.none() | st.binary(),
        st.none() | st.binary(),
        st.lists(st.tuples(st.text(), st.none() | st.binary() | st.text()))
        | st.lists(st.tuples(st.text(), st.none() | st.binary())).map(tuple),
        st.integers(-1, 2**50),
    )
)
def test_an_update_keeps_any_record(record: Record) -> None:
    address = PVAddress.parse("ca://X:Y.alarm.severity")
    restored = again(PVUpdate(address, record))
    assert restored.address == address
    assert restored.name == "X:Y.alarm.severity"
    assert restored.record == record
    assert type(restored.record.headers) is type(record.headers)


@fairly
@given(structures)
def test_updates_of_every_value_type(structure: dict[str, Any]) -> None:
    wire = msgpack.packb({"x": structure}, default=lambda _: None, unicode_errors="replace")
    original = PVUpdate(PVAddress.parse("pva://x"), Record("x", 0, 1, b"x", wire, [("k2eg-ser-type", b"Msgpack")]))
    restored = again(original)
    assert exactly(restored.data) == exactly(original.data)
    assert restored.timestamp == original.timestamp


@fairly
@given(structures)
def test_value_of_a_get(structure: dict[str, Any]) -> None:
    restored = again(PVData("x", structure))
    assert type(restored) is PVData
    assert restored.name == "x"
    assert exactly(restored.data) == exactly(structure)


@fairly
@given(
    st.dictionaries(st.text(), st.lists(structures, max_size=3), max_size=3),
    st.integers(),
    st.integers(),
    st.text(st.characters(categories=["Cs", "Ll"])),
)
def test_a_snapshot(data: dict[str, Any], timestamp: int, iteration: int, text: str) -> None:
    original = Snapshot("s", {pv: Samples(items) for pv, items in data.items()}, timestamp, iteration, 5, 6, -1, text)
    restored = again(original)
    assert {name: getattr(restored, name) for name in Snapshot.__slots__ if name != "data"} == {
        name: getattr(original, name) for name in Snapshot.__slots__ if name != "data"
    }
    assert list(restored.data) == list(original.data)
    assert all(type(samples) is Samples for samples in restored.data.values())
    assert exactly({pv: list(samples) for pv, samples in restored.data.items()}) == exactly(data)


def row_of(value: object, **about: Any) -> Row:
    (row,) = rows_of(update("x", value, **about), NOW)
    return row


@pytest.mark.parametrize(
    ("value", "choices", "expected"),
    [
        (1.5, None, (1.5, None, None)),
        (True, None, (1.0, 1, None)),
        (2**53 + 1, None, (float(2**53), 2**53 + 1, None)),
        (2**64 - 1, None, (float(2**64), None, None)),
        ("on", None, (None, None, "on")),
        ("Ramping", ["Off", "Ramping"], (1.0, 1, "Ramping")),
        ([1.0, 2.0], None, (None, None, None)),
        ({"s": [1.0]}, None, (None, None, None)),
    ],
)
def test_columns_of_a_value(
    value: object, choices: list[str] | None, expected: tuple[float | None, int | None, str | None]
) -> None:
    row = row_of(value, choices=choices)
    assert (row.value, row.value_int, row.text) == expected


def test_columns_of_an_update() -> None:
    row = row_of(math.nan, severity=2, fields={"alarm": {"severity": 2, "status": 3}}, timestamp=NOW + 1, arrival_ms=7)
    assert (row.kind, row.pv, row.protocol, row.time, row.severity, row.status) == ("update", "x", "pva", NOW + 1, 2, 3)
    assert row.published == 7_000_000


@pytest.mark.parametrize(
    "value",
    [{"index": 9, "choices": ["a"]}, {"index": -1, "choices": ["a"]}, {"index": 0, "choices": [3]}],
)
def test_an_enum_without_a_label(value: dict[str, Any]) -> None:
    (row,) = rows_of(PVData("x", {"value": value}), NOW)
    assert (row.value, row.text) == (value["index"], None)


def test_numbers_too_large_for_a_column_are_in_the_body_only() -> None:
    data = {
        "value": 10**400,
        "alarm": {"status": 2**40},
        "timeStamp": {"secondsPastEpoch": 2**60, "nanoseconds": 0},
    }
    (row,) = rows_of(PVData("x", data), NOW)
    assert (row.value, row.value_int, row.status, row.time) == (None, None, None, None)


def test_published_is_kafka_time_or_epics_time_or_time_of_recording() -> None:
    wire = pack_exactly({"x": {"value": 1}})
    header = [("k2eg-ser-type", b"Msgpack")]
    without = PVUpdate(PVAddress.parse("pva://x"), Record("x", 0, 0, None, wire, header, -1))
    assert row_of(1, timestamp=5_000_000_000, arrival_ms=9).published == 9_000_000
    timed = update("x", 1, timestamp=5_000_000_001)
    unarrived = PVUpdate(timed.address, timed.record._replace(timestamp_ms=-1))
    assert rows_of(unarrived, NOW)[0].published == 5_000_000_001
    assert rows_of(without, NOW)[0].published == NOW
    assert rows_of(PVData("x", timed.data), NOW)[0].published == NOW
    assert rows_of(snapshot("s", {"x": 1}, timestamp=2_000_000_000, window=1.0), NOW)[0].published == 3_000_000_000
    assert rows_of(Snapshot("s", {}), NOW)[0].published == NOW


def test_a_snapshot_is_a_row_and_one_for_each_sample() -> None:
    rows = rows_of(snapshot("orbit", {"a": [update("a", 1), update("a", 2)], "b": None}, iteration=7), NOW)
    assert [(row.kind, row.snapshot, row.iteration, row.pv, row.value_int) for row in rows] == [
        (Kind.SNAPSHOT, "orbit", 7, None, None),
        (Kind.SAMPLE, "orbit", 7, "a", 1),
        (Kind.SAMPLE, "orbit", 7, "a", 2),
    ]


def test_an_undecodable_update_is_kept() -> None:
    broken = PVUpdate(PVAddress.parse("pva://x"), Record("x", 0, 0, None, b"\xc1", [("k2eg-ser-type", b"Msgpack")]))
    (row,) = rows_of(broken, NOW)
    assert (row.body, row.value, row.published) == (b"\xc1", None, NOW)
    with pytest.raises(WireError):
        _ = again(broken).data


def test_json_survives_too() -> None:
    body = json.dumps({"x": {"value": [10**30, "\ud800", None]}}).encode()
    original = PVUpdate(PVAddress.parse("ca://x"), Record("x", 0, 0, None, body, [("k2eg-ser-type", "Json")]))
    assert again(original).value == [10**30, "\ud800", None]


def test_invalid_unicode_is_replaced_in_columns_only() -> None:
    original = PVData("x", {"value": "\ud800a"})
    assert rows_of(original, NOW)[0].text == "?a"
    assert again(original).value == "\ud800a"


def test_other_items_raise() -> None:
    with pytest.raises(ValueError, match="must be PVUpdate, PVData or Snapshot, got float"):
        rows_of(1.5, NOW)
    with pytest.raises(ValueError, match="cannot be recorded"):
        rows_of(PVData("x", {"value": object()}), NOW)


@pytest.mark.parametrize(
    "row",
    [
        Row("strange", 0),
        Row(Kind.SAMPLE, 0, pv="x", body=pack_exactly({})),
        Row(Kind.VALUE, 0, pv="x"),
        Row(Kind.VALUE, 0, body=pack_exactly({})),
        Row(Kind.VALUE, 0, pv="x", body=b"\xc1"),
    ],
)
def test_damaged_rows_raise(row: Row) -> None:
    with pytest.raises(UNPACK_ERRORS):
        Assembler().feed(row)
