"""Initial offsets, missing and deleted topics: `OffsetResolver` on the test's thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError

import pytest

from k2eg_rx.errors import TransportError
from k2eg_rx.kafka.metadata.cluster import PartitionOffsets, TopicMetadata
from k2eg_rx.kafka.metadata.offset_resolver import OffsetResolver
from k2eg_rx.kafka.metadata.topic_subscription import Phase, TopicSubscription


class FakeCluster:
    """Topics as lists of end offsets; records the requests."""

    def __init__(self) -> None:
        self.topics: dict[str, list[int]] = {}
        self.metadata: dict[str, TopicMetadata] = {}
        self.unknown_ends: set[str] = set()
        self.silent = False
        self.work = lambda: None
        self.asked: list[list[str]] = []
        self.probes = 0
        self.closed = False

    def partition_counts(self, topics: Sequence[str]) -> Mapping[str, TopicMetadata] | None:
        self.asked.append(list(topics))
        self.work()
        if self.silent:
            return None
        return {topic: self.metadata.get(topic, len(self.topics.get(topic, []))) for topic in topics}

    def end_offsets(self, partition_counts: Mapping[str, int]) -> Mapping[str, PartitionOffsets]:
        return {
            topic: dict(enumerate(self.topics[topic])) for topic in partition_counts if topic not in self.unknown_ends
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

    @property
    def begun(self) -> list[tuple[str, PartitionOffsets]]:
        return [start for batch in self.batches for start in batch]

    def begin(self, starts: Sequence[tuple[TopicSubscription, PartitionOffsets]]) -> None:
        self.batches.append([(subscription.topic, dict(ends)) for subscription, ends in starts])

    def halt(self, subscription: TopicSubscription) -> None:
        self.halted.append(subscription.topic)


class FakeCreation:
    def __init__(self, *errors: TransportError | None) -> None:
        self.errors: list[TransportError | None] = list(errors)
        self.finished = 0

    def step(self) -> TransportError | None:
        return self.errors.pop(0) if self.errors else None

    def finish(self) -> None:
        self.finished += 1


class World:
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
def world() -> World:
    return World()


def test_a_topic_is_read_from_its_ends(world):
    world.cluster.topics["t"] = [7, 0, 3]
    subscription = world.read("t")
    assert not subscription.ready.done()
    world.step()
    assert world.target.begun == [("t", {0: 7, 1: 0, 2: 3})]
    assert subscription.ready.result(0) is None


def test_topics_asked_for_together_are_looked_up_and_assigned_together(world):
    for n in range(100):
        world.cluster.topics[f"t{n}"] = [n]
        world.read(f"t{n}")
    world.step()
    assert len(world.cluster.asked) == 1
    assert len(world.target.batches) == 1
    assert len(world.target.begun) == 100


def test_a_missing_topic_is_fixed_at_once_and_read_from_its_beginning(world):
    subscription = world.read("t")
    world.step()
    assert subscription.ready.result(0) is None
    assert world.target.begun == []
    world.cluster.topics["t"] = [5, 6]
    world.step(after=0.02)
    assert world.target.begun == [("t", {0: 0, 1: 0})]


def test_a_missing_topic_is_looked_up_quickly_at_first_and_once_a_second_in_the_end(world):
    world.read("t")
    pauses = []
    for _ in range(12):
        pauses.append(world.step(after=pauses[-1] if pauses else 0.0))
    assert pauses[0] == pytest.approx(0.02)
    assert pauses[-1] == pytest.approx(1.0)
    assert pauses == sorted(pauses)


def test_many_missing_topics_are_looked_up_less_often(world):
    for n in range(500):
        world.read(f"t{n}")
    pause = 0.0
    for _ in range(12):
        pause = world.step(after=pause)
    assert pause == pytest.approx(2.5)


def test_when_one_missing_topic_comes_about_the_others_are_looked_up_soon(world):
    world.read("t")
    for n in range(99):
        world.read(f"t{n}")
    pause = 0.0
    for _ in range(12):
        pause = world.step(after=pause)
    assert pause == pytest.approx(1.0)
    world.cluster.topics["t"] = [0]
    assert world.step(after=pause) == pytest.approx(0.02)
    world.step(after=0.02)
    assert len(world.cluster.asked[-1]) == 99


def test_a_broker_that_is_slow_to_answer_is_asked_for_missing_topics_less_often(world):
    def answer_after_a_tenth() -> None:
        world.now += 0.1

    world.cluster.work = answer_after_a_tenth
    world.read("t")
    assert world.step() == pytest.approx(0.4)
    world.read("reply", FakeCreation())
    assert world.step() == pytest.approx(0.005), "a client waits for this one"


def test_released_subscriptions_are_dropped(world):
    absent, asked = world.read("absent"), world.read("asked")
    world.step()
    absent.released = asked.released = True
    world.step(after=1.0)
    assert world.cluster.asked == [["absent", "asked"]]
    assert world.target.begun == []


def test_a_silent_broker_is_asked_again_and_nothing_is_fixed_meanwhile(world):
    world.cluster.topics["t"] = [4]
    world.cluster.silent = True
    subscription = world.read("t")
    assert world.step() == pytest.approx(0.5)
    assert not subscription.ready.done()
    world.cluster.silent = False
    world.cluster.topics["t"] = [9]
    world.step(after=0.5)
    assert world.target.begun == [("t", {0: 9})]


def test_ends_that_are_not_known_yet_are_asked_for_again(world):
    world.cluster.topics = {"t": [4], "u": [5]}
    world.cluster.unknown_ends = {"t"}
    waiting, subscription = world.read("t"), world.read("u")
    world.step()
    assert (waiting.ready.done(), subscription.ready.done()) == (False, True)
    world.cluster.unknown_ends = set()
    world.step(after=0.02)
    assert world.target.begun == [("u", {0: 5}), ("t", {0: 4})]


def test_a_topic_that_the_broker_cannot_speak_of_now_is_asked_for_again(world):
    world.cluster.topics["t"] = [4]
    world.cluster.metadata["t"] = None
    subscription = world.read("t")
    world.step()
    assert not subscription.ready.done()
    del world.cluster.metadata["t"]
    world.step(after=0.02)
    assert world.target.begun == [("t", {0: 4})]


def test_a_topic_that_may_not_be_read_fails_and_is_forgotten(world):
    world.cluster.metadata["t"] = TransportError("forbidden")
    subscription = world.read("t")
    world.step()
    with pytest.raises(TransportError, match="forbidden"):
        subscription.ready.result(0)
    world.step(after=10.0)
    assert world.cluster.asked == [["t"]]


def test_a_topic_that_was_deleted_is_read_from_its_beginning_once_it_is_back(world):
    world.cluster.topics["t"] = [4]
    subscription = world.read("t")
    world.step()
    world.cluster.topics.clear()
    world.resolver.on_missing(subscription)
    world.step()
    assert world.target.halted == ["t"]
    world.cluster.topics["t"] = [1, 1]
    world.step(after=0.02)
    assert world.target.begun[1:] == [("t", {0: 0, 1: 0})]


def test_a_topic_that_is_not_found_by_mistake_is_read_on(world):
    world.cluster.topics["t"] = [4]
    subscription = world.read("t")
    world.step()
    world.resolver.on_missing(subscription)
    world.step()
    assert world.target.halted == []
    assert world.target.begun == [("t", {0: 4}), ("t", {})]
    assert subscription.phase is Phase.ACTIVE


def test_a_topic_deleted_for_certain_is_another_one_even_if_it_is_there_at_the_next_look(world):
    world.cluster.topics["t"] = [4, 4]
    subscription = world.read("t")
    world.step()
    world.cluster.topics["t"] = [1, 0]
    world.resolver.on_missing(subscription, deleted=True)
    world.step()
    assert world.target.halted == ["t"]
    assert world.target.begun[1:] == [("t", {0: 0, 1: 0})]


def test_new_partitions_are_noticed_by_themselves_and_read_from_their_beginning(world):
    world.cluster.topics["t"] = [4]
    world.read("t")
    world.step()
    world.cluster.topics["t"] = [9, 2, 3]
    world.step(after=30.0)
    assert world.target.begun[1:] == [("t", {1: 0, 2: 0})]
    assert world.target.halted == []


def test_a_topic_with_fewer_partitions_is_another_one(world):
    world.cluster.topics["t"] = [4, 4, 4]
    world.read("t")
    world.step()
    world.cluster.topics["t"] = [1]
    world.step(after=30.0)
    assert world.target.halted == ["t"]
    assert world.target.begun[1:] == [("t", {0: 0})]


def test_the_slow_look_at_many_topics_takes_them_a_few_at_a_time(world):
    for n in range(10):
        world.cluster.topics[f"t{n}"] = [0]
        world.read(f"t{n}")
    world.step()
    world.step(after=30.0)
    for _ in range(2):
        world.step(after=0.05)
    assert [len(asked) for asked in world.cluster.asked] == [10, 4, 4, 2]


def test_no_requests_while_the_connection_is_up(world):
    world.cluster.topics["t"] = [0]
    world.read("t")
    world.step()
    for _ in range(20):
        world.step(after=1.0)
    assert len(world.cluster.asked) == 1
    assert world.cluster.probes == 0


def test_a_suspicion_makes_it_probe_once_a_second(world):
    world.suspicious = True
    for _ in range(5):
        world.step(after=1.0)
        world.step(after=0.01)
    assert world.cluster.probes == 5


def test_each_target_gets_its_own(world):
    other = FakeTarget()
    world.cluster.topics["t"] = [3]
    world.read("t")
    world.read("t", target=other)
    world.step()
    assert world.target.begun == other.begun == [("t", {0: 3})]


def test_a_missing_topic_with_a_creation_is_fixed_when_it_is_there(world):
    creation = FakeCreation()
    subscription = world.read("reply", creation)
    world.step()
    assert not subscription.ready.done()
    world.cluster.topics["reply"] = [0]
    world.step(after=0.02)
    assert subscription.ready.result(0) is None
    assert world.target.begun == [("reply", {0: 0})]
    assert creation.finished == 1


def test_a_creation_that_is_refused_fails_the_reading(world):
    subscription = world.read("reply", FakeCreation(None, TransportError("refused")))
    world.step()
    world.step(after=0.02)
    with pytest.raises(TransportError, match="refused"):
        subscription.ready.result(0)


def test_a_reply_topic_that_was_deleted_is_made_again_for_as_long_as_it_takes(world):
    creation = FakeCreation()
    world.cluster.topics["reply"] = [2]
    subscription = world.read("reply", creation)
    world.step()
    world.cluster.topics.clear()
    creation.errors = [TransportError("not yet")]
    world.resolver.on_missing(subscription)
    world.step()
    world.cluster.topics["reply"] = [0]
    world.step(after=5.0)
    assert world.target.begun[1:] == [("reply", {0: 0})]


def test_callers_cannot_cancel_a_shared_future(world):
    subscription = world.read("t")
    assert not subscription.ready.cancel()
    world.step()
    try:
        subscription.ready.result(0)
    except CancelledError:
        pytest.fail("the position was cancelled")


def test_subscriptions_after_closing_fail(world):
    waiting = world.read("t")
    world.resolver.close(1.0)
    late = world.read("u")
    for subscription in (waiting, late):
        with pytest.raises(TransportError, match="closed"):
            subscription.ready.result(0)
