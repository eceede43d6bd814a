"""Columns equal what the updates of the same events have, whether they are read by templates or one by one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2eg_rx.errors import OperationError, WireError
from k2eg_rx.protocol import NO_TIME, Column, PVUpdate, Record, decode
from k2eg_rx.protocol.column_decoder import ColumnDecoder
from k2eg_rx.protocol.event_template import EventTemplate, UnsuitableEventError
from k2eg_rx.protocol.msgpack_codec import pack
from k2eg_rx.pv import PVAddress

X = PVAddress.parse("pva://x")
MSGPACK: Any = [("k2eg-ser-type", b"Msgpack")]
SECONDS = 1_700_000_000
MANY = 40  # events: enough for a template


def structure(value: object, nanoseconds: object = 1_000_000, **alarm: object) -> dict[str, Any]:
    return {
        "value": value,
        "alarm": {"severity": 0, "status": 0, "message": "", **alarm},
        "timeStamp": {"secondsPastEpoch": SECONDS, "nanoseconds": nanoseconds, "userTag": 0},
        "display": {"units": "mm", "limitLow": -1.0},
    }


def records(bodies: Sequence[bytes], headers: Any = MSGPACK) -> list[Record]:
    return [Record("x", 0, offset, b"x", body, headers) for offset, body in enumerate(bodies)]


def events(structures: Sequence[dict[str, Any]]) -> list[Record]:
    return records([pack({"x": each}) for each in structures])


def column_of(given: Sequence[Record], errors: list[WireError] | None = None, address: PVAddress = X) -> Column:
    found: list[WireError] = [] if errors is None else errors
    decoder = ColumnDecoder(address, found.append)
    count = decoder.add(given)
    column = decoder.take()
    assert column is not None
    assert count == len(column) == len(column.value) == len(column.severity) == len(column.status)
    assert decoder.take() is None
    return column


def same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return one == other


def check(given: Sequence[Record]) -> None:
    """Compares a column with the updates of the same events."""
    errors: list[WireError] = []
    updates: list[tuple[Any, int, int, int, int]] = []
    expected: list[str] = []
    for record in given:
        update = PVUpdate(X, record)
        try:
            update.load()
        except WireError as error:
            expected.append(str(error))
            continue
        time = update.timestamp
        within = time is not None and -(2**63) < time < 2**63
        status = update.alarm.status if -(2**31) <= update.alarm.status < 2**31 else 0
        updates.append((update.value, update.severity, status, time if time is not None and within else NO_TIME, 0))
    decoder = ColumnDecoder(X, errors.append)
    assert decoder.add(given) == len(updates)
    assert [str(error) for error in errors] == expected
    column = decoder.take()
    if column is None:
        assert updates == []
        return
    assert column.time.tolist() == [update[3] for update in updates]
    assert column.severity.tolist() == [update[1] for update in updates]
    assert column.status.tolist() == [update[2] for update in updates]
    values = column.value.tolist() if column.labels is None else column.text.tolist()
    for value, update in zip(values, updates, strict=True):
        if isinstance(update[0], int | float | str):
            assert same(value, update[0]), (value, update[0])


numbers = st.integers(-(2**63), 2**64 - 1) | st.integers(-200, 300)
scalars = numbers | st.floats() | st.booleans() | st.none() | st.text(max_size=2)
alarms = st.fixed_dictionaries({}, optional={"severity": st.integers(-1, 6) | scalars, "status": numbers})
stamps = st.fixed_dictionaries(
    {},
    optional={
        "secondsPastEpoch": st.sampled_from([0, 1, 631_152_000, SECONDS]) | scalars,
        "nanoseconds": st.integers(0, 10**9) | scalars,
        "userTag": numbers,
    },
)
shapes = st.fixed_dictionaries(
    {}, optional={"value": scalars, "alarm": alarms | scalars, "timeStamp": stamps | scalars}
)


@given(st.lists(shapes, min_size=1, max_size=4), st.lists(st.integers(0, 3), max_size=4))
@settings(max_examples=150, deadline=None)
def test_any_structures_in_any_order(kinds: list[dict[str, Any]], order: list[int]) -> None:
    """Runs of equal structures, so that templates are made, with others between them."""
    runs = [kinds[place % len(kinds)] for place in [*range(len(kinds)), *order]]
    check(events([each for run in runs for each in [run] * 20]))


@given(st.lists(st.floats(), min_size=MANY, max_size=2 * MANY), st.data())
@settings(max_examples=50, deadline=None)
def test_numbers_of_one_layout(values: list[float], data: st.DataObject) -> None:
    severity, nanoseconds = st.integers(0, 6), st.integers(0, 10**9 - 1)
    check(events([structure(each, data.draw(nanoseconds), severity=data.draw(severity), status=3) for each in values]))


@given(st.integers(0, 10_000), st.integers(0, 255), st.integers(0, MANY - 1))
@settings(max_examples=150, deadline=None)
def test_one_wrong_byte(place: int, byte: int, number: int) -> None:
    bodies = [bytearray(pack({"x": structure(each + 0.5)})) for each in range(MANY)]
    bodies[number][place % len(bodies[number])] = byte
    check(records([bytes(body) for body in bodies]))


def test_without_the_extra_columns_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    given = events([structure(each * 0.5) for each in range(MANY)] + [structure([1, 2]), structure("a")])
    with_extra = column_of(given)
    monkeypatch.setattr(decode, "quick_heads", None)
    without = column_of(given)
    assert [str(each) for each in with_extra.value] == [str(each) for each in without.value]
    assert with_extra.time.tolist() == without.time.tolist()


def test_events_of_one_layout_are_not_decoded_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Record] = []
    head = decode.decode_head

    def counted(record: Record, name: str, protocol: str) -> Any:
        decoded.append(record)
        return head(record, name, protocol)

    monkeypatch.setattr("k2eg_rx.protocol.event_reader.decode_head", counted)
    waves = [structure([each + 0.5, 2.0, -1.0]) for each in range(MANY)]
    enums = [structure({"index": each % 3, "choices": ["a", "b", "c"]}) for each in range(MANY)]
    counts = [structure(100_000 + each, severity=each % 4, status=each % 7) for each in range(MANY)]
    for kind, value in ((waves, [0.5, 2.0, -1.0]), (enums, 0), (counts, 100_000)):
        decoded.clear()
        column = column_of(events(kind))
        assert column.value[0].tolist() == value
        assert len(decoded) == 1, "the one that the template is made of"
    assert column.severity.tolist() == [each % 4 for each in range(MANY)]
    assert column.status.tolist() == [each % 7 for each in range(MANY)]


def test_the_fields_of_other_events_are_not_those_of_the_template() -> None:
    """An alarm's message of the same length, other limits: another structure, whose numbers are its own."""
    given = [structure(each + 0.5, severity=2, message=("HIHI", "LOLO")[each // 10 % 2]) for each in range(100)]
    column = column_of(events(given))
    assert column.value.tolist() == [each + 0.5 for each in range(100)]
    assert column.last.alarm.message == "LOLO"


def test_types_of_values() -> None:
    def kind(*values: object) -> tuple[str, Any]:
        column = column_of(events([structure(each) for each in values]))
        return str(column.value.dtype), column.value.tolist()

    assert kind(1, 2) == ("int64", [1, 2])
    assert kind(1, 2.5) == ("float64", [1.0, 2.5])
    assert kind(2**64 - 1, 1) == ("uint64", [2**64 - 1, 1])
    assert kind(True, False) == ("bool", [True, False])
    assert kind(2**53 + 1, 0.5) == ("object", [2**53 + 1, 0.5])
    assert kind([1.0, 2.0], [3.0, 4.0]) == ("float64", [[1.0, 2.0], [3.0, 4.0]])
    assert kind([1, 2], [0.5, 2.0]) == ("float64", [[1.0, 2.0], [0.5, 2.0]])
    assert kind({"ushortValue": [1, 2]}) == ("uint16", [[1, 2]])
    assert kind(None, 1) == ("object", [None, 1])
    column = column_of(events([structure([1.0]), structure([1.0, 2.0])]))
    assert [each.tolist() for each in column.value] == [[1.0], [1.0, 2.0]]
    (table,) = column_of(events([structure({"a": [1, 2], "b": ["x", "y"]})])).value
    assert table["a"].tolist() == [1, 2]


def test_a_pv_of_floats_stays_one_when_its_values_are_whole() -> None:
    """The deployed gateway sends a float without fraction as an integer."""
    decoder = ColumnDecoder(X, lambda _: None)
    kinds: list[str] = []
    for values in ([1.5, 2], [3, 4], [5.5], [2**60]):
        decoder.add(events([structure(each) for each in values]))
        column = decoder.take()
        assert column is not None
        kinds.append(str(column.value.dtype))
    assert kinds == ["float64", "float64", "float64", "int64"]


def test_labels_of_texts_and_enums() -> None:
    texts = column_of(events([structure(each) for each in ("b", "a", "b")]))
    assert (texts.labels, texts.value.tolist(), texts.text.tolist()) == (("b", "a"), [0, 1, 0], ["b", "a", "b"])
    assert not texts.is_enum
    choices = ["Off", "On"]
    enums = column_of(events([structure({"index": each, "choices": choices}) for each in (1, 0, 5)]))
    assert (enums.labels, enums.value.tolist(), enums.text.tolist()) == (("Off", "On"), [1, 0, 5], ["On", "Off", "5"])
    assert enums.is_enum
    others = [{"index": 1, "choices": choices}, {"index": 1, "choices": ["On", "Trip"]}, {"index": 2, "choices": []}]
    changed = column_of(events([structure(each) for each in others]))
    assert (changed.labels, changed.text.tolist()) == (("Off", "On", "Trip", "2"), ["On", "Trip", "2"])
    with pytest.raises(TypeError, match="x: text needs texts or an enum, got an array of float64"):
        _ = column_of(events([structure(1.5)])).text


def test_malformed_events_are_left_out_and_reported() -> None:
    given = events([structure(each + 0.5) for each in range(MANY)])
    given[5] = given[5]._replace(value=b"\xc1")
    given[6] = given[6]._replace(headers=[])
    given[7] = given[7]._replace(headers=[*MSGPACK, ("k2eg-protocol", b"ca")])
    given[8] = given[8]._replace(value=None)
    errors: list[WireError] = []
    column = column_of(given, errors)
    assert column.value.tolist() == [each + 0.5 for each in range(MANY) if each not in {5, 6, 7, 8}]
    assert [error.kind for error in errors] == ["undecodable", "header", "protocol", "undecodable"]


def test_headers_of_a_fleet_and_json() -> None:
    given = events([structure(each + 0.5) for each in range(MANY)])
    fleet = [("k2eg-ser-type", b"Msgpack"), ("k2eg-epoch", b"a:1"), ("k2eg-protocol", b"pva")]
    json = Record("x", 0, 0, b"x", b'{"x": {"value": 7}}', [("k2eg-ser-type", b"json")])
    column = column_of([*(each._replace(headers=fleet) for each in given), json])
    assert column.value.tolist() == [*(each + 0.5 for each in range(MANY)), 7.0]
    assert np.isnat(column.time.view("datetime64[ns]")[-1])


def test_a_gateway_that_ignores_a_field_fails_the_column() -> None:
    address = PVAddress.parse("pva://x.HIGH")
    decoder = ColumnDecoder(address, lambda _: None)
    with pytest.raises(OperationError, match="does not know record fields"):
        decoder.add(events([structure(1.5)]))


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_templates_of_arbitrary_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(UnsuitableEventError):
        EventTemplate(body, "x")


def test_pvs_without_a_template_are_not_examined_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    def make(*arguments: Any) -> EventTemplate:
        made.append(arguments)
        return EventTemplate(*arguments)

    monkeypatch.setattr("k2eg_rx.protocol.event_reader.EventTemplate", make)
    decoder = ColumnDecoder(X, lambda _: None)
    for _ in range(20):
        assert decoder.add(events([structure("text")] * MANY)) == MANY
    assert 0 < len(made) < 20
