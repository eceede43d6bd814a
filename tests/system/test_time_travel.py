"""`since` and replay through the real IOC, gateway and Kafka: the demo's 100 Hz ramp has no gap."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from k2eg_rx import Client, PVUpdate
from k2eg_rx.embedded import EmbeddedStack

from .conftest import Collected

TIMEOUT = 60.0
RAMP = "pva://demo:ramp100"
UNPROCESSED = 631_152_000 * 1_000_000_000  # EPICS's epoch, 1990, in Unix nanoseconds
RAMPS = ["pva://demo:ramp100", "ca://demo:ramp10", "pva://demo:ramp1"]


Recorded = Collected[PVUpdate]


def times(recorded: Recorded) -> list[int]:
    return [update.timestamp or 0 for update in list(recorded.items)]


def assert_no_gap(updates: Sequence[PVUpdate]) -> None:
    """Asserts that the values of a demo ramp count up by one, modulo 100."""
    values = [update.value for update in updates]
    assert all((later - earlier) % 100 == 1 for earlier, later in pairwise(values)), values


@pytest.fixture
def watched(client: Client) -> Iterator[Recorded]:
    """Monitors the fast ramp from a second before the test."""
    live = Recorded(client.monitor_stream(RAMP))
    live.until_more(100)
    yield live
    live.subscription.dispose()


def test_since_continues_from_history_to_live_without_a_gap(client: Client, watched: Recorded) -> None:
    first_seen = times(watched)[0]
    subscriber = Recorded(client.monitor_stream(RAMP, since=watched.started - timedelta(seconds=1)))
    subscriber.until(lambda collected: collected.items and not collected.items[-1].replayed)
    subscriber.until_more(50)
    assert_no_gap(subscriber.items[-150:])
    recorded = times(subscriber)
    assert first_seen in recorded  # even if its record was not processed yet and has the time 1990
    processed = [time for time in recorded if time != UNPROCESSED]
    assert processed == sorted(set(processed))
    replayed = [update.replayed for update in subscriber.items]
    assert replayed == sorted(replayed, reverse=True)
    assert replayed.count(True) >= 100
    assert_no_gap(watched.items)
    assert not any(update.replayed for update in watched.items)


def test_another_client_reads_the_same_history(
    client: Client, watched: Recorded, stack: EmbeddedStack, fresh_app_name: str
) -> None:
    start = datetime.now(UTC)
    watched.until_more(100)
    name = f"{fresh_app_name}-other"
    with Client("demo", name, settings=stack.settings(name)) as other:
        subscriber = Recorded(other.monitor_stream(RAMP, since=start))
        try:
            subscriber.until_more(120)
        except AssertionError as error:  # seen once, with history but nothing live; this tells the halves apart
            ends = [(len(each.items), each.items[-1:] and each.items[-1].record[:3]) for each in (subscriber, watched)]
            error.add_note(f"of the other client and of the first one: {ends}, {other.status}, {client.status}")
            raise
        assert min(times(subscriber)) >= start.timestamp() * 1e9
        assert_no_gap(subscriber.items)
        assert len(set(times(subscriber)).intersection(times(watched))) >= 90


def test_a_replayed_interval_equals_the_live_updates(client: Client) -> None:
    start = datetime.now(UTC)
    live = Recorded(client.monitor_many_stream(RAMPS))
    live.until(lambda collected: sum(update.name == "demo:ramp1" for update in collected.items) >= 3)
    live.subscription.dispose()
    stop = datetime.now(UTC)
    replay = Recorded(client.replay_stream(RAMPS, start, stop))
    replay.until_end()
    assert replay.completed
    assert times(replay) == sorted(times(replay))
    for uri in RAMPS:
        name = uri.partition("://")[2]
        seen = {update.timestamp: update.value for update in live.items if update.name == name}
        recorded = {update.timestamp: update.value for update in replay.items if update.name == name}
        inside = {time: value for time, value in seen.items() if start.timestamp() * 1e9 <= (time or 0)}
        assert inside.items() <= recorded.items()
    assert_no_gap([update for update in replay.items if update.name == "demo:ramp100"])


def test_a_replay_at_ten_times_the_speed_has_every_update(client: Client, watched: Recorded) -> None:
    watched.until_more(100)
    live = times(watched)
    start, stop = (datetime.fromtimestamp(live[at] / 1e9, UTC) for at in (0, -1))  # rounded
    replay = Recorded(client.replay_stream([RAMP], start, stop, speed=10))
    replay.until_end()
    assert replay.completed
    assert abs(len(replay.items) - len(live)) <= 2
    assert_no_gap(replay.items)


def test_a_slow_subscriber_to_history_does_not_delay_others(client: Client, watched: Recorded) -> None:
    received, gate = [], threading.Event()

    def receive(update: PVUpdate) -> None:
        gate.wait(TIMEOUT)
        received.append(update)

    slow = client.monitor_stream(RAMP, since=timedelta(minutes=5), capacity=10).subscribe(receive)
    watched.until_more(150)
    assert_no_gap(watched.items)
    assert received == []
    caught_up = Recorded(client.monitor_stream(RAMP, since=timedelta(seconds=1)))
    caught_up.until_more(150)
    gate.set()
    slow.dispose()


def test_a_pv_that_was_never_monitored_has_no_history(client: Client) -> None:
    replay = Recorded(client.replay_stream(["pva://demo:never:monitored"], timedelta(hours=1)))
    replay.until_end()
    assert (replay.items, replay.errors, replay.completed) == ([], [], True)
