"""Gets and puts: codes, texts, keys; order per PV; age; timeouts; nothing unanswered."""

from __future__ import annotations

import base64
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import pytest

from k2eg_rx.gateway.epics.provider import ProviderError, ProviderTimeout, Reading
from k2eg_rx.protocol.commands import pack_fields
from k2eg_rx.protocol.encode import Serialization


def packed(**fields: Any) -> str:
    return base64.b64encode(pack_fields(fields)).decode()


def test_get_answers_under_the_name_as_asked(stage: Any, reading: Callable[..., Reading]) -> None:
    stage.command("get", pv_name="pva://t:ao.HIGH")
    ((address, timeout, future),) = stage.pva.gets
    assert (address.base, address.field, timeout) == ("t:ao", "HIGH", pytest.approx(10.0))
    future.set_result(reading(1.25, {"value": "double"}))
    stage.settle()
    (said,) = stage.said()
    assert (said.topic, said.key, said.form) == ("replies", "pva://t:ao.HIGH", Serialization.JSON)
    assert list(said.body.items()) == [("error", 0), ("reply_id", "id"), ("t:ao.HIGH", {"value": 1.25})]


def test_get_that_asks_for_the_types_gets_them(stage: Any, reading: Callable[..., Reading]) -> None:
    stage.command("get", pv_name="ca://a", describe=True)
    stage.ca.gets[0][2].set_result(reading([1], {"value": "short[]"}))
    stage.settle()
    assert stage.bodies() == [{"error": 0, "reply_id": "id", "a": {"value": [1]}, "pv_type": {"value": "short[]"}}]


def test_get_of_a_monitored_pv_asks_epics(stage: Any, reading: Callable[..., Reading]) -> None:
    stage.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    stage.update("a", 1)
    stage.said()
    stage.command("get", pv_name="pva://a")
    assert stage.said() == []
    stage.pva.gets[0][2].set_result(reading(2))
    stage.settle()
    assert stage.bodies() == [{"error": 0, "reply_id": "id", "a": {"value": 2}}]


@pytest.mark.parametrize("reply_id", [..., 17, ""])
def test_get_without_an_id_is_answered_all_the_same(
    stage: Any, reading: Callable[..., Reading], reply_id: object
) -> None:
    stage.command("get", pv_name="pva://a", reply_id=reply_id)
    stage.pva.gets[0][2].set_result(reading(1))
    stage.settle()
    assert stage.bodies() == [{"error": 0, "reply_id": "", "a": {"value": 1}}]


@pytest.mark.parametrize("name", ["a", "//a", "pva://", "pva://bad name", "", "PVA://a", "pva:a", "pv://a", "pva://a "])
def test_malformed_names(stage: Any, name: str) -> None:
    stage.command("get", pv_name=name)
    stage.command("put", pv_name=name, value=packed(value=1))
    get, put = stage.said()
    assert (get.key, get.body) == (name, {"error": -1, "reply_id": "id", "message": "PV name malformed"})
    assert (put.key, put.body) == (name, {"error": -4, "reply_id": "id", "message": "PV name malformed"})
    assert stage.counters.refused == 2
    assert not stage.pva.gets


@pytest.mark.parametrize("name", ["pva://a/x", "ca://v:{a}", "pva://a+b", "pva://a[1]<b>;#"])
def test_names_that_epics_allows_are_taken(stage: Any, name: str) -> None:
    stage.command("get", pv_name=name)
    assert len(stage.pva.gets) + len(stage.ca.gets) == 1


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ProviderTimeout("late"), -3, "Timeout operation"),
        (ProviderError("Field Disabled"), -2, "Field Disabled"),
        (CancelledError(), -2, "Operaton cancelled"),
        (RuntimeError("boom"), -2, "RuntimeError: boom"),
    ],
)
def test_what_epics_says_goes_into_the_reply(stage: Any, error: Exception, code: int, text: str) -> None:
    stage.command("get", pv_name="pva://a")
    stage.pva.gets[0][2].set_exception(error)
    stage.command("put", pv_name="pva://b", value=packed(value=1))
    stage.pva.puts[0][3].set_exception(error)
    stage.settle()
    assert stage.bodies() == [{"error": code, "reply_id": "id", "message": text}] * 2


def test_provider_that_raises_is_answered_for(stage: Any) -> None:
    stage.pva.raises = RuntimeError("boom")
    stage.command("get", pv_name="pva://a")
    stage.command("put", pv_name="pva://a", value=packed(value=1))
    assert [body["error"] for body in stage.bodies()] == [-2, -2]
    stage.pva.raises = None
    stage.command("get", pv_name="pva://a")
    assert len(stage.pva.gets) == 1, "the lane of the PV is free again"


