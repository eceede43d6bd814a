"""Creation of a missing reply topic."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from k2eg_rx.errors import TransportError
from k2eg_rx.kafka.metadata.topic_creation import TopicCreation
from k2eg_rx.transport import TransientError


class FakeCreator:
    def __init__(self) -> None:
        self.triggered: list[str] = []
        self.created: list[Future[None]] = []

    def trigger_auto_creation(self, topic: str) -> None:
        self.triggered.append(topic)

    def create(self, topic: str) -> Future[None]:
        self.created.append(Future())
        return self.created[-1]


class Harness:
    def __init__(self) -> None:
        self.now = 50.0
        self.creator = FakeCreator()
        self.creation = TopicCreation("reply", self.creator, "make reply", clock=lambda: self.now)

    def step(self, after: float = 0.0) -> TransportError | None:
        self.now += after
        return self.creation.step()


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_automatic_creation_is_triggered_first(harness):
    assert harness.step() is None
    assert harness.step(after=0.1) is None
    assert harness.creator.triggered == ["reply"]
    assert harness.creator.created == []


def test_a_topic_not_created_automatically_is_created_by_request(harness):
    harness.step()
    assert harness.step(after=0.5) is None
    assert harness.step(after=0.1) is None
    assert len(harness.creator.created) == 1


def test_a_refusal_is_returned(harness):
    harness.step()
    harness.step(after=0.5)
    refusal = TransportError("not allowed; make reply")
    harness.creator.created[0].set_exception(refusal)
    assert harness.step(after=0.1) is refusal


def test_another_failure_becomes_a_transport_error(harness):
    harness.step()
    harness.step(after=0.5)
    harness.creator.created[0].set_exception(RuntimeError("broken"))
    error = harness.step(after=0.1)
    assert isinstance(error, TransportError)
    assert "broken" in str(error)


def test_a_created_topic_is_no_error(harness):
    harness.step()
    harness.step(after=0.5)
    harness.creator.created[0].set_result(None)
    assert harness.step(after=0.1) is None


def test_the_creation_times_out_after_ten_seconds_with_the_command(harness):
    harness.step()
    assert [harness.step(after=1.0) for _ in range(10)] == [None] * 10
    error = harness.step(after=1.0)
    assert isinstance(error, TransportError)
    assert "'reply'" in str(error)
    assert "make reply" in str(error)


@pytest.mark.parametrize("finished", [True, False])
def test_a_creation_can_be_repeated(harness, finished):
    harness.step()
    harness.step(after=0.5)
    if finished:
        harness.creation.finish()
    else:
        for _ in range(11):
            harness.step(after=1.0)
    harness.step(after=1.0)
    assert harness.creator.triggered == ["reply", "reply"]


def test_the_time_of_an_outage_does_not_count_and_the_requests_are_repeated(harness):
    harness.step()
    harness.step(after=0.5)
    assert harness.step(after=30.0) is None
    assert harness.step(after=0.5) is None
    assert harness.creator.triggered == ["reply", "reply"]
    assert len(harness.creator.created) == 2


def test_a_request_that_an_outage_has_ended_is_repeated(harness):
    harness.step()
    harness.step(after=0.5)
    harness.creator.created[0].set_exception(TransientError("the broker is away"))
    assert harness.step(after=5.0) is None
    assert harness.step(after=0.1) is None
    assert len(harness.creator.created) == 2


def test_requests_that_fail_until_the_time_is_over_say_why(harness):
    harness.step()
    harness.step(after=0.5)
    failure = TransientError("the request timed out")
    harness.creator.created[0].set_exception(failure)
    assert [harness.step(after=5.0), harness.step(after=4.0)] == [None, None]
    assert harness.step(after=1.0) is failure
