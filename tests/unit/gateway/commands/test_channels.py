"""Shared PV streams: one EPICS subscription per PV, and isolated observers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from k2eg_rx.gateway.commands.channels import kind_of
from k2eg_rx.gateway.commands.messages import PVValue
from k2eg_rx.gateway.runtime.metrics import LatencyProbe
from k2eg_rx.pv import PVAddress

A = PVAddress("pva", "a")


def test_a_subscription_is_open_while_the_stream_has_subscribers(gateway: Any) -> None:
    stream = gateway.handler.channels.stream(A)
    assert not gateway.pva.subscriptions
    first, second = stream.subscribe(), stream.subscribe()
    assert len(gateway.pva.subscriptions) == 1
    first.dispose()
    assert len(gateway.pva.open("a")) == 1
    second.dispose()
    second.dispose()
    assert not gateway.pva.open("a")
    assert len(gateway.handler.channels) == 0


def test_a_new_subscription_does_not_repeat_old_values(gateway: Any) -> None:
    values: list[Any] = []
    stream = gateway.handler.channels.stream(A)
    first = stream.subscribe(lambda sample: values.append(sample.structure["value"]))
    gateway.update("a", 1)
    first.dispose()
    stream.subscribe(lambda sample: values.append(sample.structure["value"]))
    assert values == [1]
    gateway.update("a", 2)
    assert values == [1, 2]
    assert [each.open for each in gateway.pva.subscriptions] == [False, True]


def test_queued_updates_are_dropped_when_the_last_subscriber_leaves(gateway: Any) -> None:
    values: list[PVValue] = []
    subscription = gateway.handler.channels.stream(A).subscribe(values.append)
    gateway.pva.update("a", 1)
    subscription.dispose()
    gateway.settle()
    assert values == []
    assert gateway.metrics.failures == 0


def test_updates_that_cannot_be_read_are_counted(gateway: Any) -> None:
    gateway.handler.channels.stream(A).subscribe()
    gateway.pva.on_unreadable()
    gateway.pva.on_unreadable()
    gateway.settle()
    assert gateway.metrics.unreadable == 2


def test_an_exception_in_an_observer_does_not_affect_the_others(gateway: Any) -> None:
    values: list[PVValue] = []

    def boom(_: PVValue) -> None:
        raise RuntimeError("boom")

    stream = gateway.handler.channels.stream(A)
    stream.subscribe(boom)
    stream.subscribe(values.append)
    gateway.update("a", 1)
    gateway.update("a", 2)
    assert [sample.structure for sample in values] == [{"value": 1}, {"value": 2}]
    assert gateway.metrics.failures >= 1


def test_an_exception_on_close_is_counted(gateway: Any) -> None:
    def boom() -> None:
        raise RuntimeError("boom")

    subscription = gateway.handler.channels.stream(A).subscribe()
    gateway.pva.subscriptions[0].close = boom
    subscription.dispose()
    assert gateway.metrics.failures == 1


@pytest.mark.parametrize(
    ("structure", "kind"),
    [
        ({"value": 1.5}, "scalar"),
        ({"value": True}, "scalar"),
        ({"value": "on"}, "text"),
        ({"value": [1, 2]}, "array"),
        ({"value": np.zeros(3)}, "array"),
        ({"value": {"index": 0, "choices": ["a"]}}, "enum"),
        ({"labels": ["a"], "value": {"a": [1]}}, "table"),
        ({"value": {"ubyteValue": b""}, "dimension": []}, "image"),
        ({"value": {"x": 1}}, "structure"),
        ({"x": 1}, "structure"),
    ],
)
def test_updates_are_counted_by_a_few_kinds(structure: dict[str, Any], kind: str) -> None:
    assert kind_of(structure) == kind


def test_updates_are_counted_by_protocol_and_kind_for_any_number_of_pvs(gateway: Any) -> None:
    for number in range(100):
        gateway.handler.channels.stream(PVAddress("pva", f"pv{number}")).subscribe()
        gateway.pva.update(f"pv{number}", number)
        gateway.pva.update(f"pv{number}", number)
    gateway.handler.channels.stream(PVAddress("ca", "text")).subscribe()
    gateway.ca.update("text", "on")
    gateway.settle()
    assert {key: counter.count for key, counter in gateway.metrics.events.items()} == {
        ("pva", "scalar"): 200,
        ("ca", "text"): 1,
    }


def test_the_latency_of_one_update_at_a_time_is_measured_until_its_record_is_confirmed(gateway: Any) -> None:
    now = 100.0
    probe = gateway.metrics.latency = gateway.handler.channels.queue._probe = LatencyProbe(lambda: now)
    followed: list[bool] = []

    def publish(value: PVValue) -> None:
        followed.append(probe.passing)
        if probe.passing:
            probe.carry(value)

    gateway.handler.channels.stream(A).subscribe(publish)
    for value in range(3):
        gateway.pva.update("a", value)
    gateway.settle()
    assert followed == [True, False, False]
    now += 0.004
    assert probe.age() == pytest.approx(0.004)
    probe.end(confirmed=True)
    assert (sum(probe.counts), probe.counts[2], probe.total) == (1, 1, pytest.approx(0.004))
    gateway.update("a", 3)
    assert followed[-1]


def test_an_update_that_no_record_carries_is_not_measured(gateway: Any) -> None:
    gateway.handler.channels.stream(A).subscribe()
    gateway.update("a", 1)
    assert gateway.metrics.latency.idle
    assert sum(gateway.metrics.latency.counts) == 0