def test_value_without_a_form_on_the_wire_is_a_failure(stage: Any, reading: Callable[..., Reading]) -> None:
    stage.command("get", pv_name="pva://a")
    stage.pva.gets[0][2].set_result(reading(object()))
    stage.settle()
    (body,) = stage.bodies()
    assert body["error"] == -2
    assert stage.counters.unencodable == 1


def test_put_writes_and_says_so(stage: Any) -> None:
    stage.command("put", pv_name="ca://t:ao", value=packed(value=2.5))
    ((address, fields, timeout, future),) = stage.ca.puts
    assert (address.base, fields, timeout) == ("t:ao", {"value": 2.5}, pytest.approx(10.0))
    assert stage.said() == []
    future.set_result(None)
    stage.settle()
    (said,) = stage.said()
    assert said.key == "ca://t:ao"
    assert list(said.body.items()) == [("error", 0), ("reply_id", "id"), ("message", "Successfull operation")]


@pytest.mark.parametrize(
    ("value", "code", "words"),
    [
        ("!!!", -1, "Base64 decode error during put command processing"),
        ("wQ==", -2, "not MessagePack"),
        ("gaV2YWx1ZcQ", -2, "not MessagePack"),
        ("oXg=", -3, "Msgpack object need to be a map"),
        ("gA==", -2, "No fields to update in the provided Msgpack object"),
        ("gQEC", -2, "a field's name is a string"),
    ],
)
def test_put_of_what_is_no_map_of_fields(stage: Any, value: str, code: int, words: str) -> None:
    stage.command("put", pv_name="pva://a", value=value)
    (said,) = stage.said()
    assert (said.key, said.body["error"]) == ("pva://a", code)
    assert words in said.body["message"]
    assert not stage.pva.puts


@pytest.mark.parametrize("missing", ["reply_id", "reply_topic"])
def test_put_that_nobody_waits_for_is_carried_out(stage: Any, missing: str) -> None:
    stage.command("put", pv_name="pva://a", value=packed(value=1), **{missing: ...})
    stage.pva.puts[0][3].set_result(None)
    stage.command("put", pv_name="pva://a", value="wQ==", **{missing: ...})
    assert stage.said() == []
    assert stage.counters.refused == 1


def test_puts_to_one_pv_keep_their_order_and_others_do_not_wait(stage: Any) -> None:
    for value in (1, 2, 3):
        stage.command("put", pv_name="pva://a", value=packed(value=value), reply_id=f"a{value}")
    stage.command("put", pv_name="pva://a.STOP", value=packed(value=4), reply_id="stop")
    stage.command("put", pv_name="ca://a", value=packed(value=5), reply_id="ca")
    assert [fields["value"] for _, fields, _, _ in stage.pva.puts] == [1, 4]
    assert len(stage.ca.puts) == 1
    stage.pva.puts[0][3].set_result(None)
    stage.settle()
    stage.pva.puts[2][3].set_exception(ProviderError("no"))
    stage.settle()
    assert [fields["value"] for _, fields, _, _ in stage.pva.puts] == [1, 4, 2, 3]
    assert [body["reply_id"] for body in stage.bodies()] == ["a1", "a2"]


def test_get_behind_a_put_reads_what_was_put(stage: Any, reading: Callable[..., Reading]) -> None:
    stage.command("get", pv_name="pva://a")
    stage.command("put", pv_name="pva://a", value=packed(value=1))
    stage.command("get", pv_name="pva://a")
    assert (len(stage.pva.gets), len(stage.pva.puts)) == (1, 1), "a put does not wait for a get"
    stage.pva.puts[0][3].set_result(None)
    stage.settle()
    assert len(stage.pva.gets) == 2


def test_a_put_that_lasts_holds_nothing_up_for_long(stage: Any) -> None:
    stage.command("put", pv_name="pva://motor", value=packed(value=100))
    stage.advance(0.4)
    stage.command("put", pv_name="pva://motor", value=packed(value=0))
    stage.command("get", pv_name="pva://motor")
    stage.command("put", pv_name="pva://motor.STOP", value=packed(value=1))
    assert [address.name for address, _, _, _ in stage.pva.puts] == ["motor", "motor.STOP"]
    stage.advance(0.2)
    assert [fields["value"] for _, fields, _, _ in stage.pva.puts] == [100, 1, 0]
    assert not stage.pva.gets
    stage.advance(0.5)
    assert len(stage.pva.gets) == 1
    for _, _, _, future in stage.pva.puts:
        future.set_result(None)
    stage.settle()
    assert [body["error"] for body in stage.bodies()] == [0, 0, 0]


