"""Decoding of records to maps, replies and snapshot messages, and the `WireError`s."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from k2eg_rx.errors import WireError
from k2eg_rx.protocol.decode import decode_body, require
from k2eg_rx.protocol.messages import PVUpdate, Reply, SnapshotData, SnapshotHeader, SnapshotTail
from k2eg_rx.protocol.msgpack_codec import pack
from k2eg_rx.protocol.replies import decode_reply, decode_snapshot_message
from k2eg_rx.pv import PVAddress
from k2eg_rx.transport.interfaces import Record

HEADER = "k2eg-ser-type"


def record(value: bytes | None, *headers: tuple[str, bytes | str | None]) -> Record:
    return Record("topic", 0, 0, b"key", value, headers)


def packed(body: Any) -> Record:
    return record(pack(body), (HEADER, b"Msgpack"))


def jsoned(body: Any) -> Record:
    return record(json.dumps(body).encode(), (HEADER, b"Json"))


@pytest.mark.parametrize("name", [b"Msgpack", b"msgpack", b"MSGPACK", "Msgpack"])
def test_messagepack_in_any_spelling(name: bytes | str) -> None:
    assert decode_body(record(pack({"a": 1}), (HEADER, name))) == {"a": 1}


@pytest.mark.parametrize("name", [b"Json", b"json", "JSON"])
def test_json_in_any_spelling(name: bytes | str) -> None:
    assert decode_body(record(b'{"a": [1.5E0, NaN, -Infinity]}', (HEADER, name)))["a"][0] == 1.5


def test_other_headers_are_ignored() -> None:
    assert decode_body(record(pack({}), ("other", b"x"), (HEADER, None), (HEADER, b"Msgpack"))) == {}


def test_invalid_utf8_is_replaced() -> None:
    assert decode_body(record(b"\x81\xa1a\xa1\xff", (HEADER, b"Msgpack"))) == {"a": "\ufffd"}
    assert decode_body(record(b'{"a": "\xff"}', (HEADER, b"Json"))) == {"a": "\ufffd"}


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (record(pack({})), "header"),
        (record(pack({}), ("other", b"Msgpack")), "header"),
        (record(pack({}), (HEADER, None)), "header"),
        (record(pack({}), (HEADER, b"msgpack-compact")), "serialization"),
        (record(pack({}), (HEADER, b"\xff")), "serialization"),
        (record(None, (HEADER, b"Msgpack")), "undecodable"),
        (record(b"", (HEADER, b"Msgpack")), "undecodable"),
        (record(b"\xc1", (HEADER, b"Msgpack")), "undecodable"),
        (record(pack({"a": 1})[:-1], (HEADER, b"Msgpack")), "undecodable"),
        (record(pack({}) + b"\x00", (HEADER, b"Msgpack")), "undecodable"),
        (record(b"\x81\x81\x01\x02\x03", (HEADER, b"Msgpack")), "undecodable"),  # a map as a key
        (record(b"\x91" * 10_000 + b"\x01", (HEADER, b"Msgpack")), "undecodable"),
        (record(b"[" * 100_000, (HEADER, b"Json")), "undecodable"),
        (record(b"", (HEADER, b"Json")), "undecodable"),
        (record(b"{", (HEADER, b"Json")), "undecodable"),
        (record(b"[1]", (HEADER, b"Json")), "shape"),
        (record(pack([1]), (HEADER, b"Msgpack")), "shape"),
        (record(pack(None), (HEADER, b"Msgpack")), "shape"),
    ],
)
def test_a_violation_has_a_kind(bad: Record, kind: str) -> None:
    with pytest.raises(WireError) as caught:
        decode_body(bad)
    assert caught.value.kind == kind
    assert str(caught.value).startswith(f"{kind}: ")


HEADERS = st.lists(
    st.tuples(st.sampled_from([HEADER, "other"]), st.sampled_from([b"Msgpack", b"Json", b"x", "json", None])),
    max_size=2,
)


@given(st.binary(max_size=60) | st.none(), HEADERS)
@example(b"\xde\xff\xff", [(HEADER, b"Msgpack")])
@example(b"\xc7\x05\x2aabcde", [(HEADER, b"Msgpack")])
def test_arbitrary_bytes_decode_or_raise_a_wire_error(value: bytes | None, headers: list[Any]) -> None:
    arbitrary = record(value, *headers)
    for decode in (decode_body, decode_reply, decode_snapshot_message, decode_event):
        with suppress(WireError):
            decode(arbitrary)


def decode_event(event: Record) -> Any:
    return PVUpdate(PVAddress.parse("pva://x"), event).data


NESTED = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["error", "reply_id", "message", "message_type", "timestamp", "iter_index", "snapshot_name", "error_message", "x"]
)


@given(st.dictionaries(KEYS, NESTED | st.integers(0, 3)))
def test_any_map_is_a_message_or_a_wire_error(body: dict[str, Any]) -> None:
    for decode in (decode_reply, decode_snapshot_message):
        with suppress(WireError):
            assert isinstance(decode(packed(body)), Reply | SnapshotHeader | SnapshotData | SnapshotTail)


@pytest.mark.parametrize("form", [packed, jsoned])
def test_a_reply_has_id_error_message_and_body(form: Any) -> None:
    body = {"error": -2, "reply_id": "id", "message": "no", "x": {"value": 1}}
    assert decode_reply(form(body)) == Reply("id", -2, "no", body)
    assert decode_reply(form({"error": 1, "reply_id": ""})).message == ""


@pytest.mark.parametrize(
    "body",
    [
        {"reply_id": "id"},
        {"error": 0},
        {"error": "0", "reply_id": "id"},
        {"error": True, "reply_id": "id"},
        {"error": 0, "reply_id": 5},
        {"error": None, "reply_id": None},
    ],
)
def test_a_reply_without_error_or_id_is_a_wire_error(body: dict[str, Any]) -> None:
    with pytest.raises(WireError, match="shape"):
        decode_reply(packed(body))


def test_a_reply_message_that_is_not_a_string_is_ignored() -> None:
    assert decode_reply(packed({"error": 0, "reply_id": "id", "message": 5})).message == ""


@pytest.mark.parametrize("form", [packed, jsoned])
def test_the_messages_of_an_iteration(form: Any) -> None:
    common = {"snapshot_name": "s", "timestamp": 1795335316480, "iter_index": 3}
    header = SnapshotHeader("s", 1795335316480_000_000, 3)
    assert decode_snapshot_message(form({"message_type": 0} | common)) == header
    data = {"message_type": 1, "timestamp": 1, "iter_index": 3, "x:y": {"value": 1}}
    assert decode_snapshot_message(form(data)) == SnapshotData(1_000_000, 3, "x:y", {"value": 1})
    tail = SnapshotTail("s", 1795335316480_000_000, 3)
    assert decode_snapshot_message(form({"message_type": 2, "error": 0} | common)) == tail
    failed = decode_snapshot_message(form({"message_type": 2, "error": -1, "error_message": "no"} | common))
    assert failed == SnapshotTail("s", 1795335316480_000_000, 3, -1, "no")


@pytest.mark.parametrize("form", [packed, jsoned])
def test_the_numbers_of_newer_gateways(form: Any) -> None:
    common = {"timestamp": 1795335316480_000_001, "iter_index": 3, "msg_seq": 7, "submission_seq": 2}
    named = common | {"snapshot_name": "s", "tags": {"shot": "5", "odd": 1}}
    header = decode_snapshot_message(form({"message_type": 0} | named))
    assert header == SnapshotHeader("s", 1795335316480_000_001, 3, {"shot": "5"}, 7, 2)
    sample = {"message_type": 1, "x:y": {"value": 1}} | common | {"last_submission_data": True, "message-size": 9}
    data = SnapshotData(1795335316480_000_001, 3, "x:y", {"value": 1}, 7, 2, last_submission_data=True)
    assert decode_snapshot_message(form(sample)) == data
    assert decode_snapshot_message(form(dict(reversed(sample.items())))) == data, "in any order of keys"
    tail = decode_snapshot_message(form({"message_type": 2, "error": 0, "total_messages": 7} | named))
    assert tail == SnapshotTail("s", 1795335316480_000_001, 3, 0, "", 7, 7, 2)
    lacking = decode_snapshot_message(form({"message_type": 2, "error": 0, "missing_messages": 4} | named))
    assert lacking == SnapshotTail("s", 1795335316480_000_001, 3, 0, "", 7, None, 2, missing_messages=4)


@pytest.mark.parametrize("number", [0, -1, True, "1", 1.0, None])
def test_a_number_that_is_none_counts_as_absent(number: Any) -> None:
    body = {"message_type": 0, "snapshot_name": "s", "timestamp": 1, "iter_index": 3, "msg_seq": number}
    assert decode_snapshot_message(packed(body | {"submission_seq": number, "tags": number})) == SnapshotHeader(
        "s", 1_000_000, 3
    )


@pytest.mark.parametrize(
    ("time", "nanoseconds"), [(-1, -1_000_000), (0, 0), (10**15 - 1, 10**21 - 10**6), (10**15, 10**15)]
)
def test_a_time_is_in_milliseconds_or_nanoseconds_by_its_size(time: int, nanoseconds: int) -> None:
    body = {"message_type": 0, "snapshot_name": "s", "timestamp": time, "iter_index": 3}
    assert decode_snapshot_message(packed(body)).timestamp == nanoseconds


@pytest.mark.parametrize(
    "body",
    [
        {"snapshot_name": "s", "timestamp": 1, "iter_index": 3},
        {"message_type": 3, "snapshot_name": "s", "timestamp": 1, "iter_index": 3},
        {"message_type": 0, "timestamp": 1, "iter_index": 3},
        {"message_type": 0, "snapshot_name": "s", "iter_index": 3},
        {"message_type": 0, "snapshot_name": "s", "timestamp": 1},
        {"message_type": 1, "timestamp": 1, "iter_index": 3},
        {"message_type": 1, "timestamp": 1, "iter_index": 3, "x": 5},
        {"message_type": 2, "snapshot_name": "s", "timestamp": 1, "iter_index": 3},
        {"x": {"value": 1}},
    ],
)
def test_a_malformed_snapshot_message_is_a_wire_error(body: dict[str, Any]) -> None:
    with pytest.raises(WireError, match="shape"):
        decode_snapshot_message(packed(body))


def test_a_required_field_must_exist_and_have_its_type() -> None:
    assert require({"a": 1}, "a", int) == 1
    for body in ({}, {"a": "1"}, {"a": True}, {"a": None}):
        with pytest.raises(WireError, match=r"'a' is .*, not a int"):
            require(body, "a", int)
