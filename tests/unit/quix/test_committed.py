"""Committed results, over Kafka in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from k2eg_rx import Settings
from k2eg_rx.quix import CommittedResult, committed, committed_results
from k2eg_rx.testing import MemoryBroker, MemoryTransport

SETTINGS = Settings("test", "nowhere:9092", "commands", "test-reply")
TIMEOUT = 60.0  # seconds until something that should happen is missing


class Seen:
    """A subscriber that a test waits for."""

    def __init__(self, stream: Any) -> None:
        self.items: list[CommittedResult] = []
        self._changed = threading.Condition()
        self.subscription = stream.subscribe(self._add)

    def _add(self, item: CommittedResult) -> None:
        with self._changed:
            self.items.append(item)
            self._changed.notify_all()

    def values(self, count: int) -> list[Any]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.items) >= count, TIMEOUT), self.items
            return [item.value for item in self.items]


@pytest.fixture
def broker() -> MemoryBroker:
    broker = MemoryBroker()
    broker.create_topic("results")
    return broker


@pytest.fixture
def see(broker: MemoryBroker) -> Iterator[Callable[..., Seen]]:
    seen: list[Seen] = []

    def see(**about: Any) -> Seen:
        transport = MemoryTransport(broker)
        stream = committed_results(SETTINGS, "results", "puts", **{"max_age": 60.0, "transport": transport, **about})
        seen.append(Seen(stream))
        return seen[-1]

    yield see
    for one in seen:
        one.subscription.dispose()


def test_results_are_emitted_with_key_and_value(broker: MemoryBroker, see: Callable[..., Seen]) -> None:
    seen = see()
    broker.append("results", b'{"mean": 1.5}', b"my:x", ())
    assert seen.values(1) == [{"mean": 1.5}]
    assert (seen.items[0].key, seen.items[0].record.topic) == ("my:x", "results")


def test_results_from_before_the_first_subscription_are_left_out(
    broker: MemoryBroker, see: Callable[..., Seen]
) -> None:
    broker.append("results", b"1", b"my:x", ())
    seen = see()
    broker.append("results", b"2", b"my:x", ())
    assert seen.values(1) == [2]


def test_a_later_subscription_goes_on_where_the_last_one_has_ended(
    broker: MemoryBroker, see: Callable[..., Seen]
) -> None:
    first = see()
    broker.append("results", b"1", b"my:x", ())
    assert first.values(1) == [1]
    first.subscription.dispose()
    broker.append("results", b"2", b"my:x", ())
    assert see().values(1) == [2]
    assert first.values(1) == [1]


def test_old_and_undecodable_results_are_left_out_and_logged(
    broker: MemoryBroker, see: Callable[..., Seen], caplog: pytest.LogCaptureFixture
) -> None:
    seen = see()
    an_hour_ago = int((time.time() - 3600.0) * 1000)
    for value, written in [(b"1", an_hour_ago), (b"2", an_hour_ago), (b"{", None), (None, None), (b"3", None)]:
        broker.append("results", value, b"my:x", (), written)
    assert seen.values(1) == [3]
    assert [word for word in ("max_age", "must be JSON") if word not in caplog.text] == []
    assert len(caplog.records) == 2, "only the first one of a kind is logged"


def test_age_is_that_at_the_emission(broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.time()]
    monkeypatch.setattr(committed, "time", SimpleNamespace(time=lambda: now[0], monotonic=time.monotonic))
    entered, go_on, seen = threading.Event(), threading.Event(), threading.Event()
    values: list[Any] = []

    def on_next(result: CommittedResult) -> None:
        values.append(result.value)
        entered.set()
        assert go_on.wait(TIMEOUT)
        if result.value == 3:
            seen.set()

    stream = committed_results(SETTINGS, "results", "puts", max_age=30.0, transport=MemoryTransport(broker))
    subscription = stream.subscribe(on_next)
    broker.append("results", b"1", b"my:x", ())
    assert entered.wait(TIMEOUT)
    broker.append("results", b"2", b"my:x", ())  # waits behind the slow subscriber
    now[0] += 3600.0
    broker.append("results", b"3", b"my:x", (), int(now[0] * 1000))
    go_on.set()
    assert seen.wait(TIMEOUT)
    subscription.dispose()
    assert values == [1, 3]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"max_age": 0.0}, "max_age must be"),
        ({"topic": "no topic"}, "topic must be a name that Kafka accepts"),
        ({"group_name": ""}, "group_name must be"),
        ({"group_name": "k2eg"}, "group_name must not contain"),
        ({"settings": None}, "settings must be"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        committed_results(
            **{"settings": SETTINGS, "topic": "results", "group_name": "puts", "max_age": 1.0, **arguments}
        )
