"""Initial offsets, missing and deleted topics: `OffsetResolver` on the test's thread."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import CancelledError

import pytest

from k2eg_rx.errors import TransportError
from k2eg_rx.kafka.metadata.cluster import PartitionOffsets, TopicMetadata
from k2eg_rx.kafka.metadata.offset_resolver import OffsetResolver
from k2eg_rx.kafka.metadata.topic_subscription import Phase, TopicSubscription
from k2eg_rx.transport import Partition, Span


class FakeCluster:
    """Topics as lists of end offsets; records the requests."""

    def __init__(self) -> None:
        self.topics: dict[str, list[int]] = {}
        self.metadata: dict[str, TopicMetadata] = {}
        self.unknown_ends: set[str] = set()
        self.cluster_id = "first"
        self.silent = False
        self.on_request = lambda: None
        self.requests: list[list[str]] = []
        self.probes = 0
        self.closed = False

    def partition_counts(self, topics: Sequence[str]) -> Mapping[str, TopicMetadata] | None:
        self.requests.append(list(topics))
        self.on_request()
        if self.silent:
            return None
        return {topic: self.metadata.get(topic, len(self.topics.get(topic, []))) for topic in topics}

    def end_offsets(self, partition_counts: Mapping[str, int]) -> Mapping[str, PartitionOffsets]:
        return {
            topic: dict(enumerate(self.topics[topic])) for topic in partition_counts if topic not in self.unknown_ends
        }

    def held_offsets(self, partitions: Collection[Partition]) -> Mapping[Partition, Span]:
        return {
            (topic, number): Span(1, self.topics[topic][number])
            for topic, number in partitions
            if topic not in self.unknown_ends
        }

    def probe(self) -> bool:
        self.probes += 1
        return not self.silent

    def poll(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class FakeTarget:
    def __init__(self) -> None:
        self.batches: list[list[tuple[str, PartitionOffsets]]] = []
        self.halted: list[str] = []
        self.relocated: list[tuple[str, int, Span]] = []

    @property
    def begun(self) -> list[tuple[str, PartitionOffsets]]:
        return [start for batch in self.batches for start in batch]

    def begin(self, starts: Sequence[tuple[TopicSubscription, PartitionOffsets]]) -> None:
        self.batches.append([(subscription.topic, dict(ends)) for subscription, ends in starts])

    def halt(self, subscription: TopicSubscription) -> None:
        self.halted.append(subscription.topic)

    def relocate(self, subscription: TopicSubscription, partition: int, held: Span) -> None:
        self.relocated.append((subscription.topic, partition, held))


class FakeCreation:
    def __init__(self, *errors: TransportError | None) -> None:
        self.errors: list[TransportError | None] = list(errors)
        self.finished = 0

    def step(self) -> TransportError | None:
        return self.errors.pop(0) if self.errors else None

    def finish(self) -> None:
        self.finished += 1


class Harness:
    def __init__(self) -> None:
        self.now = 1000.0
        self.suspicious = False
        self.cluster = FakeCluster()
        self.target = FakeTarget()
        self.resolver = OffsetResolver(self.cluster, lambda: self.suspicious, clock=lambda: self.now)

    def read(
        self, topic: str, creation: FakeCreation | None = None, target: FakeTarget | None = None
    ) -> TopicSubscription:
        subscription = TopicSubscription(topic, target or self.target, creation)
        self.resolver.add(subscription)
        return subscription

    def step(self, after: float = 0.0) -> float:
        self.now += after
        return self.resolver.step()


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_a_topic_is_read_from_its_end_offsets(harness):
    harness.cluster.topics["t"] = [7, 0, 3]
    subscription = harness.read("t")
    assert not subscription.ready.done()
    harness.step()
    assert harness.target.begun == [("t", {0: 7, 1: 0, 2: 3})]
    assert subscription.ready.result(0) is None


def test_topics_are_looked_up_and_assigned_in_one_batch(harness):
    for n in range(100):
        harness.cluster.topics[f"t{n}"] = [n]
        harness.read(f"t{n}")
    harness.step()
    assert len(harness.cluster.requests) == 1
    assert len(harness.target.batches) == 1
    assert len(harness.target.begun) == 100


def test_a_missing_topic_is_ready_at_once_and_read_from_its_beginning(harness):
    subscription = harness.read("t")
    harness.step()
    assert subscription.ready.result(0) is None
    assert harness.target.begun == []
    harness.cluster.topics["t"] = [5, 6]
    harness.step(after=0.02)
    assert harness.target.begun == [("t", {0: 0, 1: 0})]


def test_look_ups_of_a_missing_topic_slow_down_to_once_a_second(harness):
    harness.read("t")
    pauses = []
    for _ in range(12):
        pauses.append(harness.step(after=pauses[-1] if pauses else 0.0))
    assert pauses[0] == pytest.approx(0.02)
    assert pauses[-1] == pytest.approx(1.0)
    assert pauses == sorted(pauses)


def test_many_missing_topics_are_looked_up_less_often(harness):
    for n in range(500):
        harness.read(f"t{n}")
    pause = 0.0
    for _ in range(12):
        pause = harness.step(after=pause)
    assert pause == pytest.approx(2.5)


def test_the_creation_of_one_missing_topic_speeds_up_the_look_ups_of_others(harness):
    harness.read("t")
    for n in range(99):
        harness.read(f"t{n}")
    pause = 0.0
    for _ in range(12):
        pause = harness.step(after=pause)
    assert pause == pytest.approx(1.0)
    harness.cluster.topics["t"] = [0]
    assert harness.step(after=pause) == pytest.approx(0.02)
    harness.step(after=0.02)
    assert len(harness.cluster.requests[-1]) == 99


def test_a_slow_broker_is_asked_for_missing_topics_less_often(harness):
    def answer_after_a_tenth() -> None:
        harness.now += 0.1

    harness.cluster.on_request = answer_after_a_tenth
    harness.read("t")
    assert harness.step() == pytest.approx(0.4)
    harness.read("reply", FakeCreation())
    assert harness.step() == pytest.approx(0.005), "a client waits for its reply topic"


def test_released_subscriptions_are_dropped(harness):
    first, second = harness.read("first"), harness.read("second")
    harness.step()
    first.released = second.released = True
    harness.step(after=1.0)
    assert harness.cluster.requests == [["first", "second"]]
    assert harness.target.begun == []


def test_a_request_without_an_answer_is_repeated(harness):
    harness.cluster.topics["t"] = [4]
    harness.cluster.silent = True
    subscription = harness.read("t")
    assert harness.step() == pytest.approx(0.5)
    assert not subscription.ready.done()
    harness.cluster.silent = False
    harness.cluster.topics["t"] = [9]
    harness.step(after=0.5)
    assert harness.target.begun == [("t", {0: 9})]


def test_unknown_end_offsets_are_requested_again(harness):
    harness.cluster.topics = {"t": [4], "u": [5]}
    harness.cluster.unknown_ends = {"t"}
    waiting, subscription = harness.read("t"), harness.read("u")
    harness.step()
    assert (waiting.ready.done(), subscription.ready.done()) == (False, True)
    harness.cluster.unknown_ends = set()
    harness.step(after=0.02)
    assert harness.target.begun == [("u", {0: 5}), ("t", {0: 4})]


def test_a_topic_without_metadata_is_requested_again(harness):
    harness.cluster.topics["t"] = [4]
    harness.cluster.metadata["t"] = None
    subscription = harness.read("t")
    harness.step()
    assert not subscription.ready.done()
    del harness.cluster.metadata["t"]
    harness.step(after=0.02)
    assert harness.target.begun == [("t", {0: 4})]


def test_a_forbidden_topic_fails_and_is_not_requested_again(harness):
    harness.cluster.metadata["t"] = TransportError("forbidden")
    subscription = harness.read("t")
    harness.step()
    with pytest.raises(TransportError, match="forbidden"):
        subscription.ready.result(0)
    harness.step(after=10.0)
    assert harness.cluster.requests == [["t"]]


def test_a_deleted_topic_is_read_from_its_beginning_when_created_again(harness):
    harness.cluster.topics["t"] = [4]
    subscription = harness.read("t")
    harness.step()
    harness.cluster.topics.clear()
    harness.resolver.on_missing(subscription)
    harness.step()
    assert harness.target.halted == ["t"]
    harness.cluster.topics["t"] = [1, 1]
    harness.step(after=0.02)
    assert harness.target.begun[1:] == [("t", {0: 0, 1: 0})]


def test_an_existing_topic_reported_missing_is_still_read(harness):
    harness.cluster.topics["t"] = [4]
    subscription = harness.read("t")
    harness.step()
    harness.resolver.on_missing(subscription)
    harness.step()
    assert harness.target.halted == []
    assert harness.target.begun == [("t", {0: 4}), ("t", {})]
    assert subscription.phase is Phase.ACTIVE


def test_a_topic_reported_deleted_is_a_new_one_even_if_the_next_look_up_finds_it(harness):
    harness.cluster.topics["t"] = [4, 4]
    subscription = harness.read("t")
    harness.step()
    harness.cluster.topics["t"] = [1, 0]
    harness.resolver.on_missing(subscription, deleted=True)
    harness.step()
    assert harness.target.halted == ["t"]
    assert harness.target.begun[1:] == [("t", {0: 0, 1: 0})]


def test_new_partitions_are_discovered_and_read_from_their_beginning(harness):
    harness.cluster.topics["t"] = [4]
    harness.read("t")
    harness.step()
    harness.cluster.topics["t"] = [9, 2, 3]
    harness.step(after=30.0)
    assert harness.target.begun[1:] == [("t", {1: 0, 2: 0})]
    assert harness.target.halted == []


def test_a_topic_with_fewer_partitions_is_a_new_one(harness):
    harness.cluster.topics["t"] = [4, 4, 4]
    harness.read("t")
    harness.step()
    harness.cluster.topics["t"] = [1]
    harness.step(after=30.0)
    assert harness.target.halted == ["t"]
    assert harness.target.begun[1:] == [("t", {0: 0})]


def test_partition_counts_of_many_topics_are_checked_a_few_at_a_time(harness):
    for n in range(10):
        harness.cluster.topics[f"t{n}"] = [0]
        harness.read(f"t{n}")
    harness.step()
    harness.step(after=30.0)
    for _ in range(2):
        harness.step(after=0.05)
    assert [len(request) for request in harness.cluster.requests] == [10, 4, 4, 2]


def test_no_requests_while_the_connection_is_up(harness):
    harness.cluster.topics["t"] = [0]
    harness.read("t")
    harness.step()
    for _ in range(20):
        harness.step(after=1.0)
    assert len(harness.cluster.requests) == 1
    assert harness.cluster.probes == 0


def test_a_suspicious_connection_is_probed_once_a_second(harness):
    harness.suspicious = True
    for _ in range(5):
        harness.step(after=1.0)
        harness.step(after=0.01)
    assert harness.cluster.probes == 5


def test_each_target_gets_its_subscriptions(harness):
    other = FakeTarget()
    harness.cluster.topics["t"] = [3]
    harness.read("t")
    harness.read("t", target=other)
    harness.step()
    assert harness.target.begun == other.begun == [("t", {0: 3})]


def test_a_topic_with_a_creation_is_ready_when_it_exists(harness):
    creation = FakeCreation()
    subscription = harness.read("reply", creation)
    harness.step()
    assert not subscription.ready.done()
    harness.cluster.topics["reply"] = [0]
    harness.step(after=0.02)
    assert subscription.ready.result(0) is None
    assert harness.target.begun == [("reply", {0: 0})]
    assert creation.finished == 1


def test_a_refused_creation_fails_the_subscription(harness):
    subscription = harness.read("reply", FakeCreation(None, TransportError("refused")))
    harness.step()
    harness.step(after=0.02)
    with pytest.raises(TransportError, match="refused"):
        subscription.ready.result(0)


def test_creating_a_deleted_reply_topic_again_does_not_time_out(harness):
    creation = FakeCreation()
    harness.cluster.topics["reply"] = [2]
    subscription = harness.read("reply", creation)
    harness.step()
    harness.cluster.topics.clear()
    creation.errors = [TransportError("not yet")]
    harness.resolver.on_missing(subscription)
    harness.step()
    harness.cluster.topics["reply"] = [0]
    harness.step(after=5.0)
    assert harness.target.begun[1:] == [("reply", {0: 0})]


def test_callers_cannot_cancel_a_shared_future(harness):
    subscription = harness.read("t")
    assert not subscription.ready.cancel()
    harness.step()
    try:
        subscription.ready.result(0)
    except CancelledError:
        pytest.fail("the subscription was cancelled")


def test_subscriptions_after_closing_fail(harness):
    waiting = harness.read("t")
    harness.resolver.close(1.0)
    late = harness.read("u")
    for subscription in (waiting, late):
        with pytest.raises(TransportError, match="closed"):
            subscription.ready.result(0)


def test_what_the_log_of_a_lost_position_holds_is_looked_up_at_once(harness):
    harness.cluster.topics["t"] = [7, 9]
    subscription = harness.read("t")
    harness.step()
    harness.cluster.topics["t"] = [5, 9]
    for _ in range(2):
        harness.resolver.on_position_lost(subscription, 0)
    harness.step()
    assert harness.target.relocated == [("t", 0, Span(1, 5))]
    harness.step(1.0)
    assert len(harness.target.relocated) == 1
    assert harness.target.halted == []


def test_the_look_up_of_a_lost_position_is_repeated_until_it_is_answered(harness):
    harness.cluster.topics["t"] = [7]
    subscription = harness.read("t")
    harness.step()
    harness.cluster.silent = True
    harness.resolver.on_position_lost(subscription, 0)
    assert harness.step() == 0.5
    harness.cluster.silent = False
    harness.cluster.unknown_ends.add("t")
    assert harness.step(0.5) == 0.5
    harness.cluster.unknown_ends.clear()
    assert harness.target.relocated == []
    harness.step(0.5)
    assert harness.target.relocated == [("t", 0, Span(1, 7))]


def test_a_lost_position_in_a_cluster_that_was_set_up_anew_is_one_of_a_new_topic(harness):
    """Its log is shorter than what was read, like a truncated one, but all of its records are new."""
    harness.cluster.topics["t"] = [7]
    subscription = harness.read("t")
    harness.step()
    harness.cluster.topics["t"], harness.cluster.cluster_id = [2], "second"
    harness.resolver.on_position_lost(subscription, 0)
    harness.step()
    assert harness.target.halted == ["t"]
    assert harness.target.begun == [("t", {0: 7}), ("t", {0: 0})]
    assert harness.target.relocated == []


def test_a_lost_position_in_a_topic_that_is_gone_waits_for_the_topic(harness):
    harness.cluster.topics["t"] = [7]
    subscription = harness.read("t")
    harness.step()
    harness.cluster.topics.clear()
    harness.resolver.on_position_lost(subscription, 0)
    harness.step()
    assert harness.target.halted == ["t"]
    assert subscription.phase is Phase.MISSING
    harness.resolver.on_position_lost(subscription, 0)
    harness.cluster.topics["t"] = [2]
    harness.step(1.0)
    assert harness.target.begun == [("t", {0: 7}), ("t", {0: 0})]
    assert harness.target.relocated == []
