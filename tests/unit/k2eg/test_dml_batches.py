"""`dml.get_many` and `dml.put_many`: a result or an error by URI."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from k2eg.dml import dml
from k2eg.serialization import Scalar
from k2eg_rx import ClientClosedError, OperationError, OperationTimeout
from k2eg_rx.protocol.msgpack_codec import unpack

NUMBER = {"value": 1.5, "alarm": {"severity": 0}}
ENUM = {"value": {"index": 0, "choices": ["Off", "On"]}}


def written(gateway: Any) -> dict[str, Any]:
    """What was put, by URI."""
    puts = [command for command in gateway.commands if command["command"] == "put"]
    return {command["pv_name"]: unpack(base64.b64decode(command["value"])) for command in puts}


def test_get_many_returns_structures_by_uri_in_the_order_given(k: dml, gateway: Any) -> None:
    gateway.set_pvs(my__x=NUMBER, my__y=ENUM)
    uris = ["ca://my:y", "pva://my:x", "ca://my:y"]
    assert list(k.get_many(uris, timeout=5.0).items()) == [("ca://my:y", ENUM), ("pva://my:x", NUMBER)]
    assert gateway.names() == ["get", "get"]


def test_get_many_has_the_error_of_a_pv_in_its_place(k: dml, gateway: Any) -> None:
    gateway.set_pvs(my__x=NUMBER)
    results = k.get_many(["pva://my:x", "pva://dead"])
    assert results["pva://my:x"] == NUMBER
    dead = results["pva://dead"]
    assert isinstance(dead, OperationError)
    assert (dead.error, dead.subject) == (-3, "pva://dead")


def test_a_silent_pv_times_out_without_affecting_the_others(k: dml, gateway: Any) -> None:
    gateway.replies["get"] = lambda command: [{"x": NUMBER}] if command["pv_name"] == "pva://x" else []
    gateway.replies["put"] = lambda command: [{}] if command["pv_name"] == "pva://x" else []
    got = k.get_many(["pva://silent", "pva://x"], timeout=0.01)
    assert isinstance(got["pva://silent"], OperationTimeout)
    assert got["pva://x"] == NUMBER
    put = k.put_many({"pva://silent": Scalar(1), "pva://x": Scalar(1)}, timeout=0.01)
    assert "may still be carried out" in str(put["pva://silent"])
    assert isinstance(put["pva://x"], dict)


def test_put_many_returns_replies_by_uri_in_the_order_given(k: dml, gateway: Any) -> None:
    gateway.set_pvs(my__x=NUMBER, my__y=ENUM)
    gateway.reply_with("put", {"message": "Successfull operation"})
    replies = k.put_many({"pva://my:y": "On", "pva://my:x": 2, "pva://no": 1}, timeout=5.0)
    assert list(replies) == ["pva://my:y", "pva://my:x", "pva://no"]
    reply = replies["pva://my:x"]
    assert isinstance(reply, dict)
    assert (reply["error"], reply["message"]) == (0, "Successfull operation")
    assert isinstance(replies["pva://no"], OperationError)
    assert written(gateway) == {"pva://my:y": {"value": {"index": 1}}, "pva://my:x": {"value": 2.0}}


def test_an_unsuitable_value_does_not_prevent_the_other_puts(k: dml, gateway: Any) -> None:
    gateway.set_pvs(my__x=NUMBER, my__y=ENUM)
    replies = k.put_many({"pva://my:y": "Half", "pva://my:x": 2})
    assert isinstance(replies["pva://my:y"], ValueError)
    assert written(gateway) == {"pva://my:x": {"value": 2.0}}


def test_put_many_without_check_sends_values_unchanged(k: dml, gateway: Any) -> None:
    k.put_many({"pva://my:x": 2}, check=False)
    assert written(gateway) == {"pva://my:x": {"value": 2}}


@pytest.mark.parametrize("uri", ["my:pv", "http://my:pv", "pva://", 5])
def test_an_invalid_uri_is_rejected_before_anything_is_sent(k: dml, gateway: Any, uri: Any) -> None:
    for call in (lambda: k.get_many(["pva://good", uri]), lambda: k.put_many({"pva://good": 1, uri: 1})):
        with pytest.raises(ValueError, match=r"pva://"):
            call()
    assert gateway.commands == []


@pytest.mark.parametrize("wrong", [[], {}, None, "pva://x", 5])
def test_an_invalid_collection_is_rejected_before_anything_is_sent(k: dml, gateway: Any, wrong: Any) -> None:
    for call in (k.get_many, k.put_many):
        with pytest.raises(ValueError, match=r"PV"):
            call(wrong)
    assert gateway.commands == []


def test_commands_not_sent_before_close_have_an_error(k: dml, gateway: Any) -> None:
    def close_without_reply(command: dict[str, Any]) -> list[dict[str, Any]]:
        k.close(0.1)
        return []

    gateway.replies["get"] = close_without_reply
    results = k.get_many(["pva://x", "pva://y"])
    assert list(results) == ["pva://x", "pva://y"]
    assert all(isinstance(result, ClientClosedError) for result in results.values())


def test_a_call_after_close_raises(k: dml) -> None:
    k.close()
    with pytest.raises(ClientClosedError):
        k.get_many(["pva://x"])
    with pytest.raises(ClientClosedError):
        k.put_many({"pva://x": 1})
