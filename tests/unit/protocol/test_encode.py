"""Encoding of messages: order of fields, numpy arrays, NaN and infinities."""

from __future__ import annotations

import json
import math
from typing import Any

import msgpack
import numpy as np
import pytest

from k2eg_rx.errors import WireError
from k2eg_rx.protocol.decode import decode_body
from k2eg_rx.protocol.encode import (
    Serialization,
    encode_data,
    encode_event,
    encode_header,
    encode_reply,
    encode_structure,
    encode_tail,
    encode_value,
)
from k2eg_rx.protocol.messages import SnapshotHeader, SnapshotTail
from k2eg_rx.protocol.replies import decode_reply, decode_snapshot_message
from k2eg_rx.transport.interfaces import Record

JSON, MSGPACK = Serialization.JSON, Serialization.MSGPACK
BOTH = pytest.mark.parametrize("serialization", list(Serialization))


def record(serialization: Serialization, body: bytes) -> Record:
    return Record("t", 0, 0, None, body, serialization.headers)


def decoded(serialization: Serialization, body: bytes) -> dict[str, Any]:
    return decode_body(record(serialization, body))


def through(serialization: Serialization, structure: dict[str, Any]) -> dict[str, Any]:
    """The structure as a reader gets it; JSON that is not strictly JSON is refused."""
    body = encode_event(serialization, "a:b", encode_structure(serialization, structure))
    if serialization is JSON:
        json.loads(body, parse_constant=lambda name: pytest.fail(f"bare {name} in JSON"))
    return decoded(serialization, body)["a:b"]


def test_headers_are_spelled_as_by_the_deployed_gateway() -> None:
    assert JSON.headers == (("k2eg-ser-type", "Json"),)
    assert MSGPACK.headers == (("k2eg-ser-type", "Msgpack"),)


@BOTH
def test_numpy_arrays_become_lists(serialization: Serialization) -> None:
    structure = through(
        serialization,
        {
            "short": np.array([300, -300], np.int16),
            "byte": np.array([72, -1], np.int8),
            "ulong": np.array([2**64 - 1], np.uint64),
            "float": np.float32(0.1),
            "double": np.float64(2.5),
            "int": np.int32(-7),
            "flag": np.bool_(True),
            "flags": np.array([True, False]),
            "strings": np.array(["a", "µ"]),
            "empty": np.array([], np.float64),
            "image": {"ushortValue": np.array([1, 65535], np.uint16)},
            "big": np.array([1, 2], ">i4"),
        },
    )
    assert structure == {
        "short": [300, -300],
        "byte": [72, -1],
        "ulong": [2**64 - 1],
        "float": 0.10000000149011612,
        "double": 2.5,
        "int": -7,
        "flag": True,
        "flags": [True, False],
        "strings": ["a", "µ"],
        "empty": [],
        "image": {"ushortValue": [1, 65535]},
        "big": [1, 2],
    }
    assert structure["flag"] is True
    assert structure["flags"][0] is True


@BOTH
def test_unions_and_structure_arrays_are_kept(serialization: Serialization) -> None:
    structure = {"u": {"s": "uval"}, "any": {"": None}, "list": [{"k": "k1", "v": 1}, {"k": "k2", "v": -2}]}
    assert through(serialization, structure) == structure


def test_json_has_strings_for_nan_and_infinities() -> None:
    structure = {
        "value": math.nan,
        "array": np.array([math.nan, math.inf, -math.inf, 1.0]),
        "single": np.float32("inf"),
        "nested": {"limits": [{"low": -math.inf}]},
    }
    assert through(JSON, structure) == {
        "value": "NaN",
        "array": ["NaN", "Infinity", "-Infinity", 1.0],
        "single": "Infinity",
        "nested": {"limits": [{"low": "-Infinity"}]},
    }


def test_messagepack_has_numbers_for_nan_and_infinities() -> None:
    structure = through(MSGPACK, {"array": np.array([math.nan, math.inf])})
    assert math.isnan(structure["array"][0])
    assert structure["array"][1] == math.inf


@BOTH
def test_text_that_is_not_unicode_is_replaced(serialization: Serialization) -> None:
    structure = through(serialization, {"value": "caf\udce9", "units": "µA", "n": np.array([1]), "x": math.inf})
    assert structure["value"] == "caf?"
    assert structure["units"] == "µA"
    assert structure["n"] == [1]


@BOTH
@pytest.mark.parametrize("thing", [object(), 2j, {1, 2}])
def test_an_object_that_cannot_be_encoded_is_an_error(serialization: Serialization, thing: object) -> None:
    with pytest.raises(WireError, match="cannot be encoded"):
        encode_structure(serialization, {"value": thing})


