"""Conversion of items to rows and back, and the columns for other programs."""

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
from k2eg_rx.recording.assembler import Assembler
from k2eg_rx.recording.rows import Kind, Recordable, Row, rows_of
from k2eg_rx.recording.value_codec import pack_exactly, unpack_exactly
from k2eg_rx.testing import snapshot, update
from k2eg_rx.transport.interfaces import Record

NOW = 1_800_000_000_000_000_000

# fewer examples, as structures are slow to generate; no deadline, as the machine may be busy
examples = settings(max_examples=40, deadline=None)

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


def exact_form(value: Any) -> Any:
    """Returns a form that is equal only for identical values: types, bits of NaN and sign of zero included."""
    match value:
        case float():
            return struct.pack(">d", value)
        case dict():
            return {key: exact_form(item) for key, item in value.items()}
        case list() | tuple():
            return type(value), [exact_form(item) for item in value]
        case _:
            return type(value), value


def restored_from(item: Recordable) -> Any:
    assembler = Assembler()
    results = [assembler.feed(row) for row in rows_of(item, NOW)]
    assert results[:-1] == [None] * (len(results) - 1)
    assert results[-1] is not None
    return results[-1][1]


@examples
@given(values)
def test_packing_restores_the_exact_value(value: Any) -> None:
    assert exact_form(unpack_exactly(pack_exactly(value))) == exact_form(value)


@examples
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
        st.just(value=False),  # recordings do not keep it
    )
)
def test_an_update_is_restored_with_its_record(record: Record) -> None:
    address = PVAddress.parse("ca://X:Y.alarm.severity")
    restored = restored_from(PVUpdate(address, record))
    assert restored.address == address
    assert restored.name == "X:Y.alarm.severity"
    assert restored.record == record
    assert type(restored.record.headers) is type(record.headers)


@examples
@given(structures)
def test_an_update_is_restored_with_its_structure(structure: dict[str, Any]) -> None:
    wire = msgpack.packb({"x": structure}, default=lambda _: None, unicode_errors="replace")
    original = PVUpdate(PVAddress.parse("pva://x"), Record("x", 0, 1, b"x", wire, [("k2eg-ser-type", b"Msgpack")]))
    restored = restored_from(original)
    assert exact_form(restored.data) == exact_form(original.data)
    assert restored.timestamp == original.timestamp


@examples
@given(structures)
def test_a_get_result_is_restored(structure: dict[str, Any]) -> None:
    restored = restored_from(PVData("x", structure))
    assert type(restored) is PVData
    assert restored.name == "x"
    assert exact_form(restored.data) == exact_form(structure)


@examples
@given(
    st.dictionaries(st.text(), st.lists(structures, max_size=3), max_size=3),
    st.integers(),
    st.integers(),
    st.text(st.characters(categories=["Cs", "Ll"])),
)
def test_a_snapshot_is_restored(data: dict[str, Any], timestamp: int, iteration: int, text: str) -> None:
    samples = {pv: Samples(items) for pv, items in data.items()}
    original = Snapshot("s", samples, timestamp, iteration, 5, 6, -1, text, missing=2, tags={text: text})
    restored = restored_from(original)
    assert {name: getattr(restored, name) for name in Snapshot.__slots__ if name != "data"} == {
        name: getattr(original, name) for name in Snapshot.__slots__ if name != "data"
    }
    assert list(restored.data) == list(original.data)
    assert all(type(samples) is Samples for samples in restored.data.values())
    assert exact_form({pv: list(samples) for pv, samples in restored.data.items()}) == exact_form(data)


def row_of(value: object, **options: Any) -> Row:
    (row,) = rows_of(update("x", value, **options), NOW)
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
def test_a_value_has_its_columns(
    value: object, choices: list[str] | None, expected: tuple[float | None, int | None, str | None]
) -> None:
    row = row_of(value, choices=choices)
    assert (row.value, row.value_int, row.text) == expected


def test_an_update_has_columns_for_alarm_and_time() -> None:
    row = row_of(math.nan, severity=2, fields={"alarm": {"severity": 2, "status": 3}}, timestamp=NOW + 1, arrival_ms=7)
    assert (row.kind, row.pv, row.protocol, row.time, row.severity, row.status) == ("update", "x", "pva", NOW + 1, 2, 3)
    assert row.published == 7_000_000


