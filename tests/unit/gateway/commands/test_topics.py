"""Topics: creation before the first record. Worker tasks are run by the test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from reactivex.testing import TestScheduler

from k2eg_rx.gateway.commands import topics as module
from k2eg_rx.gateway.commands.topics import Topics


class ManualWorkerPool:
    """A worker pool whose tasks are run by the test."""

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
        self.deleted: list[str] = []

    def create(self, topics: Mapping[str, int]) -> Mapping[str, str]:
        self.requests.append(dict(topics))
        if self.error is not None:
            raise self.error
        return {topic: "no" for topic in topics if topic == "refused"}

    def listeners(self) -> Mapping[str, int] | None:
        if self.error is not None:
            raise self.error
        return {"a": 1}

    def end_offsets(self, topics: Any) -> dict[str, int]:
        return {}

    def delete(self, topics: Any) -> dict[str, str]:
        self.deleted.extend(topics)
        if self.error is not None:
            raise self.error
        return {topic: "no" for topic in topics if topic == "refused"}

    def close(self) -> None:
        pass


class TopicsUnderTest:
    def __init__(self, *, create: bool = True) -> None:
        self.scheduler = TestScheduler()
        self.admin = Admin()
        self.topics = Topics(self.admin, self.scheduler, create=create)
        self.created: list[str] = []

    def ensure(self, topic: str, partitions: int = 3) -> Any:
        return self.topics.ensure(topic, partitions).subscribe(on_completed=lambda: self.created.append(topic))

    def settle(self) -> None:
        self.scheduler.advance_by(1e-6)

    def work(self) -> None:
        self.settle()
        pool: Any = self.topics._worker
        while pool.tasks:
            pool.tasks.pop(0)()
        self.settle()


@pytest.fixture(autouse=True)
def manual_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WorkerPool", ManualWorkerPool)


def test_topics_requested_together_are_created_in_one_request() -> None:
    bench = TopicsUnderTest()
    bench.ensure("a")
    bench.ensure("b", 1)
    bench.ensure("a")
    assert bench.created == []
    bench.work()
    assert bench.admin.requests == [{"a": 3, "b": 1}]
    assert sorted(bench.created) == ["a", "a", "b"]
    bench.ensure("a")
    assert bench.created[-1] == "a", "a topic created recently is not requested again"
    bench.work()
    assert len(bench.admin.requests) == 1
    bench.scheduler.advance_by(2.1)
    bench.ensure("a")
    bench.work()
    assert len(bench.admin.requests) == 2, "the topic may have been deleted since"


def test_a_topic_requested_twice_is_created_once() -> None:
    bench = TopicsUnderTest()
    bench.ensure("a")
    bench.ensure("a")
    bench.work()
    assert bench.admin.requests == [{"a": 3}]


def test_waiting_ends_only_when_kafka_is_silent_for_minutes() -> None:
    bench = TopicsUnderTest()
    bench.ensure("a")
    bench.scheduler.advance_by(299.0)
    assert bench.created == []
    bench.scheduler.advance_by(2.0)
    assert bench.created == ["a"]
    bench.work()
    assert bench.created == ["a"]


def test_waiting_continues_while_kafka_responds() -> None:
    bench = TopicsUnderTest()
    for number in range(1000):
        bench.ensure(f"t{number}")
    for count in (100, 300):
        bench.scheduler.advance_by(250)
        bench.topics._worker.tasks.pop(0)()  # type: ignore[attr-defined]
        bench.settle()
        assert len(bench.created) == count
    bench.scheduler.advance_by(299)
    assert len(bench.created) == 300
    bench.scheduler.advance_by(2)
    assert len(bench.created) == 1000, "minutes after the last response"


def test_the_first_of_many_topics_do_not_wait_for_the_last() -> None:
    bench = TopicsUnderTest()
    for number in range(1250):
        bench.ensure(f"t{number}")
    bench.settle()
    assert len(bench.topics._worker.tasks) == 2, "two requests run concurrently"  # type: ignore[attr-defined]
    for count in (100, 300, 700, 1100, 1250):
        bench.topics._worker.tasks.pop(0)()  # type: ignore[attr-defined]
        bench.settle()
        assert len(bench.created) == count
    assert [len(request) for request in bench.admin.requests] == [100, 200, 400, 400, 150]
    assert bench.created == [f"t{number}" for number in range(1250)]
    for number in range(200):
        bench.ensure(f"later{number}")
    bench.settle()
    bench.topics._worker.tasks.pop(0)()  # type: ignore[attr-defined]
    assert len(bench.admin.requests[-1]) == 100


def test_after_a_failure_the_request_is_repeated_until_the_topic_exists() -> None:
    bench = TopicsUnderTest()
    bench.admin.error = RuntimeError("no answer")
    bench.ensure("a")
    bench.work()
    bench.ensure("b")
    bench.work()
    assert len(bench.admin.requests) == 1
    for pause in (1, 2, 4, 8, 10, 10):
        bench.admin.requests.clear()
        bench.scheduler.advance_by(pause - 0.5)
        bench.work()
        assert bench.admin.requests == []
        bench.scheduler.advance_by(0.5)
        bench.work()
        assert bench.admin.requests == [{"a": 3, "b": 3}]
    assert bench.created == [], "a monitor has nowhere to publish to, and keeps its newest value"
    bench.admin.error = None
    bench.scheduler.advance_by(10)
    bench.work()
    assert bench.created == ["a", "b"]
    bench.scheduler.advance_by(60)
    bench.work()
    assert len(bench.admin.requests) == 2, "both topics exist now"


def test_concurrent_failures_cause_one_retry() -> None:
    bench = TopicsUnderTest()
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


def test_a_missing_topic_of_this_gateway_is_recreated() -> None:
    bench = TopicsUnderTest()
    bench.ensure("a")
    bench.work()
    restored: list[str] = []
    for _ in range(3):
        bench.topics.recreate("a", lambda: restored.append("a"))
    bench.topics.recreate("other", lambda: restored.append("other"))
    bench.scheduler.advance_by(0.4)
    bench.work()
    assert len(bench.admin.requests) == 1, "its deletion may still be in progress"
    bench.scheduler.advance_by(0.2)
    bench.work()
    assert bench.admin.requests == [{"a": 3}, {"a": 3}]
    assert restored == ["a"]
    bench.topics.recreate("a", lambda: restored.append("again"))
    bench.scheduler.advance_by(1)
    bench.work()
    assert restored == ["a", "again"]


def test_a_refused_topic_does_not_affect_others() -> None:
    bench = TopicsUnderTest()
    bench.ensure("refused")
    bench.work()
    bench.ensure("b")
    bench.work()
    assert bench.created == ["refused", "b"]
    assert bench.admin.requests == [{"refused": 3}, {"b": 3}]


def test_without_creation_no_request_is_made() -> None:
    bench = TopicsUnderTest(create=False)
    bench.ensure("a")
    bench.work()
    assert bench.created == ["a"]
    assert bench.admin.requests == []


def test_listeners_are_counted_or_unknown() -> None:
    bench = TopicsUnderTest()
    counts: list[Mapping[str, int] | None] = []
    bench.topics.listeners(counts.append)
    bench.work()
    bench.admin.error = RuntimeError("not supported")
    bench.topics.listeners(counts.append)
    bench.work()
    assert counts == [{"a": 1}, None]
    Topics(None, bench.scheduler, create=True).listeners(counts.append)
    assert counts[-1] is None


def test_the_first_event_of_a_monitor_waits_for_its_topic(gateway: Any) -> None:
    admin = Admin()
    gateway.handler.topics._admin = admin
    gateway.handler.topics._create = True
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a", uri_keys=True)
    gateway.command("monitor", pv_name="pva://b", reply_topic="mine")
    assert [sent.key for sent in gateway.sent()] == ["monitor-error-key"] * 2, "replies to this client do not wait"
    assert [each.address.name for each in gateway.pva.subscriptions] == ["b"], (
        "the gateway does not create reply topics"
    )
    gateway.handler.topics._worker.tasks.pop(0)()
    gateway.settle()
    gateway.update("a", 1)
    assert admin.requests == [{"a": 3}]
    assert gateway.bodies("a") == [{"a": {"value": 1}}]
    gateway.command("repeating_snapshot", snapshot_name="S", pv_name_list=["pva://a"])
    gateway.handler.topics._worker.tasks.pop(0)()
    assert admin.requests[-1] == {"s": 1}


def test_the_reply_to_a_released_client_waits_for_all_topics(gateway: Any) -> None:
    """It subscribes to them when it has the reply, and looks again for one that does not exist a minute later."""
    gateway.handler.topics._admin = Admin()
    gateway.handler.topics._create = True
    names = [f"pva://pv{number}" for number in range(60)]  # more than a slice
    gateway.command("multi-monitor", pv_name_list=names, reply_id="m")
    assert (gateway.sent(), gateway.pva.subscriptions) == ([], [])
    while gateway.handler.topics._worker.tasks:
        gateway.handler.topics._worker.tasks.pop(0)()
        gateway.settle()
    assert [(body["reply_id"], body["error"]) for body in gateway.bodies()] == [("m", 0)]
    assert len(gateway.pva.subscriptions) == len(names)


def test_a_monitor_that_waits_for_its_topic_ends_with_the_gateway(gateway: Any) -> None:
    gateway.handler.topics._admin = Admin()
    gateway.handler.topics._create = True
    gateway.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    gateway.subscription.dispose()
    gateway.handler.topics._worker.tasks.pop(0)()
    gateway.settle()
    assert (gateway.sent(), gateway.pva.subscriptions) == ([], [])


def test_what_is_known_of_topics_does_not_grow_with_time() -> None:
    under_test = TopicsUnderTest()
    pool: Any = under_test.topics._worker
    for number in range(50):
        under_test.ensure(f"t{number}")
        under_test.settle()
        pool.tasks.pop()()
        under_test.scheduler.advance_by(1.0)
        under_test.topics.forget(f"t{number}")
    assert len(under_test.created) == 50
    assert len(under_test.topics._exists_until) <= 1
    assert not under_test.topics._partitions
    under_test.topics.recreate("t1", lambda: under_test.created.append("again"))
    under_test.scheduler.advance_by(10.0)
    assert len(under_test.admin.requests) == 50, "a topic without a monitor is not recreated"


def test_a_topic_that_is_needed_while_it_is_deleted_is_created_after_that() -> None:
    bench = TopicsUnderTest()
    bench.ensure("a")
    bench.work()
    bench.topics.delete(["a"])
    bench.work()
    assert bench.admin.deleted == [], "it is in use"
    bench.topics.forget("a")
    bench.topics.delete(["a"])
    bench.ensure("a")
    bench.ensure("b")
    bench.settle()
    pool: Any = bench.topics._worker
    delete, create = pool.tasks
    create()
    bench.settle()
    assert (bench.admin.requests[1:], bench.created) == ([{"b": 3}], ["a", "b"])
    pool.tasks.clear()
    delete()
    bench.work()
    assert bench.admin.deleted == ["a"]
    assert bench.admin.requests[2:] == [{"a": 3}]
    assert bench.created == ["a", "b", "a"]


def test_a_topic_that_cannot_be_deleted_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    bench = TopicsUnderTest()
    bench.topics.delete(["refused"])
    bench.work()
    bench.admin.error = TimeoutError("no answer")
    bench.topics.delete(["a"])
    bench.work()
    assert "topic not deleted: topic=refused error=no" in caplog.text
    assert "topic not deleted: topic=a error=no answer" in caplog.text
