"""Creation of a missing reply topic."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from k2eg_rx.errors import TransportError
from k2eg_rx.kafka.metadata.topic_creation import TopicCreation


class FakeCreator:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.created: list[Future[None]] = []

    def trigger_auto_creation(self, topic: str) -> None:
        self.asked.append(topic)

    def create(self, topic: str) -> Future[None]:
        self.created.append(Future())
        return self.created[-1]


class World:
    def __init__(self) -> None:
        self.now = 50.0
        self.creator = FakeCreator()
        self.creation = TopicCreation("reply", self.creator, "make reply", clock=lambda: self.now)

    def step(self, after: float = 0.0) -> TransportError | None:
        self.now += after
        return self.creation.step()


@pytest.fixture
def world() -> World:
    return World()


def test_automatic_creation_is_triggered_first(world):
    assert world.step() is None
    assert world.step(after=0.1) is None
    assert world.creator.asked == ["reply"]
    assert world.creator.created == []


def test_then_it_is_created(world):
    world.step()
    assert world.step(after=0.5) is None
    assert world.step(after=0.1) is None
    assert len(world.creator.created) == 1


def test_a_refusal_is_passed_on(world):
    world.step()
    world.step(after=0.5)
    refusal = TransportError("not allowed; make reply")
    world.creator.created[0].set_exception(refusal)
    assert world.step(after=0.1) is refusal


def test_another_failure_is_one_of_ours_too(world):
    world.step()
    world.step(after=0.5)
    world.creator.created[0].set_exception(RuntimeError("broken"))
    error = world.step(after=0.1)
    assert isinstance(error, TransportError)
    assert "broken" in str(error)


def test_success_is_waited_for(world):
    world.step()
    world.step(after=0.5)
    world.creator.created[0].set_result(None)
    assert world.step(after=0.1) is None


def test_it_fails_after_ten_seconds_with_the_command(world):
    world.step()
    world.step(after=1.0)
    error = world.step(after=10.0)
    assert isinstance(error, TransportError)
    assert "'reply'" in str(error)
    assert "make reply" in str(error)


@pytest.mark.parametrize("finished", [True, False])
def test_the_creation_restarts_afterwards(world, finished):
    world.step()
    world.step(after=0.5)
    if finished:
        world.creation.finish()
    else:
        world.step(after=10.0)
    world.step(after=100.0)
    assert world.creator.asked == ["reply", "reply"]
