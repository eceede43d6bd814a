"""Flaws of the previous client of the laboratories, which this one does not have.

Each test is named after the correct behaviour.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from reactivex import operators as ops

import k2eg
from k2eg.serialization import Vector
from k2eg_rx import Client, OperationTimeout, PVUpdate, first
from k2eg_rx.embedded import EmbeddedStack
from k2eg_rx.kafka import KafkaTransport
from k2eg_rx.protocol.commands import pack_fields

TIMEOUT = 60.0


def assert_no_gap(ramp: Sequence[float]) -> None:
    """Asserts that the values of a demo ramp count up by one, modulo 100."""
    assert all((later - earlier) % 100 == 1 for earlier, later in pairwise(ramp)), ramp


@pytest.fixture
def dml(stack: EmbeddedStack, fresh_app_name: str) -> Any:
    with k2eg.dml("demo", fresh_app_name, settings=stack.settings(fresh_app_name)) as client:
        yield client


def test_a_slow_request_does_not_delay_another(client: Client) -> None:
    slow: list[Exception] = []
    client.get_stream("pva://no:such:pv", timeout=TIMEOUT).subscribe(on_error=slow.append)
    for _ in range(5):
        first(client.get_stream("pva://demo:sum"))
    assert slow == []


def test_updates_of_a_pv_stay_in_order(client: Client) -> None:
    inversions: list[tuple[float, float]] = []
    last = [-1.0]
    completed = threading.Event()

    def check(update: PVUpdate) -> None:
        if last[0] >= 0 and (update.value - last[0]) % 100 != 1:
            inversions.append((last[0], update.value))
        last[0] = update.value
        time.sleep(0.001)  # slow enough that a pool of threads would reorder updates

    updates = client.monitor_stream("pva://demo:ramp100").pipe(ops.take(500))
    updates.subscribe(check, on_completed=completed.set)
    assert completed.wait(TIMEOUT)
    assert inversions == []


def test_json_and_undecodable_replies_do_not_stop_the_client(client: Client, stack: EmbeddedStack) -> None:
    first(client.ready_stream())
    transport = KafkaTransport(stack.settings("poison"))
    sink = transport.sink()
    delivered = [threading.Event() for _ in range(6)]
    bodies: list[tuple[bytes, Any]] = [
        (b'{"error": 0, "reply_id": "unknown"}', [("k2eg-ser-type", b"Json")]),
        (b'{"error": 0', [("k2eg-ser-type", b"Json")]),
        (b"\xc1", [("k2eg-ser-type", b"Msgpack")]),
        (pack_fields({"error": "x"}), [("k2eg-ser-type", b"msgpack")]),
        (b"text", [("k2eg-ser-type", b"Xml")]),
        (b"text", []),
    ]
    for (body, headers), event in zip(bodies, delivered, strict=True):
        sink.send(client.settings.reply_topic, body, headers=headers, on_delivery=lambda _, event=event: event.set())
    assert all(event.wait(TIMEOUT) for event in delivered)
    assert first(client.get_stream("pva://demo:sum")).name == "demo:sum"
    seen = first(client.status_stream().pipe(ops.filter(lambda status: status.discarded >= 5)))
    assert seen.discarded == 5
    sink.close(1.0)
    transport.close(1.0)


def test_a_timed_out_request_is_removed(client: Client) -> None:
    for _ in range(5):
        with pytest.raises(OperationTimeout):
            first(client.get_stream("pva://no:such:pv", timeout=0.05))
    assert client.status.pending == 0


def test_every_handler_of_a_pv_is_called(dml: Any) -> None:
    called = [threading.Event(), threading.Event()]
    for event in called:
        dml.monitor("pva://demo:ramp10", lambda _name, _data, event=event: event.set())
    assert all(event.wait(TIMEOUT) for event in called)


def test_the_first_event_is_not_lost(stack: EmbeddedStack, fresh_app_name: str) -> None:
    for number in range(5):
        app_name = f"{fresh_app_name}-{number}"
        with Client("demo", app_name, settings=stack.settings(app_name)) as client:
            update = first(client.monitor_stream("pva://demo:table"))
            assert update.name == "demo:table"


def test_a_new_monitor_does_not_interrupt_running_ones(client: Client) -> None:
    values: list[float] = []
    enough = threading.Event()

    def append(update: PVUpdate) -> None:
        values.append(update.value)
        if len(values) >= 300:
            enough.set()

    client.monitor_stream("pva://demo:ramp100").subscribe(append)
    for uri in ("pva://demo:sum", "ca://demo:mode", "pva://demo:message", "ca://demo:sine1", "pva://demo:waveform"):
        first(client.monitor_stream(uri))
    assert enough.wait(TIMEOUT)
    assert_no_gap(values)


def test_a_second_instance_does_not_fence_the_first(stack: EmbeddedStack, fresh_app_name: str) -> None:
    settings = stack.settings(fresh_app_name)
    with Client("demo", fresh_app_name, settings=settings) as one:
        first(one.get_stream("pva://demo:sum"))
        with Client("demo", fresh_app_name, settings=settings) as two:
            for client in (one, two, one):
                assert first(client.get_stream("pva://demo:sum")).name == "demo:sum"


def test_a_handlers_exception_is_logged_and_the_handler_called_again(
    dml: Any, caplog: pytest.LogCaptureFixture
) -> None:
    called_again = threading.Event()
    calls: list[str] = []

    def handler(name: str, data: dict[str, Any]) -> None:
        calls.append(name)
        if len(calls) > 1:
            called_again.set()
        raise RuntimeError("a bug of the handler")

    with caplog.at_level(logging.ERROR):
        dml.monitor("pva://demo:ramp10", handler)
        assert called_again.wait(TIMEOUT)
        dml.stop_monitor("demo:ramp10")
    assert "a bug of the handler" in caplog.text
    assert "demo:ramp10" in caplog.text


def test_the_documented_puts_work(dml: Any) -> None:
    assert dml.put("pva://demo:setpoint1", 4, timeout=TIMEOUT)["error"] == 0
    assert dml.get("ca://demo:setpoint1")["value"] == 4.0
    before = dml.get("ca://t:wfd")["value"]
    assert dml.put("ca://t:wfd", Vector([1, 2, 3, 4]), timeout=TIMEOUT)["error"] == 0
    assert dml.get("ca://t:wfd")["value"] == [1.0, 2.0, 3.0, 4.0]
    dml.put("ca://t:wfd", before)


def test_put_and_get_and_close_work_inside_a_handler(stack: EmbeddedStack, fresh_app_name: str) -> None:
    client = k2eg.dml("demo", fresh_app_name, settings=stack.settings(fresh_app_name))
    results: list[Any] = []
    completed = threading.Event()

    def handler(name: str, data: dict[str, Any]) -> None:
        if completed.is_set():
            return
        client.put("pva://demo:setpoint2", 3.5)
        results.append(client.get("pva://demo:setpoint2")["value"])
        client.close()
        completed.set()

    client.monitor("pva://demo:ramp100", handler)
    assert completed.wait(TIMEOUT)
    assert results == [3.5]
    client.close()
