"""Topics: made before they are written to, without holding anything up for long. The worker is run by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from reactivex.testing import TestScheduler

from k2eg_rx.gateway.commands import topics as module
from k2eg_rx.gateway.commands.topics import Topics


class Hand:
    """Workers that work when the test says so."""

    def __init__(self, _limit: int, _name: str) -> None:
        self.tasks: list[Callable[[], None]] = []

    def submit(self, task: Callable[[], None]) -> None:
        self.tasks.append(task)

    def close(self, _timeout: float) -> None:
        self.tasks.clear()


class Admin:
    def __init__(self) -> None:
        self.requests: list[dict[str, int]] = []
        self.error: Exception | None = None

    def create(self, topics: Mapping[str, int]) -> Mapping[str, str]:
        self.requests.append(dict(topics))
        if self.error is not None:
            raise self.error
        return {topic: "no" for topic in topics if topic == "refused"}

    def listeners(self) -> Mapping[str, int] | None:
        if self.error is not None:
            raise self.error
        return {"a": 1}

    def close(self) -> None:
        pass


class Bench:
    def __init__(self, *, create: bool = True) -> None:
        self.scheduler = TestScheduler()
        self.admin = Admin()
        self.topics = Topics(self.admin, self.scheduler, create=create)
        self.there: list[str] = []

    def ensure(self, topic: str, partitions: int = 3) -> Any:
        return self.topics.ensure(topic, partitions).subscribe(on_completed=lambda: self.there.append(topic))

    def settle(self) -> None:
        self.scheduler.advance_by(1e-6)

    def work(self) -> None:
        self.settle()
        hand: Any = self.topics._worker
        while hand.tasks:
            hand.tasks.pop(0)()
        self.settle()


@pytest.fixture(autouse=True)
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WorkerPool", Hand)


def test_topics_wanted_together_are_created_in_one_request() -> None:
    bench = Bench()
    bench.ensure("a")
    bench.ensure("b", 1)
    bench.ensure("a")
    assert bench.there == []
    bench.work()
    assert bench.admin.requests == [{"a": 3, "b": 1}]
    assert sorted(bench.there) == ["a", "a", "b"]
    bench.ensure("a")
    assert bench.there[-1] == "a", "what is known to be there is not waited for"
    bench.work()
    assert len(bench.admin.requests) == 1
    bench.scheduler.advance_by(2.1)
    bench.ensure("a")
    bench.work()
    assert len(bench.admin.requests) == 2, "it may have been deleted meanwhile"


def test_a_topic_wanted_twice_is_one_request() -> None:
    bench = Bench()
    bench.ensure("a")
    bench.ensure("a")
    bench.work()
    assert bench.admin.requests == [{"a": 3}]


def test_nobody_waits_for_ever() -> None:
    bench = Bench()
    bench.ensure("a")
    bench.scheduler.advance_by(11.9)
    assert bench.there == []
    bench.scheduler.advance_by(0.2)
    assert bench.there == ["a"]
    bench.work()
    assert bench.there == ["a"]


def test_as_long_as_kafka_answers_each_waits_for_its_turn() -> None:
    bench = Bench()
    for number in range(1000):
        bench.ensure(f"t{number}")
    for there in (100, 300):
        bench.scheduler.advance_by(10)
        bench.topics._worker.tasks.pop(0)()  # type: ignore[attr-defined]
        bench.settle()
        assert len(bench.there) == there
    bench.scheduler.advance_by(11.9)
    assert len(bench.there) == 300
    bench.scheduler.advance_by(0.2)
    assert len(bench.there) == 1000, "12 s after the last answer"


def test_the_first_of_many_do_not_wait_for_the_last() -> None:
    bench = Bench()
    for number in range(1250):
        bench.ensure(f"t{number}")
    bench.settle()
    assert len(bench.topics._worker.tasks) == 2, "Kafka makes the one while the next is asked for"  # type: ignore[attr-defined]
    for there in (100, 300, 700, 1100, 1250):
        bench.topics._worker.tasks.pop(0)()  # type: ignore[attr-defined]
        bench.settle()
        assert len(bench.there) == there
    assert [len(request) for request in bench.admin.requests] == [100, 200, 400, 400, 150]
    assert bench.there == [f"t{number}" for number in range(1250)]
    for number in range(200):
        bench.ensure(f"later{number}")
    bench.settle()
    bench.topics._worker.tasks.pop(0)()  # type: ignore[attr-defined]
    assert len(bench.admin.requests[-1]) == 100


def test_after_a_failure_nobody_waits_and_what_is_missing_is_asked_for_again() -> None:
    bench = Bench()
    bench.admin.error = RuntimeError("no answer")
    bench.ensure("a")
    bench.work()
    bench.ensure("b")
    assert bench.there == ["a", "b"]
    bench.work()
    assert len(bench.admin.requests) == 1
    for pause in (1, 2, 4, 8, 16, 30, 30):
        bench.admin.requests.clear()
        bench.scheduler.advance_by(pause - 0.5)
        bench.work()
        assert bench.admin.requests == []
        bench.scheduler.advance_by(0.5)
        bench.work()
        assert bench.admin.requests == [{"a": 3, "b": 3}]
    bench.admin.error = None
    bench.scheduler.advance_by(30)
    bench.work()
    bench.scheduler.advance_by(60)
    bench.work()
    assert len(bench.admin.requests) == 2, "they are there now"
    bench.ensure("c")
    assert "c" not in bench.there, "one that is to be made is waited for again"
    bench.work()
    assert bench.there[-1] == "c"


def test_two_requests_that_fail_together_are_one_failure() -> None:
    bench = Bench()
    bench.admin.error = RuntimeError("no answer")
    for number in range(300):
        bench.ensure(f"t{number}")
    bench.work()
    assert [len(request) for request in bench.admin.requests] == [100, 200]
    bench.scheduler.advance_by(0.9)
    bench.work()
    assert len(bench.admin.requests) == 2
    bench.admin.error = None
    bench.scheduler.advance_by(0.2)
    bench.work()
    assert set().union(*bench.admin.requests[2:]) == {f"t{number}" for number in range(300)}
    bench.scheduler.advance_by(60)
    bench.work()
    assert sum(len(request) for request in bench.admin.requests) == 600


def test_a_topic_that_was_made_here_and_is_missing_is_made_once_more() -> None:
    bench = Bench()
    bench.ensure("a")
    bench.work()
    restored: list[str] = []
    for _ in range(3):
        bench.topics.recreate("a", lambda: restored.append("a"))
    bench.topics.recreate("somebody's", lambda: restored.append("somebody's"))
    bench.scheduler.advance_by(0.4)
    bench.work()
    assert len(bench.admin.requests) == 1, "it may be deleted just now"
    bench.scheduler.advance_by(0.2)
    bench.work()
    assert bench.admin.requests == [{"a": 3}, {"a": 3}]
    assert restored == ["a"]
    bench.topics.recreate("a", lambda: restored.append("again"))
    bench.scheduler.advance_by(1)
    bench.work()
    assert restored == ["a", "again"]


def test_a_refusal_is_one_topic_s() -> None:
    bench = Bench()
    bench.ensure("refused")
    bench.work()
    bench.ensure("b")
    bench.work()
    assert bench.there == ["refused", "b"]
    assert bench.admin.requests == [{"refused": 3}, {"b": 3}]


def test_without_creation_nothing_is_asked() -> None:
    bench = Bench(create=False)
    bench.ensure("a")
    bench.work()
    assert bench.there == ["a"]
    assert bench.admin.requests == []


def test_listeners_are_told_or_unknown() -> None:
    bench = Bench()
    told: list[Mapping[str, int] | None] = []
    bench.topics.listeners(told.append)
    bench.work()
    bench.admin.error = RuntimeError("not supported")
    bench.topics.listeners(told.append)
    bench.work()
    assert told == [{"a": 1}, None]
    Topics(None, bench.scheduler, create=True).listeners(told.append)
    assert told[-1] is None


def test_a_monitor_s_first_event_waits_for_its_topic(gateway: Any) -> None:
    admin = Admin()
    gateway.handler.topics._admin = admin
    gateway.handler.topics._create = True
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    gateway.command("monitor", pv_name="pva://b", reply_topic="mine")
    assert [said.key for said in gateway.sent()] == ["monitor-error-key"] * 2, "the replies do not wait"
    assert [each.address.name for each in gateway.pva.subscriptions] == ["b"], "reply topics are not the gateway's"
    gateway.handler.topics._worker.tasks.pop(0)()
    gateway.settle()
    gateway.update("a", 1)
    assert admin.requests == [{"a": 3}]
    assert gateway.bodies("a") == [{"a": {"value": 1}}]
    gateway.command("repeating_snapshot", snapshot_name="S", pv_name_list=["pva://a"])
    gateway.handler.topics._worker.tasks.pop(0)()
    assert admin.requests[-1] == {"s": 1}
