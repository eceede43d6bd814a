"""PVs as shared Observables: one subscription while somebody needs it, and one observer's trouble its own."""

from __future__ import annotations

from typing import Any

from k2eg_rx.gateway.commands.messages import Sample
from k2eg_rx.pv import PVAddress

A = PVAddress("pva", "a")


def test_it_is_open_while_somebody_is_subscribed(stage: Any) -> None:
    stream = stage.answers.channels.stream(A)
    assert not stage.pva.subscriptions
    first, second = stream.subscribe(), stream.subscribe()
    assert len(stage.pva.subscriptions) == 1
    first.dispose()
    assert len(stage.pva.open("a")) == 1
    second.dispose()
    second.dispose()
    assert not stage.pva.open("a")
    assert len(stage.answers.channels) == 0


def test_subscribed_to_again_it_does_not_repeat_what_was_before(stage: Any) -> None:
    values: list[Any] = []
    stream = stage.answers.channels.stream(A)
    first = stream.subscribe(lambda sample: values.append(sample.structure["value"]))
    stage.update("a", 1)
    first.dispose()
    stream.subscribe(lambda sample: values.append(sample.structure["value"]))
    assert values == [1]
    stage.update("a", 2)
    assert values == [1, 2]
    assert [each.open for each in stage.pva.subscriptions] == [False, True]


def test_what_is_on_its_way_when_the_last_one_leaves_is_dropped(stage: Any) -> None:
    values: list[Sample] = []
    subscription = stage.answers.channels.stream(A).subscribe(values.append)
    stage.pva.update("a", 1)
    subscription.dispose()
    stage.settle()
    assert values == []
    assert stage.counters.failures == 0


def test_an_observer_that_raises_does_not_keep_the_value_from_others(stage: Any) -> None:
    values: list[Sample] = []

    def boom(_: Sample) -> None:
        raise RuntimeError("boom")

    stream = stage.answers.channels.stream(A)
    stream.subscribe(boom)
    stream.subscribe(values.append)
    stage.update("a", 1)
    stage.update("a", 2)
    assert [sample.structure for sample in values] == [{"value": 1}, {"value": 2}]
    assert stage.counters.failures >= 1


def test_closing_that_raises_is_counted(stage: Any) -> None:
    def boom() -> None:
        raise RuntimeError("boom")

    subscription = stage.answers.channels.stream(A).subscribe()
    stage.pva.subscriptions[0].close = boom
    subscription.dispose()
    assert stage.counters.failures == 1
