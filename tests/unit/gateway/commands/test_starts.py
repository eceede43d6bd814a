"""The record of a gateway's start, and the replies that tell clients its topic."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from reactivex.testing import TestScheduler

from k2eg_rx.errors import TransportError
from k2eg_rx.gateway.commands.starts import StartPublisher
from k2eg_rx.gateway.commands.topics import Topics
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.gateway.runtime.options import GatewayOptions


class Sink:
    """A sink that records; the test reports deliveries."""

    def __init__(self, error: TransportError | None = None) -> None:
        self.error = error
        self.closed = False
        self.sent: list[tuple[str, bytes, dict[str, Any]]] = []

    def send(self, topic: str, value: bytes | None, **more: Any) -> None:
        assert value is not None
        if self.error is not None:
            raise self.error
        self.sent.append((topic, value, more))

    def close(self, timeout: float) -> None:
        self.closed = True


class Admin:
    def __init__(self) -> None:
        self.created: dict[str, int] = {}

    def create(self, topics: Any) -> dict[str, str]:
        self.created.update(topics)
        return {}

    def listeners(self) -> None:
        return None

    def end_offsets(self, topics: Any) -> dict[str, int]:
        return {}

    def delete(self, topics: Any) -> dict[str, str]:
        return {}

    def close(self) -> None:
        pass


def context_of(scheduler: TestScheduler, **options: Any) -> GatewayContext:
    return GatewayContext(scheduler, options=GatewayOptions(**options), clock=lambda: 1_795_000_000.5)


def test_the_topic_is_created_before_the_start_is_published() -> None:
    scheduler, admin, sink = TestScheduler(), Admin(), Sink()
    context = context_of(scheduler)
    topics = Topics(admin, scheduler, create=True)
    done: list[Callable[[], None]] = []
    topics._worker.submit = done.append  # type: ignore[method-assign]  # pyright: ignore
    StartPublisher(lambda: sink, topics, context, "site-commands").publish()
    assert context.announcement.topic_for("site-commands") == "site-commands-gateways"
    scheduler.advance_by(0.1)
    assert sink.sent == []
    done[0]()
    scheduler.advance_by(0.1)
    assert admin.created == {"site-commands-gateways": 1}
    ((topic, value, more),) = sink.sent
    assert (topic, more["key"], dict(more["headers"])) == (
        "site-commands-gateways",
        b"k2eg-gateway-start",
        {"k2eg-ser-type": "Json"},
    )
    body = json.loads(value)
    assert body["epoch"] == 1_795_000_000_500
    assert {type(body["gateway"]), type(body["version"])} == {str}


def test_a_gateway_that_creates_no_topics_names_the_topic_once_it_is_known_to_exist() -> None:
    scheduler = TestScheduler()
    for error in (None, TransportError("no such topic")):
        context, sink = context_of(scheduler, create_topics=False), Sink()
        StartPublisher(lambda: sink, Topics(None, scheduler, create=False), context, "c").publish()  # noqa: B023
        assert context.announcement.topic_for("c") == ""
        sink.sent[0][2]["on_delivery"](error)
        assert context.announcement.topic_for("c") == ("" if error else "c-gateways")
        assert sink.closed
    failing, context = Sink(TransportError("x")), context_of(scheduler, create_topics=False)
    StartPublisher(lambda: failing, Topics(None, scheduler, create=False), context, "c").publish()
    assert (context.announcement.topic_for("c"), failing.closed) == ("", True)


def test_replies_to_activations_name_the_topic(gateway: Any) -> None:
    snapshot = {"snapshot_name": "s", "pv_name_list": ["pva://a"], "time_window_msec": 1000}
    gateway.context.announcement.topics["commands"] = "c-gateways"
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    gateway.command("multi-monitor", pv_name_list=["pva://a"])
    gateway.command("repeating_snapshot", **snapshot)
    gateway.command("repeating_snapshot", **snapshot)
    gateway.command("repeating_snapshot_stop", snapshot_name="s")
    named = [body.get("gateway_topic") for body in gateway.bodies("replies")]
    assert named == ["c-gateways"] * 4 + [None]


def test_replies_name_the_topic_of_their_own_command_topic(gateway: Any) -> None:
    gateway.context.announcement.topics.update({"commands": "c-gateways", "others": "o-gateways"})
    for topic in ("others", "commands", "third"):
        gateway.command("monitor", topic=topic, pv_name="pva://a", monitor_dest_topic="a")
    assert [body.get("gateway_topic") for body in gateway.bodies("replies")] == ["o-gateways", "c-gateways", None]
