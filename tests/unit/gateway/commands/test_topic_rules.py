"""The topics that a gateway publishes to."""

from __future__ import annotations

from typing import Any

import pytest


def errors(gateway: Any, topic: str | None = "replies") -> list[tuple[int, str]]:
    return [(body["error"], body["message"]) for body in gateway.bodies(topic)]


def monitor(gateway: Any, topic: str, **more: Any) -> list[tuple[int, str]]:
    gateway.command("monitor", pv_name="pva://x", monitor_dest_topic=topic, **more)
    return errors(gateway, more.get("reply_topic", "replies"))


def snapshot(gateway: Any, name: str, **more: Any) -> list[tuple[int, str]]:
    gateway.command("repeating_snapshot", snapshot_name=name, pv_name_list=["pva://x"], triggered=True, **more)
    return errors(gateway, more.get("reply_topic", "replies"))


@pytest.mark.parametrize(
    ("topic", "text"),
    [
        ("commands", "topic 'commands' is the command topic"),
        ("commands-gateways", "topic 'commands-gateways' is that of the starts of gateways"),
        ("__consumer_offsets", "topic '__consumer_offsets' is internal to Kafka"),
    ],
)
def test_the_command_topic_and_internal_ones_are_never_published_to(gateway: Any, topic: str, text: str) -> None:
    assert monitor(gateway, topic) == [(-11, f"monitor refused: {text}")]
    assert snapshot(gateway, topic) == [(-11, f"snapshot refused: {text}")]
    gateway.command("multi-monitor", pv_name_list=["pva://y", f"pva://{topic}"])
    assert errors(gateway) == [(-11, f"monitor refused: {text}")]
    for command in ("get", "monitor", "nonsense"):
        gateway.command(command, pv_name="pva://x", monitor_dest_topic="x", reply_topic=topic)
    assert gateway.sent() == []
    assert gateway.metrics.poison == 3
    assert (gateway.pva.subscriptions, gateway.pva.gets) == ([], [])


def test_a_topic_is_of_one_kind_while_it_is_in_use(gateway: Any) -> None:
    assert monitor(gateway, "m")[0][0] == 0
    assert snapshot(gateway, "s")[0][0] == 0
    gateway.command("get", pv_name="pva://x", reply_topic="app")
    assert monitor(gateway, "s") == [(-11, "monitor refused: topic 's' is a snapshot's")]
    assert monitor(gateway, "app") == [(-11, "monitor refused: topic 'app' is the reply topic of an application")]
    assert snapshot(gateway, "m") == [(-11, "snapshot refused: topic 'm' is a monitor's")]
    assert snapshot(gateway, "app") == [(-11, "snapshot refused: topic 'app' is the reply topic of an application")]
    assert snapshot(gateway, "replies")[0][0] == -11
    for topic in ("m", "s"):
        gateway.command("get", pv_name="pva://y", reply_topic=topic)
    assert [address.name for address, _, _ in gateway.pva.gets] == ["x"]
    assert gateway.metrics.poison == 2
    gateway.command("repeating_snapshot_stop", snapshot_name="s")
    gateway.handler.expire({})
    gateway.advance(3601)
    gateway.handler.expire({})
    gateway.sent()
    assert monitor(gateway, "s")[0][0] == 0
    assert snapshot(gateway, "m")[0][0] == 0


def test_a_monitor_may_publish_to_its_own_reply_topic(gateway: Any) -> None:
    gateway.command("monitor", pv_name="pva://x", monitor_dest_topic=...)
    gateway.command("get", pv_name="pva://x")
    assert errors(gateway)[0][0] == 0
    assert len(gateway.pva.gets) == 1


def test_patterns_restrict_topics(new_gateway: Any) -> None:
    gateway = new_gateway(reply_topics=".*-reply", monitor_topics="[^-]*", snapshot_topics="snap_.*")
    app = {"reply_topic": "app-reply"}
    assert monitor(gateway, "a-b", **app) == [
        (-11, "monitor refused: topic 'a-b' does not match '[^-]*' ([gateway] monitor_topics)")
    ]
    assert snapshot(gateway, "a", **app) == [
        (-11, "snapshot refused: topic 'a' does not match 'snap_.*' ([gateway] snapshot_topics)")
    ]
    assert monitor(gateway, "a", **app)[0][0] == snapshot(gateway, "snap a", **app)[0][0] == 0
    gateway.command("get", pv_name="pva://x", reply_topic="app")
    assert (gateway.sent(), gateway.pva.gets, gateway.metrics.poison) == ([], [], 1)
