"""Shared PV streams: one EPICS subscription per PV, and isolated observers."""

from __future__ import annotations

from typing import Any

from k2eg_rx.gateway.commands.messages import PVValue
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