def test_json_replies_have_their_fields_in_order() -> None:
    fragment = encode_structure(JSON, {"value": 1.25})
    assert encode_reply(JSON, "i", -1) == b'{"error":-1,"reply_id":"i"}'
    assert encode_reply(JSON, "i", 1) == b'{"error":1,"reply_id":"i"}'
    assert encode_reply(JSON, "i", -3, "Timeout operation") == (
        b'{"error":-3,"reply_id":"i","message":"Timeout operation"}'
    )
    assert encode_reply(JSON, "i", 0, "started", "snap") == (
        b'{"error":0,"reply_id":"i","message":"started","publishing_topic":"snap"}'
    )
    assert encode_value(JSON, "i", "t:ao", fragment) == b'{"error":0,"reply_id":"i","t:ao":{"value":1.25}}'
    assert encode_value(JSON, "i", "t:ao", fragment, {"value": "double"}) == (
        b'{"error":0,"reply_id":"i","t:ao":{"value":1.25},"pv_type":{"value":"double"}}'
    )


def test_messagepack_replies_have_their_fields_in_order() -> None:
    fragment = encode_structure(MSGPACK, {"value": 1.25})
    for body, fields in [
        (encode_reply(MSGPACK, "i", -1), {"error": -1, "reply_id": "i"}),
        (encode_reply(MSGPACK, "i", 0, "ok"), {"error": 0, "reply_id": "i", "message": "ok"}),
        (encode_value(MSGPACK, "i", "t:ao", fragment), {"error": 0, "reply_id": "i", "t:ao": {"value": 1.25}}),
        (
            encode_value(MSGPACK, "i", "t:ao", fragment, {"value": "double"}),
            {"error": 0, "reply_id": "i", "t:ao": {"value": 1.25}, "pv_type": {"value": "double"}},
        ),
    ]:
        assert body == msgpack.packb(fields)


@BOTH
def test_events_carry_the_fragment_under_the_pv(serialization: Serialization) -> None:
    fragment = encode_structure(serialization, {"value": [1, 2]})
    assert decoded(serialization, encode_event(serialization, 't:"ö', fragment)) == {'t:"ö': {"value": [1, 2]}}


def test_json_iterations_have_their_fields_in_order() -> None:
    assert encode_header(JSON, SnapshotHeader("s", 5_000_000, 1)) == (
        b'{"message_type":0,"iter_index":1,"snapshot_name":"s","timestamp":5}'
    )
    assert encode_data(JSON, 5_999_999, 1, "a", b'{"value":2}') == (
        b'{"message_type":1,"iter_index":1,"timestamp":5,"a":{"value":2}}'
    )
    assert encode_tail(JSON, SnapshotTail("s", 5_000_000, 1)) == (
        b'{"message_type":2,"error":0,"error_message":"","iter_index":1,"timestamp":5,"snapshot_name":"s"}'
    )


def test_messagepack_iterations_have_their_fields_in_order() -> None:
    fragment = encode_structure(MSGPACK, {"value": 2})
    for body, fields in [
        (
            encode_header(MSGPACK, SnapshotHeader("s", 5_000_000, 1)),
            {"message_type": 0, "snapshot_name": "s", "timestamp": 5, "iter_index": 1},
        ),
        (
            encode_data(MSGPACK, 5_000_000, 1, "a", fragment),
            {"message_type": 1, "timestamp": 5, "iter_index": 1, "a": {"value": 2}},
        ),
        (
            encode_tail(MSGPACK, SnapshotTail("s", 5_000_000, 1)),
            {"message_type": 2, "error": 0, "iter_index": 1, "timestamp": 5, "snapshot_name": "s"},
        ),
        (
            encode_tail(MSGPACK, SnapshotTail("s", 5_000_000, 1, 0, "lost")),
            {
                "message_type": 2,
                "error": 0,
                "error_message": "lost",
                "iter_index": 1,
                "timestamp": 5,
                "snapshot_name": "s",
            },
        ),
    ]:
        assert body == msgpack.packb(fields)


@BOTH
def test_the_client_decodes_encoded_messages(serialization: Serialization) -> None:
    reply = decode_reply(record(serialization, encode_reply(serialization, "i", -2, "no")))
    assert (reply.reply_id, reply.error, reply.message) == ("i", -2, "no")
    header = SnapshotHeader("s", 1795335216419_000_000, 3)
    assert decode_snapshot_message(record(serialization, encode_header(serialization, header))) == header
    tail = SnapshotTail("s", 1795335216419_000_000, 3, 0, "lost")
    assert decode_snapshot_message(record(serialization, encode_tail(serialization, tail))) == tail
