"""Members of a group that stop while others go on: what they were not handed, the others are."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from typing import Any

import pytest

from k2eg_rx import Client, PVUpdate

PATIENCE = 120.0  # seconds until something that should happen is missing; a green test never waits that long
BACKLOG = 20  # updates that wait for the subscriber when it stops


class Values:
    """Values of PVs, as the members got them."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.records: Counter[tuple[str, int, int]] = Counter()
        self.of: dict[str, set[int]] = defaultdict(set)
        self.newest: dict[str, int] = {}

    def keep(self, update: PVUpdate) -> None:
        with self.changed:
            self.records[update.record[:3]] += 1
            self.of[update.name].add(update.value)
            self.newest[update.name] = max(update.value, self.newest.get(update.name, 0))
            self.changed.notify_all()

    def wait_until(self, happened: Any, what: str) -> None:
        with self.changed:
            assert self.changed.wait_for(happened, PATIENCE), f"{what}: {self.newest}"


class Slow:
    """Stops in the midst of an update until it may go on."""

    def __init__(self, values: Values) -> None:
        self._values = values
        self.at_it = threading.Event()
        self.may_go_on = threading.Event()

    def see(self, update: PVUpdate) -> None:
        self._values.keep(update)
        if len(self._values.records) >= BACKLOG:
            self.at_it.set()
            assert self.may_go_on.wait(PATIENCE)


@pytest.mark.parametrize("many", [1, 4])
def test_what_waits_for_a_subscriber_that_leaves_goes_to_the_other_members(site: Any, witness: Any, many: int) -> None:
    gateway = site.gateway(50)
    group = f"leaving-{site.name}"
    uris = site.uris(many)
    values = Values()
    slow = Slow(values)
    leaving, staying = site.client("leaving", group), site.client("staying", group)
    subscription = leaving.monitor_many_stream(uris).subscribe(slow.see)
    assert slow.at_it.wait(PATIENCE)
    site.client().monitor_many_stream(uris).subscribe(witness.see)
    witness.wait_until(lambda: len(witness.values) == many, "all PVs")
    witness.wait_for_progress(BACKLOG)  # which wait for the slow one as well
    staying.monitor_many_stream(uris).subscribe(values.keep)
    subscription.dispose()
    slow.may_go_on.set()
    last = gateway.quiet()
    values.wait_until(lambda: values.newest == last, "the last value of each PV")
    for name, value in last.items():
        got = sorted(values.of[name])
        assert got == list(range(got[0], value + 1)), "nothing is lost"
    assert {key: count for key, count in values.records.items() if count > 1} == {}, "each event to exactly one"


def test_what_waits_for_a_slow_subscriber_goes_along_with_its_pv(site: Any, witness: Any) -> None:
    """A member that joins has it at once, though the one that had the PV is still at another event."""
    gateway = site.gateway(50)
    group = f"growing-{site.name}"
    uris = site.uris(30)  # so many that each member has some of them
    values, its_own = Values(), Values()
    slow = Slow(values)
    site.client("growing", group).monitor_many_stream(uris).subscribe(slow.see)
    assert slow.at_it.wait(PATIENCE)
    site.client().monitor_many_stream(uris).subscribe(witness.see)
    witness.wait_until(lambda: len(witness.values) == len(uris), "all PVs")
    witness.wait_for_progress(BACKLOG)  # which wait for the slow one as well

    def keep(update: PVUpdate) -> None:
        values.keep(update)
        its_own.keep(update)

    site.client("growing", group).monitor_many_stream(uris).subscribe(keep)
    its_own.wait_until(lambda: its_own.newest, "events for the one that joined")
    last = gateway.quiet()
    its_own.wait_until(lambda: all(last[name] == value for name, value in its_own.newest.items()), "its PVs' last")
    for name in its_own.of:
        got = sorted(values.of[name])
        assert got == list(range(got[0], last[name] + 1)), "nothing of its PVs waits for the slow one"
    slow.may_go_on.set()
    values.wait_until(lambda: values.newest == last, "the last value of each PV")
    assert {key: count for key, count in values.records.items() if count > 1} == {}, "each event to exactly one"


def test_a_member_that_is_closed_at_once_completes_its_streams(site: Any, witness: Any) -> None:
    site.gateway()
    for number in range(10):
        client: Client = site.client("hasty", f"hasty-{site.name}")
        client.monitor_many_stream(site.uris(20)).subscribe(witness.see, witness.end, witness.end)
        client.close()
        witness.wait_until(lambda ends=number + 1: len(witness.ends) == ends, "the end of the stream")
    assert witness.ends == ["completed"] * 10
