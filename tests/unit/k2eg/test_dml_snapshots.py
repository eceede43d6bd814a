"""Snapshots of `dml`."""

from __future__ import annotations

from typing import Any

import pytest

from k2eg.broker import SnapshotProperties, SnapshotType
from k2eg.dml import dml
from k2eg_rx import OperationError

URIS = ["pva://variable:a", "ca://variable:b"]


@pytest.fixture
def snapshot_gateway(gateway: Any) -> Any:
    gateway.reply_with("snapshot", {"variable:a": {"value": 1}}, {"error": 1})
    return gateway


def test_snapshot_sync_returns_error_snapshot_and_every_pv(k: dml, snapshot_gateway: Any) -> None:
    result = k.snapshot_sync(URIS, timeout=10.0)
    assert result == {
        "error": 0,
        "snapshot": {"variable:a": [{"value": 1}], "variable:b": []},
        "variable:a": [{"value": 1}],
        "variable:b": [],
    }
    assert result["snapshot"]["variable:a"]["value"] == result["variable:a"][0]["value"] == 1
    assert snapshot_gateway.commands[0]["pv_name_list"] == URIS


def test_snapshot_sync_raises_a_failure_reply(k: dml, gateway: Any) -> None:
    gateway.reply_with("snapshot", {"error": -1, "message": "malformed"}, {"error": 1})
    with pytest.raises(OperationError, match="malformed"):
        k.snapshot_sync(URIS)


def test_snapshot_returns_its_id_at_once_and_passes_it_to_the_handler(
    k: dml, snapshot_gateway: Any, handle: Any, new_handler: Any
) -> None:
    handler = new_handler()
    first, second = k.snapshot(URIS, handler), k.snapshot(pv_uri_list=URIS, handler=handler)
    assert handler.calls == []
    handle()
    data = {"variable:a": [{"value": 1}], "variable:b": []}
    assert handler.calls == [(first, data), (second, data)]
    assert first != second
    assert handler.calls[0][1]["variable:a"]["value"] == 1


