"""Group members that leave or join while a subscriber is slow: the others read its undelivered updates."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from typing import Any

import pytest

from k2eg_rx import Client, PVUpdate

PATIENCE = 120.0  # seconds until a test fails; a passing test never waits that long
BACKLOG = 20  # updates queued for the slow subscriber


class Values:
    """Collects the values that some members receive."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.records: Counter[tuple[str, int, int]] = Counter()
        self.by_name: dict[str, set[int]] = defaultdict(set)
        self.newest: dict[str, int] = {}

    def on_next(self, update: PVUpdate) -> None:
        with self.changed:
            self.records[update.record[:3]] += 1
            self.by_name[update.name].add(update.value)
            self.newest[update.name] = max(update.value, self.newest.get(update.name, 0))
            self.changed.notify_all()

    def wait_until(self, happened: Any, what: str) -> None:
        with self.changed:
            assert self.changed.wait_for(happened, PATIENCE), f"{what}: {self.newest}"


class SlowSubscriber:
    """Collects values; blocks in a callback until it is released."""

    def __init__(self, values: Values) -> None:
        self._values = values
        self.blocked = threading.Event()
        self.released = threading.Event()

    def on_next(self, update: PVUpdate) -> None:
        self._values.on_next(update)
        if len(self._values.records) >= BACKLOG:
            self.blocked.set()
            assert self.released.wait(PATIENCE)


@pytest.mark.parametrize("count", [1, 4])
def test_updates_queued_for_a_leaving_subscriber_go_to_the_other_members(site: Any, collector: Any, count: int) -> None:
    gateway = site.gateway(50)
    group = f"leaving-{site.name}"
    uris = site.uris(count)
    values = Values()
    slow = SlowSubscriber(values)
    leaving, staying = site.client("leaving", group), site.client("staying", group)
    subscription = leaving.monitor_many_stream(uris).subscribe(slow.on_next)
    assert slow.blocked.wait(PATIENCE)
    site.client().monitor_many_stream(uris).subscribe(collector.on_next)
    collector.wait_until(lambda: len(collector.values) == count, "all PVs")
    collector.wait_for_progress(BACKLOG)  # queued for the slow subscriber, too
    staying.monitor_many_stream(uris).subscribe(values.on_next)
    subscription.dispose()
    slow.released.set()
    last = gateway.pause()
    values.wait_until(lambda: values.newest == last, "the last value of each PV")
    for name, value in last.items():
        received = sorted(values.by_name[name])
        assert received == list(range(received[0], value + 1)), "values are lost"
    assert {key: number for key, number in values.records.items() if number > 1} == {}, "an event was received twice"


def test_updates_queued_for_a_slow_subscriber_move_with_their_pv(site: Any, collector: Any) -> None:
    """A joining member reads them at once, although the previous owner still runs a callback."""
    gateway = site.gateway(50)
    group = f"growing-{site.name}"
    uris = site.uris(30)  # enough that each member is assigned some
    values, joined_values = Values(), Values()
    slow = SlowSubscriber(values)
    site.client("growing", group).monitor_many_stream(uris).subscribe(slow.on_next)
    assert slow.blocked.wait(PATIENCE)
    site.client().monitor_many_stream(uris).subscribe(collector.on_next)
    collector.wait_until(lambda: len(collector.values) == len(uris), "all PVs")
    collector.wait_for_progress(BACKLOG)  # queued for the slow subscriber, too

    def on_next(update: PVUpdate) -> None:
        values.on_next(update)
        joined_values.on_next(update)

    site.client("growing", group).monitor_many_stream(uris).subscribe(on_next)
    joined_values.wait_until(lambda: joined_values.newest, "events of the joined member")
    last = gateway.pause()
    joined_values.wait_until(
        lambda: all(last[name] == value for name, value in joined_values.newest.items()), "the last values of its PVs"
    )
    for name in joined_values.by_name:
        received = sorted(values.by_name[name])
        assert received == list(range(received[0], last[name] + 1)), "values of its PVs are missing"
    slow.released.set()
    values.wait_until(lambda: values.newest == last, "the last value of each PV")
    assert {key: number for key, number in values.records.items() if number > 1} == {}, "an event was received twice"


def test_closing_a_member_at_once_completes_its_streams(site: Any, collector: Any) -> None:
    site.gateway()
    for number in range(10):
        client: Client = site.client("hasty", f"hasty-{site.name}")
        client.monitor_many_stream(site.uris(20)).subscribe(collector.on_next, collector.on_end, collector.on_end)
        client.close()
        collector.wait_until(lambda ends=number + 1: len(collector.ends) == ends, "the end of the stream")
    assert collector.ends == ["completed"] * 10
