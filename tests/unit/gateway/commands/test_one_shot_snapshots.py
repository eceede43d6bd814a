"""One-shot snapshots in virtual time: first values and the end of the window."""

from __future__ import annotations

from typing import Any

import pytest

from k2eg_rx.protocol.encode import Serialization

COMPLETE = {"error": 1, "reply_id": "id"}


def test_values_are_reported_as_they_arrive_until_the_window_ends(gateway: Any) -> None:
    gateway.command("snapshot", pv_name_list=["pva://a", "ca://b", "pva://no:such"], time_window_msec=2000)
    gateway.ca.update("b", 2)
    gateway.settle()
    (sent,) = gateway.sent()
    assert (sent.topic, sent.key, sent.form) == ("replies", "snapshot-dist-key", Serialization.JSON)
    assert list(sent.body.items()) == [("error", 0), ("reply_id", "id"), ("b", {"value": 2})]
    gateway.advance(1.0)
    gateway.update("a", 1)
    gateway.update("a", 11)
    assert gateway.bodies() == [{"error": 0, "reply_id": "id", "a": {"value": 1}}], "only the first value of each"
    gateway.advance(0.99)
    assert gateway.sent() == []
    gateway.advance(0.01)
    assert [(sent.key, sent.body) for sent in gateway.sent()] == [("snapshot-dist-key", COMPLETE)]
    assert not [each for each in gateway.pva.subscriptions + gateway.ca.subscriptions if each.open]


def test_the_window_lasts_its_full_time(gateway: Any) -> None:
    gateway.command("snapshot", pv_name_list=["pva://a"])
    gateway.update("a", 1)
    gateway.advance(0.9)
    assert [body["error"] for body in gateway.bodies()] == [0]
    gateway.advance(0.1)
    assert gateway.bodies() == [COMPLETE]


def test_the_default_window_is_a_second(gateway: Any) -> None:
    gateway.command("snapshot", pv_name_list=["pva://a"])
    gateway.advance(0.99)
    assert gateway.sent() == []
    gateway.advance(0.01)
    assert gateway.bodies() == [COMPLETE]
    gateway.update("a", 1)
    gateway.advance(10)
    assert gateway.sent() == []


def test_an_empty_window_completes_at_once(gateway: Any) -> None:
    gateway.command("snapshot", pv_name_list=["pva://a"], time_window_msec=0)
    assert gateway.bodies() == [COMPLETE]
    assert not gateway.pva.open("a")


@pytest.mark.parametrize("window", [-5, 10**18])
def test_an_invalid_window_is_refused_and_completed(gateway: Any, window: int) -> None:
    gateway.command("snapshot", pv_name_list=["pva://a"], time_window_msec=window)
    assert gateway.bodies() == [
        {"error": -4, "reply_id": "id", "message": f"The time window is not valid: {window}"},
        COMPLETE,
    ]
    assert not gateway.pva.subscriptions


def test_a_malformed_name_is_reported_and_drops_no_other_pv(gateway: Any) -> None:
    gateway.command("snapshot", pv_name_list=["bad", "pva://a", "pv://b"])
    gateway.update("a", 1)
    gateway.advance(1.0)
    assert gateway.bodies() == [
        {"error": -1, "reply_id": "id", "message": "PV 'bad'name malformed"},
        {"error": -1, "reply_id": "id", "message": "PV 'pv://b'name malformed"},
        {"error": 0, "reply_id": "id", "a": {"value": 1}},
        COMPLETE,
    ]


def test_an_exception_of_the_provider_is_reported(gateway: Any) -> None:
    gateway.pva.raises = RuntimeError("boom")
    gateway.command("snapshot", pv_name_list=["pva://a", "ca://b"])
    gateway.ca.update("b", 1)
    gateway.advance(1.0)
    assert gateway.bodies() == [
        {"error": -2, "reply_id": "id", "message": "pva://a: boom"},
        {"error": 0, "reply_id": "id", "b": {"value": 1}},
        COMPLETE,
    ]


def test_the_same_pv_over_both_protocols_gives_two_values(gateway: Any) -> None:
    gateway.command("snapshot", pv_name_list=["pva://a", "ca://a", "pva://a"])
    gateway.pva.update("a", 1)
    gateway.ca.update("a", 2)
    gateway.advance(1.0)
    assert [body.get("a") for body in gateway.bodies()] == [{"value": 1}, {"value": 2}, None]


def test_a_snapshot_does_not_affect_a_monitor(gateway: Any) -> None:
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a", uri_keys=True)
    reported: list[int] = []
    for value in range(1, 21):
        gateway.update("a", value)
        if value % 4 == 0:
            gateway.command("snapshot", pv_name_list=["pva://a"], reply_id=str(value))
    gateway.advance(1.0)
    sent = gateway.sent()
    assert [each.body["a"]["value"] for each in sent if each.topic == "a"] == list(range(1, 21))
    reported = [each.body["a"]["value"] for each in sent if each.key == "snapshot-dist-key" and "a" in each.body]
    assert reported == [4, 8, 12, 16, 20], "each snapshot reports the latest value at once"
    assert len(gateway.pva.subscriptions) == 1
    assert len(gateway.pva.open("a")) == 1


def test_a_shared_value_is_encoded_once(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from k2eg_rx.gateway.commands import messages as samples

    calls: list[object] = []
    encode = samples.encode_structure

    def counted(serialization: Serialization, structure: dict[str, Any]) -> bytes:
        calls.append(structure["value"])  # another test's gateway may run in this process
        return encode(serialization, structure)

    monkeypatch.setattr(samples, "encode_structure", counted)
    for topic in ("x", "y", "z"):
        gateway.command("monitor", pv_name="pva://a", monitor_dest_topic=topic)
    gateway.command("snapshot", pv_name_list=["pva://a"])
    gateway.command("repeating_snapshot", snapshot_name="s", pv_name_list=["pva://a"])
    gateway.update("a", 123_456)
    gateway.advance(5.0)
    assert len(gateway.sent()) > 20
    assert calls.count(123_456) == 1
