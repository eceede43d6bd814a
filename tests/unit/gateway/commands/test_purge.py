"""Deletion of the topics of expired monitors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import pytest

from k2eg_rx.errors import TransportError

ALONE = {"commands": 1}  # consumers: this gateway, of its command topic


class Admin:
    """Kafka's topics, with their end offsets."""

    def __init__(self) -> None:
        self.ends = {"a": 5, "b": 5, "custom": 5}
        self.deleted: list[str] = []
        self.answers = True

    def create(self, topics: Mapping[str, int]) -> Mapping[str, str]:
        return {}

    def listeners(self) -> None:
        return None

    def end_offsets(self, topics: Collection[str]) -> Mapping[str, int]:
        return {topic: self.ends[topic] for topic in topics if topic in self.ends}

    def delete(self, topics: Collection[str]) -> Mapping[str, str]:
        if not self.answers:
            raise TransportError("no answer")
        self.deleted.extend(topics)
        return {}

    def close(self) -> None:
        pass


class Purging:
    """A gateway with an expired monitor of `a`, whose topic is to be deleted."""

    def __init__(self, gateway: Any) -> None:
        self.gateway, self.admin = gateway, Admin()
        topics = gateway.handler.topics
        topics._admin, topics._create = self.admin, True
        topics._worker.submit = lambda work: work()
        self.expire("a")

    def expire(self, topic: str, uri: str = "pva://a") -> None:
        self.activate(topic, uri)
        self.check({})
        self.gateway.advance(3600)
        self.check({})

    def activate(self, topic: str = "a", uri: str = "pva://a", reply_topic: str = "replies") -> None:
        self.gateway.command("monitor", pv_name=uri, monitor_dest_topic=topic, reply_topic=reply_topic)

    def check(self, listeners: Mapping[str, int] | None) -> None:
        self.gateway.handler.expire(listeners)
        self.gateway.settle()


@pytest.fixture
def purging(new_gateway: Callable[..., Any]) -> Purging:
    return Purging(new_gateway(purge=True))


def test_a_topic_that_is_unused_at_two_further_checks_is_deleted_once(purging: Purging) -> None:
    purging.check(ALONE)
    assert purging.admin.deleted == []
    purging.check(ALONE)
    purging.check(ALONE)
    assert purging.admin.deleted == ["a"]
    assert len(purging.gateway.handler.monitors.purge) == 0


def test_a_topic_is_deleted_although_the_last_events_were_confirmed_late(purging: Purging) -> None:
    unsettled = {"a"}
    purging.gateway.handler.monitors.purge.unsettled = lambda: unsettled
    purging.check(ALONE)
    purging.admin.ends["a"] = 6  # an event of this gateway
    purging.check(ALONE)
    unsettled.clear()
    purging.check(ALONE)
    assert purging.admin.deleted == []
    purging.check(ALONE)
    assert purging.admin.deleted == ["a"]


def test_a_deletion_that_kafka_has_not_answered_is_repeated_after_further_checks(purging: Purging) -> None:
    purging.admin.answers = False
    purging.check(ALONE)
    purging.check(ALONE)
    purging.admin.answers = True
    purging.check(ALONE)
    assert purging.admin.deleted == []
    purging.check(ALONE)
    assert purging.admin.deleted == ["a"]


def test_no_topic_is_deleted_by_default(new_gateway: Callable[..., Any]) -> None:
    purging = Purging(new_gateway())
    for _ in range(4):
        purging.check(ALONE)
    assert purging.admin.deleted == []


@pytest.mark.parametrize(
    "listeners",
    [None, {"commands": 1, "a": 1}, {"commands": 2}, {}],
    ids=["unknown", "a listener", "another gateway", "a rebalance"],
)
def test_a_topic_stays_while_it_may_be_in_use_and_for_two_checks_after_that(
    purging: Purging, listeners: Mapping[str, int] | None
) -> None:
    for _ in range(4):
        purging.check(listeners)
    purging.check(ALONE)
    assert purging.admin.deleted == []
    purging.check(ALONE)
    assert purging.admin.deleted == ["a"]


def test_a_topic_that_another_program_writes_to_stays(purging: Purging) -> None:
    purging.check(ALONE)
    purging.admin.ends["a"] += 1
    for _ in range(4):
        purging.check(ALONE)
    assert purging.admin.deleted == []


def test_a_topic_with_a_new_monitor_stays(purging: Purging) -> None:
    purging.check(ALONE)
    purging.activate()
    for _ in range(3):
        purging.check({**ALONE, "replies": 1})
    assert purging.admin.deleted == []


def test_a_monitor_that_begins_during_the_look_up_keeps_its_topic(purging: Purging) -> None:
    purging.check(ALONE)
    work: list[Callable[[], None]] = []
    purging.gateway.handler.topics._worker.submit = work.append
    purging.check(ALONE)
    purging.activate()
    purging.gateway.advance(0.1)
    while work:
        work.pop(0)()
        purging.gateway.settle()
    assert purging.admin.deleted == []


def test_topics_that_are_not_the_gateways_own_stay(purging: Purging) -> None:
    purging.expire("custom", "pva://b")
    purging.activate("b", "pva://b")
    purging.check({})
    purging.gateway.advance(3600)
    purging.check({})
    purging.gateway.command("get", pv_name="pva://x", reply_topic="b")  # an application that has this name
    for _ in range(3):
        purging.check(ALONE)
    assert purging.admin.deleted == ["a"]


def test_a_topic_that_was_deleted_by_hand_is_forgotten(purging: Purging) -> None:
    purging.admin.ends.clear()
    for _ in range(3):
        purging.check(ALONE)
    assert purging.admin.deleted == []
    assert len(purging.gateway.handler.monitors.purge) == 0


def test_a_gateway_that_reads_another_command_topic_of_this_one_may_have_monitors(
    new_gateway: Callable[..., Any],
) -> None:
    purging = Purging(new_gateway(purge=True, command_topics="website-commands:website"))
    for _ in range(4):
        purging.check({"commands": 1, "website-commands": 2})
    assert purging.admin.deleted == []
    for _ in range(2):
        purging.check({"commands": 1, "website-commands": 1})
    assert purging.admin.deleted == ["a"]
