"""Where topics are read from, and topics that come and go: `OffsetResolver` by hand, on the test's thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError

import pytest

from k2eg_rx.errors import TransportError
from k2eg_rx.kafka.metadata.cluster import Ends, Sight
from k2eg_rx.kafka.metadata.offset_resolver import OffsetResolver
from k2eg_rx.kafka.metadata.topic_subscription import Phase, Reading


class FakeCluster:
    """Topics as lists of end offsets; counts what is asked."""

    def __init__(self) -> None:
        self.topics: dict[str, list[int]] = {}
        self.sights: dict[str, Sight] = {}
        self.unknown_ends: set[str] = set()
        self.silent = False
        self.work = lambda: None
        self.asked: list[list[str]] = []
        self.probes = 0
        self.closed = False

    def partition_counts(self, topics: Sequence[str]) -> Mapping[str, Sight] | None:
        self.asked.append(list(topics))
        self.work()
        if self.silent:
            return None
        return {topic: self.sights.get(topic, len(self.topics.get(topic, []))) for topic in topics}

    def end_offsets(self, partition_counts: Mapping[str, int]) -> Mapping[str, Ends]:
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
        self.batches: list[list[tuple[str, Ends]]] = []
        self.halted: list[str] = []

    @property
    def begun(self) -> list[tuple[str, Ends]]:
        return [start for batch in self.batches for start in batch]

    def begin(self, starts: Sequence[tuple[Reading, Ends]]) -> None:
        self.batches.append([(reading.topic, dict(ends)) for reading, ends in starts])

    def halt(self, reading: Reading) -> None:
        self.halted.append(reading.topic)


class FakeCreation:
    def __init__(self, *errors: TransportError | None) -> None:
        self.errors = list(errors)
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
        self.positions = OffsetResolver(self.cluster, lambda: self.suspicious, clock=lambda: self.now)

    def read(self, topic: str, creation: FakeCreation | None = None, target: FakeTarget | None = None) -> Reading:
        reading = Reading(topic, target or self.target, creation)
        self.positions.add(reading)
        return reading

    def turn(self, after: float = 0.0) -> float:
        self.now += after
        return self.positions.turn()


@pytest.fixture
def world() -> World:
    return World()


def test_a_topic_is_read_from_its_ends(world):
    world.cluster.topics["t"] = [7, 0, 3]
    reading = world.read("t")
    assert not reading.fixed.done()
    world.turn()
    assert world.target.begun == [("t", {0: 7, 1: 0, 2: 3})]
    assert reading.fixed.result(0) is None


def test_topics_asked_for_together_are_looked_up_and_assigned_together(world):
    for n in range(100):
        world.cluster.topics[f"t{n}"] = [n]
        world.read(f"t{n}")
    world.turn()
    assert len(world.cluster.asked) == 1
    assert len(world.target.batches) == 1
    assert len(world.target.begun) == 100


def test_a_missing_topic_is_fixed_at_once_and_read_from_its_beginning(world):
    reading = world.read("t")
    world.turn()
    assert reading.fixed.result(0) is None
    assert world.target.begun == []
    world.cluster.topics["t"] = [5, 6]
    world.turn(after=0.02)
    assert world.target.begun == [("t", {0: 0, 1: 0})]


def test_a_missing_topic_is_looked_up_quickly_at_first_and_once_a_second_in_the_end(world):
    world.read("t")
    pauses = []
    for _ in range(12):
        pauses.append(world.turn(after=pauses[-1] if pauses else 0.0))
    assert pauses[0] == pytest.approx(0.02)
    assert pauses[-1] == pytest.approx(1.0)
    assert pauses == sorted(pauses)


def test_many_missing_topics_are_looked_up_less_often(world):
    for n in range(500):
        world.read(f"t{n}")
    pause = 0.0
    for _ in range(12):
        pause = world.turn(after=pause)
    assert pause == pytest.approx(2.5)


def test_when_one_missing_topic_comes_about_the_others_are_looked_up_soon(world):
    world.read("t")
    for n in range(99):
        world.read(f"t{n}")
    pause = 0.0
    for _ in range(12):
        pause = world.turn(after=pause)
    assert pause == pytest.approx(1.0)
    world.cluster.topics["t"] = [0]
    assert world.turn(after=pause) == pytest.approx(0.02)
    world.turn(after=0.02)
    assert len(world.cluster.asked[-1]) == 99


def test_a_broker_that_is_slow_to_answer_is_asked_for_missing_topics_less_often(world):
    def answer_after_a_tenth() -> None:
        world.now += 0.1

    world.cluster.work = answer_after_a_tenth
    world.read("t")
    assert world.turn() == pytest.approx(0.4)
    world.read("reply", FakeCreation())
    assert world.turn() == pytest.approx(0.005), "somebody waits for this one"


def test_what_was_released_is_forgotten(world):
    absent, asked = world.read("absent"), world.read("asked")
    world.turn()
    absent.released = asked.released = True
    world.turn(after=1.0)
    assert world.cluster.asked == [["absent", "asked"]]
    assert world.target.begun == []


def test_a_silent_broker_is_asked_again_and_nothing_is_fixed_meanwhile(world):
    world.cluster.topics["t"] = [4]
    world.cluster.silent = True
    reading = world.read("t")
    assert world.turn() == pytest.approx(0.5)
    assert not reading.fixed.done()
    world.cluster.silent = False
    world.cluster.topics["t"] = [9]
    world.turn(after=0.5)
    assert world.target.begun == [("t", {0: 9})]


def test_ends_that_are_not_known_yet_are_asked_for_again(world):
    world.cluster.topics = {"t": [4], "u": [5]}
    world.cluster.unknown_ends = {"t"}
    waiting, reading = world.read("t"), world.read("u")
    world.turn()
    assert (waiting.fixed.done(), reading.fixed.done()) == (False, True)
    world.cluster.unknown_ends = set()
    world.turn(after=0.02)
    assert world.target.begun == [("u", {0: 5}), ("t", {0: 4})]


def test_a_topic_that_the_broker_cannot_speak_of_now_is_asked_for_again(world):
    world.cluster.topics["t"] = [4]
    world.cluster.sights["t"] = None
    reading = world.read("t")
    world.turn()
    assert not reading.fixed.done()
    del world.cluster.sights["t"]
    world.turn(after=0.02)
    assert world.target.begun == [("t", {0: 4})]


def test_a_topic_that_may_not_be_read_fails_and_is_forgotten(world):
    world.cluster.sights["t"] = TransportError("forbidden")
    reading = world.read("t")
    world.turn()
    with pytest.raises(TransportError, match="forbidden"):
        reading.fixed.result(0)
    world.turn(after=10.0)
    assert world.cluster.asked == [["t"]]


def test_a_topic_that_was_deleted_is_read_from_its_beginning_once_it_is_back(world):
    world.cluster.topics["t"] = [4]
    reading = world.read("t")
    world.turn()
    world.cluster.topics.clear()
    world.positions.lose(reading)
    world.turn()
    assert world.target.halted == ["t"]
    world.cluster.topics["t"] = [1, 1]
    world.turn(after=0.02)
    assert world.target.begun[1:] == [("t", {0: 0, 1: 0})]


def test_a_topic_that_is_not_found_by_mistake_is_read_on(world):
    world.cluster.topics["t"] = [4]
    reading = world.read("t")
    world.turn()
    world.positions.lose(reading)
    world.turn()
    assert world.target.halted == []
    assert world.target.begun == [("t", {0: 4}), ("t", {})]
    assert reading.phase is Phase.READ


def test_a_topic_deleted_for_certain_is_another_one_even_if_it_is_there_at_the_next_look(world):
    world.cluster.topics["t"] = [4, 4]
    reading = world.read("t")
    world.turn()
    world.cluster.topics["t"] = [1, 0]
    world.positions.lose(reading, for_certain=True)
    world.turn()
    assert world.target.halted == ["t"]
    assert world.target.begun[1:] == [("t", {0: 0, 1: 0})]


def test_new_partitions_are_noticed_by_themselves_and_read_from_their_beginning(world):
    world.cluster.topics["t"] = [4]
    world.read("t")
    world.turn()
    world.cluster.topics["t"] = [9, 2, 3]
    world.turn(after=30.0)
    assert world.target.begun[1:] == [("t", {1: 0, 2: 0})]
    assert world.target.halted == []


def test_a_topic_with_fewer_partitions_is_another_one(world):
    world.cluster.topics["t"] = [4, 4, 4]
    world.read("t")
    world.turn()
    world.cluster.topics["t"] = [1]
    world.turn(after=30.0)
    assert world.target.halted == ["t"]
    assert world.target.begun[1:] == [("t", {0: 0})]


def test_the_slow_look_at_many_topics_takes_them_a_few_at_a_time(world):
    for n in range(10):
        world.cluster.topics[f"t{n}"] = [0]
        world.read(f"t{n}")
    world.turn()
    world.turn(after=30.0)
    for _ in range(2):
        world.turn(after=0.05)
    assert [len(asked) for asked in world.cluster.asked] == [10, 4, 4, 2]


def test_nothing_is_asked_while_all_is_well(world):
    world.cluster.topics["t"] = [0]
    world.read("t")
    world.turn()
    for _ in range(20):
        world.turn(after=1.0)
    assert len(world.cluster.asked) == 1
    assert world.cluster.probes == 0


def test_a_suspicion_makes_it_probe_once_a_second(world):
    world.suspicious = True
    for _ in range(5):
        world.turn(after=1.0)
        world.turn(after=0.01)
    assert world.cluster.probes == 5


def test_each_target_gets_its_own(world):
    other = FakeTarget()
    world.cluster.topics["t"] = [3]
    world.read("t")
    world.read("t", target=other)
    world.turn()
    assert world.target.begun == other.begun == [("t", {0: 3})]


def test_a_missing_topic_with_a_creation_is_fixed_when_it_is_there(world):
    creation = FakeCreation()
    reading = world.read("reply", creation)
    world.turn()
    assert not reading.fixed.done()
    world.cluster.topics["reply"] = [0]
    world.turn(after=0.02)
    assert reading.fixed.result(0) is None
    assert world.target.begun == [("reply", {0: 0})]
    assert creation.finished == 1


def test_a_creation_that_is_refused_fails_the_reading(world):
    reading = world.read("reply", FakeCreation(None, TransportError("refused")))
    world.turn()
    world.turn(after=0.02)
    with pytest.raises(TransportError, match="refused"):
        reading.fixed.result(0)


def test_a_reply_topic_that_was_deleted_is_made_again_for_as_long_as_it_takes(world):
    creation = FakeCreation()
    world.cluster.topics["reply"] = [2]
    reading = world.read("reply", creation)
    world.turn()
    world.cluster.topics.clear()
    creation.errors = [TransportError("not yet")]
    world.positions.lose(reading)
    world.turn()
    world.cluster.topics["reply"] = [0]
    world.turn(after=5.0)
    assert world.target.begun[1:] == [("reply", {0: 0})]


def test_who_waits_cannot_cancel_it_for_the_others(world):
    reading = world.read("t")
    assert not reading.fixed.cancel()
    world.turn()
    try:
        reading.fixed.result(0)
    except CancelledError:
        pytest.fail("the position was cancelled")


def test_what_comes_after_closing_fails(world):
    waiting = world.read("t")
    world.positions.close(1.0)
    late = world.read("u")
    for reading in (waiting, late):
        with pytest.raises(TransportError, match="closed"):
            reading.fixed.result(0)
