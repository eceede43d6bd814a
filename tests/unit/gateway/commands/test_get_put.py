"""Gets and puts: reply codes, texts and keys; order per PV; maximum age; timeouts."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Sized
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

from k2eg_rx.gateway.epics.provider import ProviderError, ProviderTimeout, PVReading
from k2eg_rx.protocol.commands import pack_fields
from k2eg_rx.protocol.encode import Serialization


def packed(**fields: Any) -> str:
    return base64.b64encode(pack_fields(fields)).decode()


def test_get_replies_under_the_requested_name(gateway: Any, reading: Callable[..., PVReading]) -> None:
    gateway.command("get", pv_name="pva://t:ao.HIGH")
    ((address, timeout, future),) = gateway.pva.gets
    assert (address.base, address.field, timeout) == ("t:ao", "HIGH", pytest.approx(10.0))
    future.set_result(reading(1.25, {"value": "double"}))
    gateway.settle()
    (sent,) = gateway.sent()
    assert (sent.topic, sent.key, sent.form) == ("replies", "pva://t:ao.HIGH", Serialization.JSON)
    assert list(sent.body.items()) == [("error", 0), ("reply_id", "id"), ("t:ao.HIGH", {"value": 1.25})]


def test_get_with_describe_returns_the_types(gateway: Any, reading: Callable[..., PVReading]) -> None:
    gateway.command("get", pv_name="ca://a", describe=True)
    gateway.ca.gets[0][2].set_result(reading([1], {"value": "short[]"}))
    gateway.settle()
    assert gateway.bodies() == [{"error": 0, "reply_id": "id", "a": {"value": [1]}, "pv_type": {"value": "short[]"}}]


def test_get_of_a_monitored_pv_reads_from_epics(gateway: Any, reading: Callable[..., PVReading]) -> None:
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    gateway.update("a", 1)
    gateway.sent()
    gateway.command("get", pv_name="pva://a")
    assert gateway.sent() == []
    gateway.pva.gets[0][2].set_result(reading(2))
    gateway.settle()
    assert gateway.bodies() == [{"error": 0, "reply_id": "id", "a": {"value": 2}}]


@pytest.mark.parametrize("reply_id", [..., 17, ""])
def test_get_without_a_reply_id_is_answered(gateway: Any, reading: Callable[..., PVReading], reply_id: object) -> None:
    gateway.command("get", pv_name="pva://a", reply_id=reply_id)
    gateway.pva.gets[0][2].set_result(reading(1))
    gateway.settle()
    assert gateway.bodies() == [{"error": 0, "reply_id": "", "a": {"value": 1}}]


@pytest.mark.parametrize("name", ["a", "//a", "pva://", "pva://bad name", "", "PVA://a", "pva:a", "pv://a", "pva://a "])
def test_malformed_names(gateway: Any, name: str) -> None:
    gateway.command("get", pv_name=name)
    gateway.command("put", pv_name=name, value=packed(value=1))
    get, put = gateway.sent()
    assert (get.key, get.body) == (name, {"error": -1, "reply_id": "id", "message": "PV name malformed"})
    assert (put.key, put.body) == (name, {"error": -4, "reply_id": "id", "message": "PV name malformed"})
    assert gateway.metrics.refused == 2
    assert not gateway.pva.gets


@pytest.mark.parametrize("name", ["pva://a/x", "ca://v:{a}", "pva://a+b", "pva://a[1]<b>;#"])
def test_names_with_all_characters_of_epics_are_accepted(gateway: Any, name: str) -> None:
    gateway.command("get", pv_name=name)
    assert len(gateway.pva.gets) + len(gateway.ca.gets) == 1


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ProviderTimeout("late"), -3, "Timeout operation{}"),
        (ProviderError("Field Disabled"), -2, "Field Disabled"),
        (CancelledError(), -2, "Operaton cancelled"),
        (RuntimeError("boom"), -2, "RuntimeError: boom"),
    ],
)
def test_provider_errors_are_reported_in_the_reply(gateway: Any, error: Exception, code: int, text: str) -> None:
    gateway.command("get", pv_name="pva://a")
    gateway.pva.gets[0][2].set_exception(error)
    gateway.command("put", pv_name="pva://b", value=packed(value=1))
    gateway.pva.puts[0][3].set_exception(error)
    gateway.settle()
    get, put = gateway.bodies()
    assert get == {"error": code, "reply_id": "id", "message": text.format("")}
    assert put == get | {"message": text.format(": the value was sent, and may have been written")}


def test_an_exception_of_the_provider_is_answered(gateway: Any) -> None:
    gateway.pva.raises = RuntimeError("boom")
    gateway.command("get", pv_name="pva://a")
    gateway.command("put", pv_name="pva://a", value=packed(value=1))
    assert [body["error"] for body in gateway.bodies()] == [-2, -2]
    gateway.pva.raises = None
    gateway.command("get", pv_name="pva://a")
    assert len(gateway.pva.gets) == 1, "the queue of the PV is free again"


def test_a_value_that_cannot_be_serialized_fails_the_get(gateway: Any, reading: Callable[..., PVReading]) -> None:
    gateway.command("get", pv_name="pva://a")
    gateway.pva.gets[0][2].set_result(reading(object()))
    gateway.settle()
    (body,) = gateway.bodies()
    assert body["error"] == -2
    assert gateway.metrics.unencodable == 1


def test_put_writes_and_replies(gateway: Any) -> None:
    gateway.command("put", pv_name="ca://t:ao", value=packed(value=2.5))
    ((address, fields, timeout, future),) = gateway.ca.puts
    assert (address.base, fields, timeout) == ("t:ao", {"value": 2.5}, pytest.approx(10.0))
    assert gateway.sent() == []
    future.set_result(None)
    gateway.settle()
    (sent,) = gateway.sent()
    assert sent.key == "ca://t:ao"
    assert list(sent.body.items()) == [("error", 0), ("reply_id", "id"), ("message", "Successfull operation")]


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
def test_put_of_an_invalid_value_is_refused(gateway: Any, value: str, code: int, words: str) -> None:
    gateway.command("put", pv_name="pva://a", value=value)
    (sent,) = gateway.sent()
    assert (sent.key, sent.body["error"]) == ("pva://a", code)
    assert words in sent.body["message"]
    assert not gateway.pva.puts


@pytest.mark.parametrize("missing", ["reply_id", "reply_topic"])
def test_put_without_a_reply_topic_or_id_is_carried_out(gateway: Any, missing: str) -> None:
    gateway.command("put", pv_name="pva://a", value=packed(value=1), **{missing: ...})
    gateway.pva.puts[0][3].set_result(None)
    gateway.command("put", pv_name="pva://a", value="wQ==", **{missing: ...})
    assert gateway.sent() == []
    assert gateway.metrics.refused == 1


def test_puts_to_one_pv_keep_their_order_and_other_pvs_do_not_wait(gateway: Any) -> None:
    for value in (1, 2, 3):
        gateway.command("put", pv_name="pva://a", value=packed(value=value), reply_id=f"a{value}")
    gateway.command("put", pv_name="pva://a.STOP", value=packed(value=4), reply_id="stop")
    gateway.command("put", pv_name="ca://a", value=packed(value=5), reply_id="ca")
    assert [fields["value"] for _, fields, _, _ in gateway.pva.puts] == [1, 4]
    assert len(gateway.ca.puts) == 1
    gateway.pva.puts[0][3].set_result(None)
    gateway.settle()
    gateway.pva.puts[2][3].set_exception(ProviderError("no"))
    gateway.settle()
    assert [fields["value"] for _, fields, _, _ in gateway.pva.puts] == [1, 4, 2, 3]
    assert [body["reply_id"] for body in gateway.bodies()] == ["a1", "a2"]


def test_get_after_a_put_waits_for_it(gateway: Any, reading: Callable[..., PVReading]) -> None:
    gateway.command("get", pv_name="pva://a")
    gateway.command("put", pv_name="pva://a", value=packed(value=1))
    gateway.command("get", pv_name="pva://a")
    assert (len(gateway.pva.gets), len(gateway.pva.puts)) == (1, 1), "a put does not wait for a get"
    gateway.pva.puts[0][3].set_result(None)
    gateway.settle()
    assert len(gateway.pva.gets) == 2


def test_a_slow_put_blocks_later_commands_briefly(gateway: Any) -> None:
    gateway.command("put", pv_name="pva://motor", value=packed(value=100))
    gateway.advance(0.4)
    gateway.command("put", pv_name="pva://motor", value=packed(value=0))
    gateway.command("get", pv_name="pva://motor")
    gateway.command("put", pv_name="pva://motor.STOP", value=packed(value=1))
    assert [address.name for address, _, _, _ in gateway.pva.puts] == ["motor", "motor.STOP"]
    gateway.advance(0.2)
    assert [fields["value"] for _, fields, _, _ in gateway.pva.puts] == [100, 1, 0]
    assert not gateway.pva.gets
    gateway.advance(0.5)
    assert len(gateway.pva.gets) == 1
    for _, _, _, future in gateway.pva.puts:
        future.set_result(None)
    gateway.settle()
    assert [body["error"] for body in gateway.bodies()] == [0, 0, 0]


def values(gateway: Any) -> list[int]:
    return [fields["value"] for _, fields, _, _ in gateway.pva.puts]


def test_puts_to_a_pv_that_is_not_connected_keep_their_order(gateway: Any) -> None:
    gateway.pva.is_connected = False
    for value, field in ((1, ""), (2, ".VAL"), (3, ""), (4, ".display.limitLow"), (5, ".STOP")):
        gateway.command("put", pv_name=f"pva://a{field}", value=packed(value=value), reply_id=str(value))
        gateway.advance(0.6)
    assert len(gateway.pva.unsent) == 2, "those to a and a.STOP"
    gateway.pva.is_connected = True
    for _, send in reversed(gateway.pva.unsent):
        send()
    for number in range(5):
        gateway.pva.puts[number][3].set_result(None)
        gateway.settle()
    assert values(gateway) == [5, 1, 2, 3, 4]
    assert [(body["reply_id"], body["error"]) for body in gateway.bodies()] == [(n, 0) for n in "51234"]


def test_a_put_that_timed_out_is_not_sent_later(gateway: Any) -> None:
    gateway.pva.is_connected = False
    gateway.command("put", pv_name="pva://a", value=packed(value=1))
    ((future, send),) = gateway.pva.unsent
    gateway.advance(10.0)
    future.set_exception(ProviderTimeout("late"))
    gateway.settle()
    (body,) = gateway.bodies()
    assert (body["error"], body["message"]) == (-3, "Timeout operation: nothing was written, and nothing will be")
    gateway.pva.unsent = [(Future(), send)]
    gateway.pva.is_connected = True
    gateway.command("put", pv_name="pva://a", value=packed(value=2))
    assert values(gateway) == [2]


def test_a_put_without_an_answer_of_its_provider_is_not_sent_later(gateway: Any) -> None:
    gateway.pva.is_connected = False
    gateway.command("put", pv_name="pva://a", value=packed(value=1))
    gateway.advance(11.5)
    assert [body["error"] for body in gateway.bodies()] == [-3]
    ((_, send),) = gateway.pva.unsent
    assert not send()
    gateway.settle()
    assert values(gateway) == []
    assert gateway.bodies() == []


def test_a_stopping_gateway_sends_no_more_puts(gateway: Any) -> None:
    gateway.pva.is_connected = False
    gateway.command("put", pv_name="pva://a", value=packed(value=1))
    gateway.handler.get_put.abandon()
    assert [body["message"] for body in gateway.bodies()] == ["the gateway is stopping: the put was not carried out"]
    ((_, send),) = gateway.pva.unsent
    assert not send()


def test_a_put_that_waits_holds_later_commands_back_only_until_it_is_written(gateway: Any) -> None:
    gateway.command("put", pv_name="pva://motor", value=packed(value=100), wait=True)
    gateway.command("put", pv_name="pva://motor", value=packed(value=0))
    assert [fields["value"] for _, fields, _, _ in gateway.pva.puts] == [100]
    ((name, on_written),) = gateway.pva.awaited
    assert name == "motor"
    on_written()
    gateway.settle()
    assert [fields["value"] for _, fields, _, _ in gateway.pva.puts] == [100, 0]
    gateway.pva.puts[1][3].set_result(None)
    gateway.settle()
    assert gateway.bodies() == [{"error": 0, "reply_id": "id", "message": "Successfull operation"}]
    gateway.pva.puts[0][3].set_result(None)
    gateway.settle()
    assert gateway.bodies() == [{"error": 0, "reply_id": "id", "message": "Successfull operation", "completed": True}]


def test_a_second_put_that_waits_is_refused(gateway: Any) -> None:
    for value in (1, 2):
        gateway.command("put", pv_name="pva://motor", value=packed(value=value), wait=True)
        gateway.advance(1.0)
    assert [fields["value"] for _, fields, _, _ in gateway.pva.puts] == [1]
    (body,) = gateway.bodies()
    assert body["error"] == -2
    assert body["message"].startswith("nothing was written: an earlier put to this PV still waits for its record")
    gateway.pva.puts[0][3].set_result(None)
    gateway.settle()
    gateway.command("put", pv_name="pva://motor", value=packed(value=3), wait=True)
    assert [fields["value"] for _, fields, _, _ in gateway.pva.puts] == [1, 3]


def test_a_put_waits_as_long_as_its_command_says(gateway: Any) -> None:
    gateway.command("put", pv_name="pva://motor", value=packed(value=1), wait=True, wait_timeout_msec=60_000)
    gateway.command("put", pv_name="pva://other", value=packed(value=1))
    assert [timeout for _, _, timeout, _ in gateway.pva.puts] == [pytest.approx(60.0), pytest.approx(10.0)]
    gateway.advance(12.0)
    assert [body["message"] for body in gateway.bodies()] == [
        "Timeout operation: the value was sent, and may have been written"
    ], "of the other put"
    gateway.pva.puts[0][3].set_exception(ProviderTimeout("motor: the value was sent"))
    gateway.settle()
    assert gateway.bodies() == [
        {"error": -3, "reply_id": "id", "message": "Timeout operation: motor: the value was sent"}
    ]


def test_commands_that_waited_too_long_in_kafka_are_refused(gateway: Any) -> None:
    gateway.command("put", pv_name="pva://a", value=packed(value=1), age=29.0)
    gateway.command("get", pv_name="pva://b", age=59.0)
    assert (len(gateway.pva.puts), len(gateway.pva.gets)) == (1, 1)
    gateway.command("put", pv_name="pva://c", value=packed(value=1), age=31.0)
    gateway.command("get", pv_name="pva://d", age=61.0)
    put, get = gateway.bodies()
    assert put["message"].startswith(
        "the put waited 31.0 s, longer than the 30 s after which it is not carried out; if that is not so, the clock of"
    )
    assert get["message"].startswith("the get waited 61.0 s, longer than the 60 s after which it is not carried out")
    assert (put["error"], get["error"]) == (-3, -3)
    assert (len(gateway.pva.puts), len(gateway.pva.gets)) == (1, 1)


def test_a_put_with_a_time_stamp_in_the_future_is_refused(gateway: Any, caplog: pytest.LogCaptureFixture) -> None:
    gateway.command("put", pv_name="pva://a", value=packed(value=1), age=-4.0)
    assert values(gateway) == [1]
    gateway.command("put", pv_name="pva://b", value=packed(value=2), age=-120.0)
    (body,) = gateway.bodies()
    assert body["error"] == -3
    assert body["message"].startswith("the put is not carried out: its time stamp is 120.0 s in the future; ")
    assert "message.timestamp.type=LogAppendTime" in body["message"]
    assert "in the future" in caplog.text
    assert values(gateway) == [1]


def test_put_that_grows_too_old_in_the_queue_is_refused(new_gateway: Any) -> None:
    gateway = new_gateway(max_put_age=0.3)
    gateway.command("put", pv_name="pva://a", value=packed(value=1), age=0.0)
    gateway.command("put", pv_name="pva://a", value=packed(value=2), age=0.0)
    gateway.advance(0.4)
    gateway.pva.puts[0][3].set_result(None)
    gateway.settle()
    assert [body["error"] for body in gateway.bodies()] == [0, -3]
    assert len(gateway.pva.puts) == 1


@pytest.mark.parametrize(("limit", "waited"), [(4000, 4.0), (10**400, 10.0), (0, 10.0), (-1, 10.0), ("4000", 10.0)])
def test_a_get_is_answered_before_its_client_gives_up(new_gateway: Any, limit: object, waited: float) -> None:
    gateway = new_gateway(operation_timeout=10.0)
    gateway.command("get", pv_name="pva://dead", timeout_msec=limit)
    _, timeout, future = gateway.pva.gets[0]
    assert timeout == pytest.approx(waited)
    future.set_exception(ProviderTimeout("no answer"))
    gateway.settle()
    (body,) = gateway.bodies()
    assert body["error"] == -3
    text = f": the PV does not answer (the gateway waited {waited:g} s)" if waited < 10.0 else ""
    assert body["message"] == "Timeout operation" + text


def test_queued_operations_time_out(new_gateway: Any) -> None:
    gateway = new_gateway(operation_timeout=0.3)
    for number in range(3):
        gateway.command("put", pv_name="pva://a", value=packed(value=number), reply_id=str(number))
    gateway.advance(0.2)
    assert gateway.sent() == []
    gateway.advance(0.31)
    assert sorted((body["reply_id"], body["error"]) for body in gateway.bodies()) == [("1", -3), ("2", -3)]
    assert len(gateway.pva.puts) == 1, "an operation that timed out in the queue is never carried out"
    gateway.pva.puts[0][3].set_exception(ProviderTimeout("late"))
    gateway.settle()
    text = "Timeout operation: the value was sent, and may have been written"
    assert gateway.bodies() == [{"error": -3, "reply_id": "0", "message": text}]
    assert gateway.handler.get_put.pending == 0
    gateway.advance(5)
    assert len(gateway.pva.puts) == 1


def test_an_operation_without_an_answer_of_its_provider_times_out(gateway: Any) -> None:
    gateway.command("get", pv_name="pva://a")
    gateway.advance(11.5)
    assert gateway.bodies() == [{"error": -3, "reply_id": "id", "message": "Timeout operation"}]
    gateway.pva.gets[0][2].set_result(PVReading({"value": 1}))
    gateway.settle()
    assert gateway.sent() == [], "one reply for one command"


def test_sweeps_do_not_overlap(
    gateway: Any, reading: Callable[..., PVReading], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps: list[object] = []
    monkeypatch.setattr(gateway.handler.get_put, "_sweep", sweeps.append)
    for number in range(50):
        gateway.command("get", pv_name="pva://a")
        gateway.pva.gets[number][2].set_result(reading(1))
        gateway.settle()
    gateway.command("get", pv_name="pva://a")
    gateway.advance(1.1)
    assert len(sweeps) == 4


def test_a_queued_put_gets_the_remaining_timeout(gateway: Any) -> None:
    gateway.command("put", pv_name="pva://a", value=packed(value=1))
    gateway.command("put", pv_name="pva://a", value=packed(value=2))
    gateway.advance(0.4)
    gateway.pva.puts[0][3].set_result(None)
    gateway.settle()
    assert gateway.pva.puts[1][2] == pytest.approx(9.6, abs=0.01)


def test_stopping_fails_pending_operations(gateway: Any) -> None:
    gateway.command("put", pv_name="pva://a", value=packed(value=1))
    gateway.command("put", pv_name="pva://a", value=packed(value=2))
    gateway.command("get", pv_name="pva://b")
    gateway.handler.get_put.abandon()
    gateway.advance(5)
    assert [(body["error"], body["message"]) for body in gateway.bodies()] == [
        (-2, "the gateway is stopping: the get may still be carried out"),
        (-2, "the gateway is stopping: the put was not carried out"),
        (-2, "the gateway is stopping: the put may still be carried out"),
    ]
    assert len(gateway.pva.puts) == 1


def test_an_unsupported_protocol_is_an_error(gateway: Any) -> None:
    gateway.handler.get_put._providers = {"pva": gateway.pva}
    gateway.command("get", pv_name="ca://a")
    assert gateway.bodies() == [{"error": -2, "reply_id": "id", "message": "this gateway does not speak ca"}]


def test_thousands_of_gets_run_concurrently(gateway: Any, reading: Callable[..., PVReading]) -> None:
    for number in range(2000):
        gateway.command("get", pv_name=f"pva://a:{number}", reply_id=str(number))
    assert len(gateway.pva.gets) == 2000
    for address, _, future in reversed(gateway.pva.gets):
        future.set_result(reading(address.base))
    gateway.settle()
    assert len({body["reply_id"] for body in gateway.bodies()}) == 2000
    assert gateway.handler.get_put.pending == 0


def test_pvs_that_do_not_answer_delay_only_their_application(new_gateway: Any, reading: Callable[..., Any]) -> None:
    gateway = new_gateway(max_pending_per_application=3)
    for number in range(5):
        gateway.command("get", pv_name=f"pva://dead{number}", reply_id=f"dead{number}", reply_topic="a")
    gateway.command("get", pv_name="pva://x", reply_topic="b")
    assert [address.name for address, _, _ in gateway.pva.gets] == ["dead0", "dead1", "dead2", "x"]
    gateway.pva.gets[-1][2].set_result(reading(1))
    gateway.settle()
    assert gateway.bodies("b") == [{"error": 0, "reply_id": "id", "x": {"value": 1}}]
    gateway.advance(9.0)
    for _, _, future in gateway.pva.gets[:3]:
        future.set_exception(ProviderTimeout("no answer"))
    gateway.settle()
    assert [(address.name, timeout) for address, timeout, _ in gateway.pva.gets[4:]] == [("dead3", 10), ("dead4", 10)]
    gateway.sent()
    gateway.advance(12.0)
    assert [(body["reply_id"], body["error"]) for body in gateway.bodies("a")] == [("dead3", -3), ("dead4", -3)]


def test_a_get_that_waits_for_its_application_waits_no_longer_than_its_age(new_gateway: Any) -> None:
    gateway = new_gateway(max_pending_per_application=1, operation_timeout=100.0)
    gateway.command("get", pv_name="pva://dead", age=0.0)
    gateway.command("get", pv_name="pva://x", age=0.0, reply_id="late")
    gateway.advance(102.0)
    assert "waited 10" in next(body["message"] for body in gateway.bodies() if body["reply_id"] == "late")
    assert len(gateway.pva.gets) == 1


def test_a_put_that_waits_for_its_application_times_out_and_writes_nothing(new_gateway: Any) -> None:
    gateway = new_gateway(max_pending_per_application=1)
    gateway.command("get", pv_name="pva://dead", reply_topic="a")
    gateway.command("put", pv_name="pva://x", value=packed(value=1), reply_topic="a", reply_id="waits")
    gateway.command("put", pv_name="pva://x", value=packed(value=2), reply_topic="b")
    assert gateway.pva.puts == [], "the puts to a PV stay in order"
    gateway.advance(10.3)
    late = next(body for body in gateway.bodies("a") if body["reply_id"] == "waits")
    assert late["error"] == -3
    assert "nothing was written" in late["message"]
    assert "[gateway] max_pending_per_application" in late["message"]


def test_what_exceeds_the_bound_on_waiting_is_refused_at_once(new_gateway: Any) -> None:
    gateway = new_gateway(max_pending_per_application=1, max_waiting_per_application=1)
    for number in range(2):
        gateway.command("get", pv_name=f"pva://dead{number}")
    gateway.command("get", pv_name="pva://x", reply_id="get")
    gateway.command("put", pv_name="pva://x", value=packed(value=1), reply_id="put")
    bodies = gateway.bodies()
    assert [(body["reply_id"], body["error"]) for body in bodies] == [("get", -10), ("put", -10)]
    assert all("1 may wait ([gateway] max_waiting_per_application)" in body["message"] for body in bodies)
    gateway.advance(11.5)
    gateway.sent()
    gateway.command("put", pv_name="pva://x", value=packed(value=2), reply_topic="b")
    assert [fields for _, fields, _, _ in gateway.pva.puts] == [{"value": 2}]


def test_an_exception_while_starting_ends_the_operation(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(gateway.handler.get_put, "_clock", lambda: 1 / 0)
        gateway.command("put", pv_name="pva://x", value=packed(value=1))
    assert gateway.bodies()[0]["error"] == -2
    assert gateway.handler.get_put.pending == 0
    gateway.command("put", pv_name="pva://x", value=packed(value=2))
    assert [fields for _, fields, _, _ in gateway.pva.puts] == [{"value": 2}]


def entries(root: object) -> Counter[str]:
    """Returns the number of entries in the tables of an object and of those that it is made of, by attribute."""
    counts, seen, todo = Counter[str](), set[int](), [root]
    while todo:
        item = todo.pop()
        if id(item) in seen or not type(item).__module__.startswith("k2eg_rx.gateway.commands"):
            continue
        seen.add(id(item))
        for name, value in vars(item).items():
            if isinstance(value, Sized):
                counts[f"{type(item).__name__}.{name}"] += len(value)
            todo.append(value)
    return counts


def test_names_that_were_used_once_leave_nothing_behind(gateway: Any, reading: Callable[..., PVReading]) -> None:
    before = entries(gateway.handler.get_put)
    assert "KeyedQueue._queues" in before
    for number in range(300):
        name, topic = f"pva://{number}", f"topic-{number}"
        gateway.command("get", pv_name=name, reply_topic=topic)
        gateway.command("put", pv_name=name, value=packed(value=1), reply_topic=topic)
        gateway.pva.gets.pop()[2].set_result(reading(1))
        gateway.pva.puts.pop()[3].set_result(None)
        gateway.settle()
        gateway.command("get", pv_name=f"{name}:dead", reply_topic=topic)
    assert len(gateway.sent()) == 600
    assert (entries(gateway.handler.get_put) - before)["Expiries._bucket_of"] == 300
    gateway.advance(12.0)
    assert len(gateway.sent()) == 300
    assert entries(gateway.handler.get_put) == before
