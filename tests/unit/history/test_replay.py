"""Time travel of a client, in virtual time: the whole way from the call to the subscriber, without threads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from k2eg_rx import Client
from k2eg_rx.errors import ClientClosedError, OperationTimeout
from k2eg_rx.protocol.messages import PVUpdate
from k2eg_rx.testing import ScriptedGateway

pytest_plugins = ["k2eg_rx.testing.fixtures"]

HOUR = timedelta(hours=1)


class Seen:
    """What a subscriber got, and when."""

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

    def told(self) -> list[tuple[object, bool]]:
        return [(update.value, update.replayed) for update in self.updates]

    def values(self) -> list[object]:
        return [update.value for update in self.updates]


@pytest.fixture
def recorded(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> ScriptedGateway:
    """A PV that somebody has monitored for five minutes, one value a minute; then nobody."""
    pv = k2eg_gateway.pv("demo:x", 0.0)
    watched = k2eg_client.monitor_stream("pva://demo:x").subscribe()
    k2eg_gateway.clock.settle()
    for n in range(1, 6):
        k2eg_gateway.advance(60.0)
        pv.post(float(n))
    watched.dispose()
    k2eg_gateway.clock.settle()
    return k2eg_gateway


def test_history_comes_first_and_then_live_updates(recorded, k2eg_client):
    seen = Seen(recorded, k2eg_client.monitor_stream("pva://demo:x", since=timedelta(seconds=150)))
    recorded.clock.settle()
    assert seen.told() == [(3.0, True), (4.0, True), (5.0, True)]
    recorded["demo:x"].post(6.0)
    assert seen.told()[-1] == (6.0, False)


def test_since_counts_from_the_subscription(recorded, k2eg_client):
    stream = k2eg_client.monitor_stream("pva://demo:x", since=timedelta(seconds=150))
    recorded.advance(60.0)
    seen = Seen(recorded, stream)
    recorded.clock.settle()
    assert seen.values()[:2] == [4.0, 5.0]


def test_a_live_subscriber_gets_no_history_of_another(recorded, k2eg_client):
    live = Seen(recorded, k2eg_client.monitor_stream("pva://demo:x"))
    recorded.clock.settle()
    before = live.told()
    past = Seen(recorded, k2eg_client.monitor_stream("pva://demo:x", since=HOUR))
    recorded.clock.settle()
    assert past.values() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert live.told() == before
    assert not any(replayed for _, replayed in before)


def test_a_replay_at_a_speed_takes_its_time(recorded, k2eg_client):
    began = recorded.clock.elapsed
    seen = Seen(recorded, k2eg_client.replay_stream(["pva://demo:x"], HOUR, speed=60))
    recorded.advance(10.0)
    assert seen.values() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert [round(time - began, 3) for time in seen.times] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert seen.completed
    assert all(replayed for _, replayed in seen.told())


def test_a_replay_without_a_speed_takes_none(recorded, k2eg_client):
    seen = Seen(recorded, k2eg_client.replay_stream(["pva://demo:x"], HOUR))
    recorded.clock.settle()
    assert (seen.values(), seen.completed) == ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], True)


def test_a_replay_ends_before_its_stop(recorded, k2eg_client):
    stream = k2eg_client.replay_stream(["pva://demo:x"], timedelta(seconds=250), timedelta(seconds=100))
    seen = Seen(recorded, stream)
    recorded.clock.settle()
    assert (seen.values(), seen.completed) == ([1.0, 2.0, 3.0], True)


def test_a_replay_asks_no_gateway(recorded, k2eg_client):
    asked = len(recorded.commands)
    Seen(recorded, k2eg_client.replay_stream(["pva://demo:x", "pva://demo:nobody"], HOUR))
    recorded.advance(10.0)
    assert len(recorded.commands) == asked


def test_a_broker_that_stays_away_fails_a_replay_when_the_timeout_is_over(recorded, k2eg_client):
    recorded.broker.go_down()
    seen = Seen(recorded, k2eg_client.replay_stream(["pva://demo:x"], HOUR))
    recorded.advance(k2eg_client.timeout - 0.1)
    assert seen.errors == []
    recorded.advance(1.0)
    (error,) = seen.errors
    assert isinstance(error, OperationTimeout)
    assert str(error).startswith("replay of pva://demo:x: no reply within 12 s")


def test_a_broker_that_comes_back_in_time_does_no_harm(recorded, k2eg_client):
    recorded.broker.go_down()
    seen = Seen(recorded, k2eg_client.replay_stream(["pva://demo:x"], HOUR))
    recorded.advance(5.0)
    recorded.broker.come_up()
    recorded.advance(1.0)
    assert (len(seen.updates), seen.completed) == (6, True)


def test_unsubscribing_ends_a_replay(recorded, k2eg_client):
    seen = Seen(recorded, k2eg_client.replay_stream(["pva://demo:x"], HOUR, speed=1))
    recorded.advance(70.0)
    seen.subscription.dispose()
    recorded.advance(600.0)
    assert seen.values() == [0.0, 1.0]
    assert not seen.completed


def test_closing_the_client_fails_a_replay_and_completes_a_monitor(recorded, k2eg_client):
    replay = Seen(recorded, k2eg_client.replay_stream(["pva://demo:x"], HOUR, speed=1))
    monitor = Seen(recorded, k2eg_client.monitor_stream("pva://demo:x", since=HOUR))
    recorded.clock.settle()
    k2eg_client.close()
    assert isinstance(replay.errors[0], ClientClosedError)
    assert monitor.completed


def test_the_newest_only_is_a_choice_for_the_past_too(recorded, k2eg_client):
    seen = Seen(recorded, k2eg_client.monitor_stream("pva://demo:x", since=HOUR, overflow="latest"))
    recorded.clock.settle()
    assert seen.values()[-1] == 5.0
    assert k2eg_client.status.dropped + len(seen.updates) == 6


@pytest.mark.parametrize(
    "since", [datetime(2026, 1, 1), datetime(2100, 1, 1, tzinfo=UTC), timedelta(seconds=-1), "yesterday"]
)
def test_a_time_that_is_none_is_refused_at_the_call(k2eg_client, since):
    with pytest.raises(ValueError, match="since"):
        k2eg_client.monitor_stream("pva://demo:x", since=since)
    with pytest.raises(ValueError, match="start"):
        k2eg_client.replay_stream(["pva://demo:x"], since)


def test_other_bad_arguments_are_refused_at_the_call(k2eg_client):
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


def test_a_closed_client_raises_at_the_call(k2eg_client):
    k2eg_client.close()
    with pytest.raises(ClientClosedError):
        k2eg_client.replay_stream(["pva://demo:x"], HOUR)
    with pytest.raises(ClientClosedError):
        k2eg_client.monitor_stream("pva://demo:x", since=HOUR)
