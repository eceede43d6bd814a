"""PVs as shared Observables: one subscription while somebody needs it, and one observer's trouble its own."""

from __future__ import annotations

from typing import Any

from k2eg_rx.gateway.commands.messages import PVValue
from k2eg_rx.pv import PVAddress

A = PVAddress("pva", "a")


def test_it_is_open_while_somebody_is_subscribed(gateway: Any) -> None:
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


def test_subscribed_to_again_it_does_not_repeat_what_was_before(gateway: Any) -> None:
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


def test_what_is_on_its_way_when_the_last_one_leaves_is_dropped(gateway: Any) -> None:
    values: list[PVValue] = []
    subscription = gateway.handler.channels.stream(A).subscribe(values.append)
    gateway.pva.update("a", 1)
    subscription.dispose()
    gateway.settle()
    assert values == []
    assert gateway.metrics.failures == 0


def test_an_observer_that_raises_does_not_keep_the_value_from_others(gateway: Any) -> None:
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


def test_closing_that_raises_is_counted(gateway: Any) -> None:
    def boom() -> None:
        raise RuntimeError("boom")

    subscription = gateway.handler.channels.stream(A).subscribe()
    gateway.pva.subscriptions[0].close = boom
    subscription.dispose()
    assert gateway.metrics.failures == 1
