"""Replays and monitors with history, from the client's call to the subscriber, in virtual time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from k2eg_rx import Client
from k2eg_rx.errors import ClientClosedError, OperationTimeout
from k2eg_rx.protocol.messages import PVUpdate
from k2eg_rx.testing import ScriptedGateway

pytest_plugins = ["k2eg_rx.testing.fixtures"]

HOUR = timedelta(hours=1)


class Recorder:
    """A subscriber that records its updates and their times."""

    def __init__(self, gateway: ScriptedGateway, stream) -> None:
        self._gateway = gateway
        self.updates: list[PVUpdate] = []
        self.times: list[float] = []
        self.errors: list[Exception] = []
        self.completed = False
        self.subscription = stream.subscribe(self._take, self.errors.append, self._complete)

    def _take(self, update: PVUpdate) -> None:
        self.updates.append(update)
        self.times.append(self._gateway.clock.elapsed)

    def _complete(self) -> None:
        self.completed = True

    def values_and_replayed(self) -> list[tuple[object, bool]]:
        return [(update.value, update.replayed) for update in self.updates]

    def values(self) -> list[object]:
        return [update.value for update in self.updates]


@pytest.fixture
def recorded(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> ScriptedGateway:
    """A PV with five minutes of history, one value a minute; no longer monitored."""
    pv = k2eg_gateway.pv("demo:x", 0.0)
    monitor = k2eg_client.monitor_stream("pva://demo:x").subscribe()
    k2eg_gateway.clock.settle()
    for n in range(1, 6):
        k2eg_gateway.advance(60.0)
        pv.post(float(n))
    monitor.dispose()
    k2eg_gateway.clock.settle()
    return k2eg_gateway


def test_history_comes_first_and_then_live_updates(recorded, k2eg_client):
    subscriber = Recorder(recorded, k2eg_client.monitor_stream("pva://demo:x", since=timedelta(seconds=150)))
    recorded.clock.settle()
    assert subscriber.values_and_replayed() == [(3.0, True), (4.0, True), (5.0, True)]
    recorded["demo:x"].post(6.0)
    assert subscriber.values_and_replayed()[-1] == (6.0, False)


def test_since_counts_from_the_subscription(recorded, k2eg_client):
    stream = k2eg_client.monitor_stream("pva://demo:x", since=timedelta(seconds=150))
    recorded.advance(60.0)
    subscriber = Recorder(recorded, stream)
    recorded.clock.settle()
    assert subscriber.values()[:2] == [4.0, 5.0]


def test_the_history_of_one_subscriber_is_not_delivered_to_another(recorded, k2eg_client):
    live = Recorder(recorded, k2eg_client.monitor_stream("pva://demo:x"))
    recorded.clock.settle()
    before = live.values_and_replayed()
    with_history = Recorder(recorded, k2eg_client.monitor_stream("pva://demo:x", since=HOUR))
    recorded.clock.settle()
    assert with_history.values() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert live.values_and_replayed() == before
    assert not any(replayed for _, replayed in before)


def test_a_replay_at_a_speed_keeps_the_intervals(recorded, k2eg_client):
    started = recorded.clock.elapsed
    subscriber = Recorder(recorded, k2eg_client.replay_stream(["pva://demo:x"], HOUR, speed=60))
    recorded.advance(10.0)
    assert subscriber.values() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert [round(time - started, 3) for time in subscriber.times] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert subscriber.completed
    assert all(replayed for _, replayed in subscriber.values_and_replayed())


def test_a_replay_without_a_speed_is_emitted_at_once(recorded, k2eg_client):
    subscriber = Recorder(recorded, k2eg_client.replay_stream(["pva://demo:x"], HOUR))
    recorded.clock.settle()
    assert (subscriber.values(), subscriber.completed) == ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], True)


def test_a_replay_ends_before_its_stop(recorded, k2eg_client):
    stream = k2eg_client.replay_stream(["pva://demo:x"], timedelta(seconds=250), timedelta(seconds=100))
    subscriber = Recorder(recorded, stream)
    recorded.clock.settle()
    assert (subscriber.values(), subscriber.completed) == ([1.0, 2.0, 3.0], True)


def test_a_replay_sends_no_commands(recorded, k2eg_client):
    sent = len(recorded.commands)
    Recorder(recorded, k2eg_client.replay_stream(["pva://demo:x", "pva://demo:unknown"], HOUR))
    recorded.advance(10.0)
    assert len(recorded.commands) == sent


def test_a_replay_fails_after_the_timeout_if_the_broker_stays_unreachable(recorded, k2eg_client):
    recorded.broker.go_down()
    subscriber = Recorder(recorded, k2eg_client.replay_stream(["pva://demo:x"], HOUR))
    recorded.advance(k2eg_client.timeout - 0.1)
    assert subscriber.errors == []
    recorded.advance(1.0)
    (error,) = subscriber.errors
    assert isinstance(error, OperationTimeout)
    assert str(error).startswith("Timeout: replay of pva://demo:x: nothing within 12 s")


def test_a_replay_continues_when_the_broker_returns_within_the_timeout(recorded, k2eg_client):
    recorded.broker.go_down()
    subscriber = Recorder(recorded, k2eg_client.replay_stream(["pva://demo:x"], HOUR))
    recorded.advance(5.0)
    recorded.broker.come_up()
    recorded.advance(1.0)
    assert (len(subscriber.updates), subscriber.completed) == (6, True)


def test_unsubscribing_ends_a_replay(recorded, k2eg_client):
    subscriber = Recorder(recorded, k2eg_client.replay_stream(["pva://demo:x"], HOUR, speed=1))
    recorded.advance(70.0)
    subscriber.subscription.dispose()
    recorded.advance(600.0)
    assert subscriber.values() == [0.0, 1.0]
    assert not subscriber.completed


def test_closing_the_client_fails_a_replay_and_completes_a_monitor(recorded, k2eg_client):
    replay = Recorder(recorded, k2eg_client.replay_stream(["pva://demo:x"], HOUR, speed=1))
    monitor = Recorder(recorded, k2eg_client.monitor_stream("pva://demo:x", since=HOUR))
    recorded.clock.settle()
    k2eg_client.close()
    assert isinstance(replay.errors[0], ClientClosedError)
    assert monitor.completed


def test_overflow_latest_applies_to_history_too(recorded, k2eg_client):
    subscriber = Recorder(recorded, k2eg_client.monitor_stream("pva://demo:x", since=HOUR, overflow="latest"))
    recorded.clock.settle()
    assert subscriber.values()[-1] == 5.0
    assert k2eg_client.status.dropped + len(subscriber.updates) == 6


@pytest.mark.parametrize(
    "since", [datetime(2026, 1, 1), datetime(2100, 1, 1, tzinfo=UTC), timedelta(seconds=-1), "yesterday"]
)
def test_an_invalid_time_is_rejected_by_the_call(k2eg_client, since):
    with pytest.raises(ValueError, match="since"):
        k2eg_client.monitor_stream("pva://demo:x", since=since)
    with pytest.raises(ValueError, match="start"):
        k2eg_client.replay_stream(["pva://demo:x"], since)


def test_other_invalid_arguments_are_rejected_by_the_call(k2eg_client):
    with pytest.raises(ValueError, match="speed"):
        k2eg_client.replay_stream(["pva://demo:x"], HOUR, speed=0)
    with pytest.raises(ValueError, match="must be before"):
        k2eg_client.replay_stream(["pva://demo:x"], HOUR, HOUR)
    with pytest.raises(ValueError, match="capacity"):
        k2eg_client.replay_stream(["pva://demo:x"], HOUR, capacity=0)
    with pytest.raises(ValueError, match="empty"):
        k2eg_client.replay_stream([], HOUR)
    with pytest.raises(ValueError, match="a list"):
        k2eg_client.replay_stream("pva://demo:x", HOUR)


def test_a_call_on_a_closed_client_raises(k2eg_client):
    k2eg_client.close()
    with pytest.raises(ClientClosedError):
        k2eg_client.replay_stream(["pva://demo:x"], HOUR)
    with pytest.raises(ClientClosedError):
        k2eg_client.monitor_stream("pva://demo:x", since=HOUR)