def test_command_that_waited_too_long_in_kafka_is_refused(stage: Any) -> None:
    stage.command("put", pv_name="pva://a", value=packed(value=1), age=29.0)
    stage.command("get", pv_name="pva://b", age=59.0)
    assert (len(stage.pva.puts), len(stage.pva.gets)) == (1, 1)
    stage.command("put", pv_name="pva://c", value=packed(value=1), age=31.0)
    stage.command("get", pv_name="pva://d", age=61.0)
    assert stage.bodies() == [
        {
            "error": -3,
            "reply_id": "id",
            "message": "the put waited 31.0 s, longer than the 30 s after which it is not carried out",
        },
        {
            "error": -3,
            "reply_id": "id",
            "message": "the get waited 61.0 s, longer than the 60 s after which it is not carried out",
        },
    ]
    assert (len(stage.pva.puts), len(stage.pva.gets)) == (1, 1)


def test_put_that_grows_too_old_in_its_lane_is_refused(new_stage: Any) -> None:
    stage = new_stage(max_put_age=0.3)
    stage.command("put", pv_name="pva://a", value=packed(value=1), age=0.0)
    stage.command("put", pv_name="pva://a", value=packed(value=2), age=0.0)
    stage.advance(0.4)
    stage.pva.puts[0][3].set_result(None)
    stage.settle()
    assert [body["error"] for body in stage.bodies()] == [0, -3]
    assert len(stage.pva.puts) == 1


def test_nothing_waits_longer_than_its_time(new_stage: Any) -> None:
    stage = new_stage(operation_timeout=0.3)
    for number in range(3):
        stage.command("put", pv_name="pva://a", value=packed(value=number), reply_id=str(number))
    stage.advance(0.2)
    assert stage.said() == []
    stage.advance(0.31)
    assert sorted((body["reply_id"], body["error"]) for body in stage.bodies()) == [("1", -3), ("2", -3)]
    assert len(stage.pva.puts) == 1, "what was answered with a timeout before it began is never carried out"
    stage.pva.puts[0][3].set_exception(ProviderTimeout("late"))
    stage.settle()
    assert stage.bodies() == [{"error": -3, "reply_id": "0", "message": "Timeout operation"}]
    assert stage.answers.operations.pending == 0
    stage.advance(5)
    assert len(stage.pva.puts) == 1


def test_provider_that_forgets_is_not_waited_for_for_ever(stage: Any) -> None:
    stage.command("get", pv_name="pva://a")
    stage.advance(11.5)
    assert stage.bodies() == [{"error": -3, "reply_id": "id", "message": "Timeout operation"}]
    stage.pva.gets[0][2].set_result(Reading({"value": 1}))
    stage.settle()
    assert stage.said() == [], "one reply for one command"


def test_there_is_one_sweep_at_a_time(
    stage: Any, reading: Callable[..., Reading], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps: list[object] = []
    monkeypatch.setattr(stage.answers.operations, "_sweep", sweeps.append)
    for number in range(50):
        stage.command("get", pv_name="pva://a")
        stage.pva.gets[number][2].set_result(reading(1))
        stage.settle()
    stage.command("get", pv_name="pva://a")
    stage.advance(1.1)
    assert len(sweeps) == 4


def test_a_put_that_waits_for_its_turn_has_what_is_left_of_its_time(stage: Any) -> None:
    stage.command("put", pv_name="pva://a", value=packed(value=1))
    stage.command("put", pv_name="pva://a", value=packed(value=2))
    stage.advance(0.4)
    stage.pva.puts[0][3].set_result(None)
    stage.settle()
    assert stage.pva.puts[1][2] == pytest.approx(9.6, abs=0.01)


def test_stopping_answers_what_is_under_way(stage: Any) -> None:
    stage.command("put", pv_name="pva://a", value=packed(value=1))
    stage.command("put", pv_name="pva://a", value=packed(value=2))
    stage.command("get", pv_name="pva://b")
    stage.answers.operations.abandon()
    stage.advance(5)
    assert [(body["error"], body["message"]) for body in stage.bodies()] == [
        (-2, "the gateway is stopping: the get may still be carried out"),
        (-2, "the gateway is stopping: the put was not carried out"),
        (-2, "the gateway is stopping: the put may still be carried out"),
    ]
    assert len(stage.pva.puts) == 1


def test_a_protocol_that_is_not_spoken(stage: Any) -> None:
    stage.answers.operations._providers = {"pva": stage.pva}
    stage.command("get", pv_name="ca://a")
    assert stage.bodies() == [{"error": -2, "reply_id": "id", "message": "this gateway does not speak ca"}]


def test_thousands_of_gets_are_under_way_at_once(stage: Any, reading: Callable[..., Reading]) -> None:
    for number in range(2000):
        stage.command("get", pv_name=f"pva://a:{number}", reply_id=str(number))
    assert len(stage.pva.gets) == 2000
    for address, _, future in reversed(stage.pva.gets):
        future.set_result(reading(address.base))
    stage.settle()
    assert len({body["reply_id"] for body in stage.bodies()}) == 2000
    assert stage.answers.operations.pending == 0
