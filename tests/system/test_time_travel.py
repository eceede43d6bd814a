"""Time travel through the real IOC, gateway and Kafka: the demo's 100 Hz ramp has no gap, past or present."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
import reactivex as rx

from k2eg_rx import Client, PVUpdate
from k2eg_rx.embedded import EmbeddedStack

TIMEOUT = 20.0
RAMP = "pva://demo:ramp100"
UNPROCESSED = 631_152_000 * 1_000_000_000  # EPICS's epoch, 1990, in Unix nanoseconds
RAMPS = ["pva://demo:ramp100", "ca://demo:ramp10", "pva://demo:ramp1"]


class Told:
    """What a stream has emitted, to be waited for."""

    def __init__(self, stream: rx.Observable[PVUpdate]) -> None:
        self.updates: list[PVUpdate] = []
        self.errors: list[Exception] = []
        self.completed = False
        self.began = datetime.now(UTC)  # of a PV there may be events of others on the broker, from before
        self._condition = threading.Condition()
        self.subscription = stream.subscribe(self._next, self._error, self._end)

    def _next(self, update: PVUpdate) -> None:
        with self._condition:
            self.updates.append(update)
            self._condition.notify_all()

    def _error(self, error: Exception) -> None:
        with self._condition:
            self.errors.append(error)
            self._condition.notify_all()

    def _end(self) -> None:
        with self._condition:
            self.completed = True
            self._condition.notify_all()

    def wait(self, happened: Callable[[], bool]) -> None:
        with self._condition:
            assert self._condition.wait_for(happened, TIMEOUT), (len(self.updates), self.errors)

    def wait_for(self, count: int) -> None:
        """Waits for so many updates more."""
        goal = len(self.updates) + count
        self.wait(lambda: len(self.updates) >= goal)

    def wait_for_end(self) -> None:
        self.wait(lambda: self.completed or bool(self.errors))

    def times(self) -> list[int]:
        return [update.timestamp or 0 for update in self.updates]


def assert_no_gap(updates: Sequence[PVUpdate]) -> None:
    """Every value of the demo's ramps is one more than that before, modulo 100."""
    values = [update.value for update in updates]
    assert all((later - earlier) % 100 == 1 for earlier, later in pairwise(values)), values


@pytest.fixture
def watched(client: Client) -> Iterator[Told]:
    """The fast ramp, monitored for a second already, and still."""
    live = Told(client.monitor_stream(RAMP))
    live.wait_for(100)
    yield live
    live.subscription.dispose()


def test_a_monitor_tells_the_past_and_then_the_present_without_a_gap(client: Client, watched: Told) -> None:
    first_seen = watched.times()[0]
    past = Told(client.monitor_stream(RAMP, since=watched.began - timedelta(seconds=1)))
    past.wait(lambda: bool(past.updates) and not past.updates[-1].replayed)
    past.wait_for(50)
    assert_no_gap(past.updates[-150:])
    times = past.times()
    assert first_seen in times  # also if it is of a record that was not processed yet: 1990
    processed = [time for time in times if time != UNPROCESSED]
    assert processed == sorted(set(processed))
    marks = [update.replayed for update in past.updates]
    assert marks == sorted(marks, reverse=True)
    assert marks.count(True) >= 100
    assert_no_gap(watched.updates)
    assert not any(update.replayed for update in watched.updates)


def test_another_client_has_the_same_past(
    client: Client, watched: Told, stack: EmbeddedStack, fresh_app_name: str
) -> None:
    began = datetime.now(UTC)
    watched.wait_for(100)
    name = f"{fresh_app_name}-other"
    with Client("demo", name, settings=stack.settings(name)) as other:
        past = Told(other.monitor_stream(RAMP, since=began))
        past.wait_for(120)
        assert min(past.times()) >= began.timestamp() * 1e9
        assert_no_gap(past.updates)
        seen = [update.timestamp for update in watched.updates if update.timestamp in past.times()]
        assert len(seen) >= 90


def test_an_interval_is_replayed_as_it_was_seen(client: Client) -> None:
    start = datetime.now(UTC)
    live = Told(client.monitor_many_stream(RAMPS))
    live.wait(lambda: sum(update.name == "demo:ramp1" for update in live.updates) >= 3)
    live.subscription.dispose()
    stop = datetime.now(UTC)
    replay = Told(client.replay_stream(RAMPS, start, stop))
    replay.wait_for_end()
    assert replay.completed
    assert replay.times() == sorted(replay.times())
    for uri in RAMPS:
        name = uri.partition("://")[2]
        seen = {update.timestamp: update.value for update in live.updates if update.name == name}
        told = {update.timestamp: update.value for update in replay.updates if update.name == name}
        inside = {time: value for time, value in seen.items() if start.timestamp() * 1e9 <= (time or 0)}
        assert inside.items() <= told.items()
    assert_no_gap([update for update in replay.updates if update.name == "demo:ramp100"])


def test_a_replay_at_ten_times_the_speed(client: Client, watched: Told) -> None:
    watched.wait_for(100)
    last = watched.times()[-1]
    stop = datetime.fromtimestamp(last / 1e9, UTC)
    replay = Told(client.replay_stream([RAMP], stop - timedelta(seconds=1), stop, speed=10))
    replay.wait_for_end()
    assert replay.completed
    assert 95 <= len(replay.updates) <= 105
    assert_no_gap(replay.updates)


def test_a_subscriber_that_is_slow_to_hear_the_past_delays_nobody(client: Client, watched: Told) -> None:
    heard, gate = [], threading.Event()

    def listen(update: PVUpdate) -> None:
        gate.wait(TIMEOUT)
        heard.append(update)

    slow = client.monitor_stream(RAMP, since=timedelta(minutes=5), capacity=10).subscribe(listen)
    watched.wait_for(150)
    assert_no_gap(watched.updates)
    assert heard == []
    caught_up = Told(client.monitor_stream(RAMP, since=timedelta(seconds=1)))
    caught_up.wait_for(150)
    gate.set()
    slow.dispose()


def test_the_past_of_a_pv_that_was_never_monitored_is_empty(client: Client) -> None:
    replay = Told(client.replay_stream(["pva://demo:never:monitored"], timedelta(hours=1)))
    replay.wait_for_end()
    assert (replay.updates, replay.errors, replay.completed) == ([], [], True)