def test_a_failed_snapshot_is_logged_with_its_id(
    k: dml, gateway: Any, handle: Any, new_handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    handler = new_handler()
    gateway.reply_with("snapshot", {"error": -1, "message": "malformed"})
    name = k.snapshot(URIS, handler)
    handle()
    assert handler.calls == []
    assert f"snapshot {name} failed: snapshot of " in caplog.text
    assert "malformed" in caplog.text


def recurring(**fields: Any) -> SnapshotProperties:
    given: dict[str, Any] = {"snapshot_name": "my_snapshot", "pv_uri_list": URIS}
    return SnapshotProperties(**(given | fields))


def iteration(gateway: Any, number: int, *data: dict[str, Any]) -> None:
    header = {"message_type": 0, "snapshot_name": "my_snapshot", "timestamp": 100 * number, "iter_index": number}
    parts = [{"message_type": 1, "timestamp": 100 * number, "iter_index": number} | part for part in data]
    tail = header | {"message_type": 2, "error": 0, "timestamp": 100 * number + 50}
    gateway.messages("my_snapshot", "my_snapshot", header, *parts, tail)


def test_the_handler_of_a_recurring_snapshot_receives_the_documented_dict(
    k: dml, gateway: Any, handle: Any, new_handler: Any
) -> None:
    handler = new_handler()
    gateway.reply_with("repeating_snapshot", {"message": "started", "publishing_topic": "my_snapshot"})
    assert k.snapshot_recurring(recurring(), handler, timeout=5.0)["message"] == "started"
    iteration(gateway, 1, {"variable:a": {"value": 1}}, {"variable:a": {"value": 2}})
    iteration(gateway, 2)
    handle()
    (name, data), (_, second) = handler.calls
    assert name == "my_snapshot"
    assert data == {
        "timestamp": 150,
        "iteration": 1,
        "header_timestamp": 100,
        "tail_timestamp": 150,
        "variable:a": [{"value": 1}, {"value": 2}],
        "variable:b": [],
    }
    assert data["variable:a"][0]["value"] == 1
    assert data["variable:a"]["value"] == 2
    assert (second["iteration"], second["variable:a"]) == (2, [])


def test_two_handlers_of_a_snapshot_are_both_called(k: dml, gateway: Any, handle: Any, new_handler: Any) -> None:
    first, second = new_handler(), new_handler()
    k.snapshot_recurring(recurring(), first)
    k.snapshot_recurring(recurring(), second)
    iteration(gateway, 1)
    handle()
    assert len(first.calls) == len(second.calls) == 1
    assert gateway.names() == ["repeating_snapshot"]


def test_the_same_name_with_other_properties_is_rejected(k: dml, handle: Any, new_handler: Any) -> None:
    k.snapshot_recurring(recurring(), new_handler())
    with pytest.raises(ValueError, match="'my_snapshot' runs in this client with other properties"):
        k.snapshot_recurring(recurring(time_window=5), new_handler())


def test_invalid_properties_are_rejected_before_anything_is_sent(k: dml, gateway: Any, new_handler: Any) -> None:
    with pytest.raises(ValueError, match=r"SnapshotProperties\.time_window: .*, got -1"):
        k.snapshot_recurring(recurring(time_window=-1), new_handler())
    assert gateway.commands == []


def test_a_filter_for_a_field_that_a_pv_lacks_is_rejected(k: dml, gateway: Any, new_handler: Any) -> None:
    gateway.set_pvs(variable__a={"value": 1, "alarm": {}}, variable__b={"value": 1})
    asked = recurring(type=SnapshotType.TIMED_BUFFERED, pv_field_filter_list=["value", "alarm"])
    with pytest.raises(ValueError, match="ca://variable:b has no field 'alarm'"):
        k.snapshot_recurring(asked, new_handler())
    assert "repeating_snapshot" not in gateway.names()
    k.snapshot_recurring(asked, new_handler(), check_fields=False)
    assert gateway.names()[-1] == "repeating_snapshot"


def test_a_rejected_start_is_raised_and_the_snapshot_removed(k: dml, gateway: Any, new_handler: Any) -> None:
    gateway.reply_with("repeating_snapshot", {"error": -7, "message": "invalid"})
    with pytest.raises(OperationError, match="-7: invalid"):
        k.snapshot_recurring(recurring(), new_handler())
    del gateway.replies["repeating_snapshot"]
    k.snapshot_recurring(recurring(), new_handler())


def test_a_failed_iteration_is_logged(
    k: dml, gateway: Any, handle: Any, new_handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    handler = new_handler()
    k.snapshot_recurring(recurring(), handler)
    header = {"message_type": 0, "snapshot_name": "my_snapshot", "timestamp": 1, "iter_index": 1}
    tail = header | {"message_type": 2, "error": -4, "error_message": "no luck"}
    gateway.messages("my_snapshot", "my_snapshot", header, tail)
    handle()
    assert len(handler.calls) == 1
    assert "name=my_snapshot iteration=1 error=-4 message=no luck" in caplog.text


@pytest.mark.parametrize("method", ["snapshost_trigger", "snapshot_trigger"])
def test_both_names_of_trigger_send_the_command(k: dml, gateway: Any, method: str) -> None:
    gateway.reply_with("repeating_snapshot_trigger", {"message": "armed"})
    assert getattr(k, method)("my_snapshot", timeout=5.0)["message"] == "armed"
    assert getattr(k, method)(snapshot_name="my_snapshot", tags={"run": "7"})["error"] == 0
    assert gateway.names() == ["repeating_snapshot_trigger"] * 2
    assert [command["snapshot_name"] for command in gateway.commands] == ["my_snapshot"] * 2
    assert gateway.commands[1]["tags"] == {"run": "7"}


def test_stop_sends_the_command(k: dml, gateway: Any) -> None:
    assert k.snapshot_stop("my_snapshot", timeout=5.0)["error"] == 0
    assert gateway.commands[0]["snapshot_name"] == "my_snapshot"


@pytest.mark.parametrize("method", ["snapshost_trigger", "snapshot_trigger", "snapshot_stop"])
def test_a_trigger_or_stop_needs_a_name(k: dml, gateway: Any, method: str) -> None:
    with pytest.raises(ValueError, match="snapshot's name"):
        getattr(k, method)("")
    assert gateway.commands == []


def test_a_trigger_of_an_unknown_snapshot_raises_the_failure_reply(k: dml, gateway: Any) -> None:
    gateway.reply_with("repeating_snapshot_trigger", {"error": -2, "message": "not found"})
    with pytest.raises(OperationError, match="not found"):
        k.snapshost_trigger("my_snapshot")