@pytest.mark.parametrize(
    "value",
    [{"index": 9, "choices": ["a"]}, {"index": -1, "choices": ["a"]}, {"index": 0, "choices": [3]}],
)
def test_an_enum_without_a_label_has_no_text(value: dict[str, Any]) -> None:
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


def test_published_is_kafkas_timestamp_or_epics_time_or_the_recording_time() -> None:
    wire = pack_exactly({"x": {"value": 1}})
    header = [("k2eg-ser-type", b"Msgpack")]
    without_time = PVUpdate(PVAddress.parse("pva://x"), Record("x", 0, 0, None, wire, header, -1))
    assert row_of(1, timestamp=5_000_000_000, arrival_ms=9).published == 9_000_000
    timed = update("x", 1, timestamp=5_000_000_001)
    without_kafka_time = PVUpdate(timed.address, timed.record._replace(timestamp_ms=-1))
    assert rows_of(without_kafka_time, NOW)[0].published == 5_000_000_001
    assert rows_of(without_time, NOW)[0].published == NOW
    assert rows_of(PVData("x", timed.data), NOW)[0].published == NOW
    assert rows_of(snapshot("s", {"x": 1}, timestamp=2_000_000_000, window=1.0), NOW)[0].published == 3_000_000_000
    assert rows_of(Snapshot("s", {}), NOW)[0].published == NOW


def test_a_snapshot_of_version_0_1_is_restored() -> None:
    original = snapshot("orbit", {"a": [update("a", 1), update("a", 2)]}, iteration=7)
    first, *others = rows_of(original, NOW)
    assert first.body is not None
    head = {name: field for name, field in unpack_exactly(first.body).items() if name not in ("missing", "tags")}
    for name in ("timestamp", "header_timestamp", "tail_timestamp"):
        head[name] //= 1_000_000
    reader = Assembler()
    restored = [reader.feed(row) for row in (first._replace(body=pack_exactly(head)), *others)]
    assert restored[-1] is not None
    assert restored[-1][1] == original


def test_a_snapshot_has_a_row_and_one_per_sample() -> None:
    rows = rows_of(snapshot("orbit", {"a": [update("a", 1), update("a", 2)], "b": None}, iteration=7), NOW)
    assert [(row.kind, row.snapshot, row.iteration, row.pv, row.value_int) for row in rows] == [
        (Kind.SNAPSHOT, "orbit", 7, None, None),
        (Kind.SAMPLE, "orbit", 7, "a", 1),
        (Kind.SAMPLE, "orbit", 7, "a", 2),
    ]


def test_an_undecodable_update_is_recorded() -> None:
    broken = PVUpdate(PVAddress.parse("pva://x"), Record("x", 0, 0, None, b"\xc1", [("k2eg-ser-type", b"Msgpack")]))
    (row,) = rows_of(broken, NOW)
    assert (row.body, row.value, row.published) == (b"\xc1", None, NOW)
    with pytest.raises(WireError):
        _ = restored_from(broken).data


def test_a_json_record_is_restored() -> None:
    body = json.dumps({"x": {"value": [10**30, "\ud800", None]}}).encode()
    original = PVUpdate(PVAddress.parse("ca://x"), Record("x", 0, 0, None, body, [("k2eg-ser-type", "Json")]))
    assert restored_from(original).value == [10**30, "\ud800", None]


def test_invalid_unicode_is_replaced_in_columns_only() -> None:
    original = PVData("x", {"value": "\ud800a"})
    assert rows_of(original, NOW)[0].text == "?a"
    assert restored_from(original).value == "\ud800a"


def test_unsupported_items_are_rejected() -> None:
    with pytest.raises(ValueError, match="must be PVUpdate, PVData or Snapshot, got float"):
        rows_of(1.5, NOW)
    with pytest.raises(ValueError, match="cannot be recorded"):
        rows_of(PVData("x", {"value": object()}), NOW)


@pytest.mark.parametrize(
    "row",
    [
        Row("unknown", 0),
        Row(Kind.SAMPLE, 0, pv="x", body=pack_exactly({})),
        Row(Kind.VALUE, 0, pv="x"),
        Row(Kind.VALUE, 0, body=pack_exactly({})),
        Row(Kind.VALUE, 0, pv="x", body=b"\xc1"),
    ],
)
def test_damaged_rows_are_rejected(row: Row) -> None:
    with pytest.raises(UNPACK_ERRORS):
        Assembler().feed(row)
