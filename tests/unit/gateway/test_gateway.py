"""The start of a gateway while Kafka is away; what is counted of commands."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from k2eg_rx.errors import TransportError
from k2eg_rx.gateway.epics.provider import ProviderError, ProviderTimeout
from k2eg_rx.gateway.gateway import Gateway
from k2eg_rx.gateway.runtime.options import GatewayOptions
from k2eg_rx.protocol.commands import pack_fields


class AbsentKafka:
    """A transport without a broker, and its parts."""

    def __init__(self) -> None:
        self.reading: Future[None] = Future()
        self.asked = threading.Event()

    def sink(self, **_: Any) -> AbsentKafka:
        return self

    events = lambda self, *_: self  # noqa: E731

    def read(self, topic: str) -> Future[None]:
        self.asked.set()
        return self.reading

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


@pytest.fixture
def kafka() -> AbsentKafka:
    return AbsentKafka()


@pytest.fixture
def virtual_gateway(new_gateway: Callable[..., Any]) -> Any:
    return new_gateway()


@pytest.fixture
def gateway(kafka: Any) -> Iterator[Gateway]:
    gateway = Gateway(kafka, {}, GatewayOptions(), "commands")
    yield gateway
    gateway.close(1.0)


def test_without_a_timeout_a_gateway_starts_when_kafka_is_there(kafka, gateway):
    threading.Thread(target=lambda: (kafka.asked.wait(10), kafka.reading.set_result(None))).start()
    gateway.start(None)


def test_the_start_fails_after_a_timeout(gateway):
    with pytest.raises(
        TransportError, match=r"the command topic 'commands' must be readable within 0.01 s, got no ans"
    ):
        gateway.start(0.01)


def test_the_start_waits_for_all_command_topics(kafka: Any) -> None:
    reading = {"commands": Future[None](), "ops": Future[None]()}
    kafka.read = lambda topic: reading[topic]
    gateway = Gateway(kafka, {}, GatewayOptions(command_topics="ops:operators"), "commands")
    try:
        reading["ops"].set_result(None)
        with pytest.raises(TransportError, match="the command topic 'commands', 'ops' must be readable"):
            gateway.start(0.01)
        reading["commands"].set_result(None)
        gateway.start(None)
    finally:
        gateway.close(1.0)


def test_a_gateway_whose_rules_cannot_be_used_leaves_no_thread(kafka: Any) -> None:
    before = threading.active_count()
    with pytest.raises(ValueError, match="pvlist must be a file"):
        Gateway(kafka, {}, GatewayOptions(pvlist="none"), "commands")
    assert threading.active_count() <= before


def test_a_refusal_fails_the_start_at_once(kafka, gateway):
    kafka.reading.set_exception(TransportError("no permission"))
    with pytest.raises(TransportError, match="no permission"):
        gateway.start(None)


def test_the_wait_for_kafka_can_be_stopped(gateway):
    stop = threading.Event()
    stop.set()
    with pytest.raises(TransportError, match="stopped while waiting for Kafka"):
        gateway.start(None, stop)


def test_each_command_is_counted_with_its_result(virtual_gateway: Any, reading: Callable[..., Any]) -> None:
    gateway = virtual_gateway
    value = base64.b64encode(pack_fields({"value": 1})).decode()
    for name in ("ok", "late", "broken", "bad name"):
        gateway.command("get", pv_name=f"pva://{name}")
    for (_, _, future), outcome in zip(gateway.pva.gets, ("ok", ProviderTimeout(""), ProviderError("")), strict=True):
        future.set_exception(outcome) if isinstance(outcome, Exception) else future.set_result(reading(1))
    gateway.command("put", pv_name="pva://a", value=value)
    gateway.pva.puts[0][3].set_result(None)
    gateway.command("put", pv_name="pva://a", value=value, age=1000)
    gateway.command("put", pv_name="pva://a", value=value, reply_id=...)
    gateway.pva.puts[1][3].set_result(None)
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    gateway.command("monitor", pv_name="bad name", monitor_dest_topic="a")
    gateway.command("multi-monitor", pv_name_list=["pva://a"])
    gateway.command("snapshot", pv_name_list=["pva://a"], time_window_msec=10)
    gateway.command("repeating_snapshot", snapshot_name="s", pv_name_list=["pva://a"], triggered=True)
    gateway.command("repeating_snapshot_trigger", snapshot_name="s")
    gateway.command("repeating_snapshot_trigger", snapshot_name="no such")
    gateway.command("repeating_snapshot_stop", snapshot_name="s")
    gateway.command("no such")
    gateway.raw(b"no JSON")
    gateway.advance(1)
    assert gateway.metrics.received == {
        "get": 4,
        "put": 3,
        "monitor": 2,
        "multi-monitor": 1,
        "snapshot": 1,
        "repeating_snapshot": 1,
        "repeating_snapshot_trigger": 2,
        "repeating_snapshot_stop": 1,
        "unknown": 1,
        "unreadable": 1,
    }
    assert gateway.metrics.results == {
        ("get", "ok"): 1,
        ("get", "timeout"): 1,
        ("get", "failed"): 1,
        ("get", "refused"): 1,
        ("put", "ok"): 2,
        ("put", "refused"): 1,
        ("monitor", "ok"): 1,
        ("monitor", "refused"): 1,
        ("multi-monitor", "ok"): 1,
        ("snapshot", "ok"): 1,
        ("repeating_snapshot", "ok"): 1,
        ("repeating_snapshot_trigger", "ok"): 1,
        ("repeating_snapshot_trigger", "refused"): 1,
        ("repeating_snapshot_stop", "ok"): 1,
        ("unknown", "refused"): 1,
    }


def test_stopping_counts_what_was_given_up_as_failed(virtual_gateway: Any) -> None:
    virtual_gateway.command("get", pv_name="pva://a")
    assert virtual_gateway.metrics.results == {}
    virtual_gateway.handler.get_put.abandon()
    assert virtual_gateway.metrics.results == {("get", "failed"): 1}


def test_iterations_of_snapshots_and_lost_connections_are_counted(virtual_gateway: Any) -> None:
    gateway = virtual_gateway
    gateway.command("repeating_snapshot", snapshot_name="s", pv_name_list=["pva://a", "pva://b"])
    gateway.update("a", 1)
    gateway.advance(1.0)
    gateway.advance(1.0)
    assert (gateway.metrics.iterations, gateway.metrics.snapshot_values) == (2, 2)
    gateway.pva.connected("a", False)
    gateway.pva.connected("b", False)  # never was connected
    gateway.settle()
    assert gateway.metrics.disconnections == 1
