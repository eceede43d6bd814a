"""Everything a client does with a gateway, as a script that runs on any release of `k2eg`.

    python operations.py APPLICATION PREFIX

APPLICATION is the name of the client; its environment is ``site``. PREFIX begins the names of the records of records.db
and of the table. The script prints a JSON object per operation: `operation`, `passed`, and `seen`, the reason of a
failure. It uses nothing but the standard library and what every release of the client has.

Thread safety: handlers of the client run on its threads and only add to `Calls`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from k2eg import OperationError, OperationTimeout
from k2eg.broker import SnapshotProperties, SnapshotType
from k2eg.dml import dml
from k2eg.serialization import NTTable, Scalar, Vector

PATIENCE = 25.0  # seconds until something that should happen is missing
LIMIT = 90.0  # seconds for one operation; a client that never returns must not hold up the others
QUIET = 0.8  # seconds in which nothing more may come, or the counter of 10 Hz has long counted
WINDOW = 400  # milliseconds of a recurring snapshot
PUSH = 100  # milliseconds between its partial pushes
SEEN = 400  # characters of an error
STILL = {"still1": 41.0, "still2": 42.0, "still3": 43.0, "still4": 44.0}

Operation = Callable[["Site"], None]
OPERATIONS: dict[str, Operation] = {}


def operation(name: str) -> Callable[[Operation], Operation]:
    """Adds a function to the operations under a name."""

    def add(function: Operation) -> Operation:
        OPERATIONS[name] = function
        return function

    return add


class Calls:
    """The calls of a handler."""

    def __init__(self) -> None:
        self.made: list[tuple[str, Any]] = []
        self._changed = threading.Condition()

    def __call__(self, name: str, value: Any) -> None:
        with self._changed:
            self.made.append((name, value))
            self._changed.notify_all()

    def until(self, enough: Callable[[list[tuple[str, Any]]], object], seconds: float = PATIENCE) -> bool:
        """Returns whether a condition on the calls holds within a time."""
        with self._changed:
            return bool(self._changed.wait_for(lambda: enough(self.made), seconds))

    def count(self, number: int) -> list[tuple[str, Any]]:
        """Waits for a number of calls; returns all."""
        assert self.until(lambda made: len(made) >= number), f"{len(self.made)} calls of {number}"
        return self.made


class Site:
    """A client and the PVs it uses."""

    def __init__(self, application: str, prefix: str) -> None:
        self.application = application
        self.prefix = prefix
        self.client = dml("site", application)

    def uri(self, name: str, protocol: str = "pva") -> str:
        return f"{protocol}://{self.prefix}{name}"

    def value(self, name: str, protocol: str = "pva") -> Any:
        return self.client.get(self.uri(name, protocol), timeout=PATIENCE)["value"]

    @contextlib.contextmanager
    def monitored(self, *names: str) -> Iterator[Calls]:
        """Monitors PVs within the context, several by one command."""
        calls = Calls()
        if len(names) == 1:
            self.client.monitor(self.uri(names[0]), calls, timeout=PATIENCE)
        else:
            self.client.monitor_many([self.uri(name) for name in names], calls, timeout=PATIENCE)
        try:
            yield calls
        finally:
            for name in names:
                self.client.stop_monitor(self.prefix + name)

    @contextlib.contextmanager
    def snapshots(self, kind: SnapshotType, names: list[str], **options: Any) -> Iterator[tuple[str, Calls]]:
        """Runs a recurring snapshot within the context; yields its name and the handler's calls."""
        name, calls = f"snap-{uuid.uuid4().hex[:8]}", Calls()
        properties = SnapshotProperties(
            snapshot_name=name,
            time_window=WINDOW,
            type=kind,
            pv_uri_list=[self.uri(pv) for pv in names],
            **options,
        )
        self.client.snapshot_recurring(properties, calls, timeout=PATIENCE)
        try:
            yield name, calls
        finally:
            self.client.snapshot_stop(name, timeout=PATIENCE)

    def iterations(self, calls: Calls, names: list[str], number: int = 4) -> list[dict[str, list[Any]]]:
        """Waits for iterations, checks what all have, and returns their values by PV, without the first.

        The first one may have begun before the client listened.
        """
        made = [data for _, data in calls.count(number)[:number]]
        counts = [data["iteration"] for data in made]
        assert counts == list(range(counts[0], counts[0] + number)), f"iterations {counts}"
        for data in made:
            assert abs(data["timestamp"] / 1000 - time.time()) < 3600, f"time stamp {data['timestamp']}"
        return [{name: data.get(self.prefix + name, []) for name in names} for data in made[1:]]


def failure(kind: type[Exception], call: Callable[[], object]) -> Any:
    """Returns the error of a call that has to fail with it."""
    try:
        returned = call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}, but {returned}")


@operation("group name: any object")
def _(site: Site) -> None:
    second = dml("site", site.application, uuid.uuid1())
    try:
        assert second.get(site.uri("still1"), timeout=PATIENCE)["value"] == STILL["still1"]
    finally:
        second.close()


def refuse_uri(uri: str) -> Operation:
    def check(site: Site) -> None:
        error = failure(ValueError, lambda: site.client.get(uri, timeout=PATIENCE))
        assert re.search("url.*not.*formed", str(error)), error

    return check


operation("URI without protocol: ValueError, text")(refuse_uri("//bad:pv:name"))
operation("URI without name: ValueError, text")(refuse_uri("pva://"))
operation("URI with another protocol: ValueError, text")(refuse_uri("unknown://name"))


@operation("get, PVAccess")
def _(site: Site) -> None:
    found = site.client.get(site.uri("still1"), timeout=PATIENCE)
    assert found["value"] == STILL["still1"], found
    assert {"value", "alarm", "timeStamp"} <= set(found), found


@operation("get, Channel Access")
def _(site: Site) -> None:
    assert site.value("still2", "ca") == STILL["still2"]


@operation("get of a table")
def _(site: Site) -> None:
    assert list(site.value("table")) == ["element", "s"], site.value("table")


@operation("get, no such PV: OperationTimeout in the client's time, text")
def _(site: Site) -> None:
    error = failure(OperationTimeout, lambda: site.client.get(site.uri("missing"), timeout=0.5))
    assert str(error).startswith("Timeout"), error


@operation("get, no such PV: OperationError from the gateway")
def _(site: Site) -> None:
    error = failure(OperationError, lambda: site.client.get(site.uri("missing")))
    assert error.error < 0, error


@operation("put of a scalar, and what depends on it")
def _(site: Site) -> None:
    for value in (2.5, -1.5):
        site.client.put(site.uri("setpoint"), Scalar("value", value), timeout=PATIENCE)
        assert site.value("setpoint") == value, site.value("setpoint")


@operation("put, Channel Access")
def _(site: Site) -> None:
    site.client.put(site.uri("setpoint", "ca"), Scalar("value", 3.5), timeout=PATIENCE)
    assert site.value("setpoint", "ca") == 3.5, site.value("setpoint", "ca")


@operation("put of an array")
def _(site: Site) -> None:
    site.client.put(site.uri("wave"), Vector("value", [4.0, 5.5]), timeout=PATIENCE)
    assert list(site.value("wave")) == [4.0, 5.5], site.value("wave")


@operation("put of a table")
def _(site: Site) -> None:
    table = NTTable(labels=["element", "s"])
    table.set_column("element", ["Q1", "Q2"])
    table.set_column("s", [0.5, 1.5])
    site.client.put(site.uri("table"), table, timeout=PATIENCE)
    found = site.value("table")
    assert {label: list(column) for label, column in found.items()} == table.payload, found


@operation("put of a text to a number: OperationError")
def _(site: Site) -> None:
    before = site.value("setpoint")
    garbage = Scalar("value", "garbage")
    error = failure(OperationError, lambda: site.client.put(site.uri("setpoint"), garbage, timeout=PATIENCE))
    assert error.error < 0, error
    assert site.value("setpoint") == before


@operation("put, no such PV: OperationTimeout in the client's time, text")
def _(site: Site) -> None:
    zero = Scalar("value", 0)
    error = failure(OperationTimeout, lambda: site.client.put(site.uri("missing"), zero, timeout=0.5))
    assert str(error).startswith("Timeout"), error


@operation("put, no such PV: OperationError from the gateway")
def _(site: Site) -> None:
    error = failure(OperationError, lambda: site.client.put(site.uri("missing"), Scalar("value", 0)))
    assert error.error < 0, error


@operation("monitor")
def _(site: Site) -> None:
    with site.monitored("count1") as calls:
        made = calls.count(5)
        assert {name for name, _ in made} == {site.prefix + "count1"}, made
        values = [value["value"] for _, value in made]  # in any order: released clients use a pool of threads
        assert max(values) - min(values) >= 2, f"values {values}"
        assert len(set(values)) >= 0.8 * (max(values) - min(values)), f"values {values}"


@operation("monitor: first value of a PV that never changes")
def _(site: Site) -> None:
    with site.monitored("still1") as calls:
        assert calls.count(1)[0][1]["value"] == STILL["still1"], calls.made


@operation("monitor: the same PV again after stop_monitor")
def _(site: Site) -> None:
    with site.monitored("still1") as calls:
        assert calls.count(1)[0][1]["value"] == STILL["still1"], calls.made


@operation("stop_monitor: no more calls")
def _(site: Site) -> None:
    with site.monitored("count1") as calls:
        calls.count(2)
    time.sleep(QUIET)  # what was on its way
    before = len(calls.made)
    time.sleep(QUIET)
    assert len(calls.made) == before, f"{len(calls.made) - before} calls"


@operation("monitor, no such PV: no call and no error")
def _(site: Site) -> None:
    with site.monitored("missing") as calls:
        time.sleep(QUIET)
    assert not calls.made, calls.made


@operation("monitor_many")
def _(site: Site) -> None:
    with site.monitored("count2", "count3") as calls:
        wanted = {site.prefix + "count2", site.prefix + "count3"}
        assert calls.until(lambda made: {name for name, _ in made} == wanted), calls.made


@operation("monitor_many: first values of PVs that never change")
def _(site: Site) -> None:
    names = list(STILL)[1:]  # the first one has had a monitor
    with site.monitored(*names) as calls:
        calls.until(lambda made: {name for name, _ in made} >= {site.prefix + name for name in names})
        found = {name.removeprefix(site.prefix): value["value"] for name, value in calls.made}
        assert found == {name: STILL[name] for name in names}, found


@operation("snapshot with a handler")
def _(site: Site) -> None:
    calls = Calls()
    asked = site.client.snapshot([site.uri(name) for name in STILL], calls)
    name, data = calls.count(1)[0]
    assert name == asked, name
    assert {pv: data[site.prefix + pv][0]["value"] for pv in STILL} == STILL, data


@operation("snapshot_sync")
def _(site: Site) -> None:
    data = site.client.snapshot_sync([site.uri(name) for name in STILL], timeout=PATIENCE)
    assert {pv: data[site.prefix + pv][0]["value"] for pv in STILL} == STILL, data


@operation("snapshot_sync: a PV is missing")
def _(site: Site) -> None:
    data = site.client.snapshot_sync([site.uri("still1"), site.uri("missing")], timeout=PATIENCE)
    assert data[site.prefix + "still1"][0]["value"] == STILL["still1"], data
    assert not data.get(site.prefix + "missing"), data


@operation("recurring snapshot, normal")
def _(site: Site) -> None:
    names = ["count1", "count2", *STILL]
    with site.snapshots(SnapshotType.NORMAL, names) as (_, calls):
        for values in site.iterations(calls, names):
            assert all(len(found) == 1 for found in values.values()), values
            assert {name: values[name][0]["value"] for name in STILL} == STILL, values


def check_counters(found: list[dict[str, list[Any]]], names: list[str]) -> None:
    """Asserts that the steps of counters are there and in order, over the borders of iterations.

    A PV without a new value in a window may have its last one, and on a busy machine a step may be missing.
    """
    for name in names:
        steps = [value["value"] for values in found for value in values[name]]
        assert steps == sorted(steps), f"{name}: {steps}"
        assert len(set(steps)) >= max(2, 0.8 * (steps[-1] - steps[0] + 1)), f"{name}: {steps}"


COUNTERS = ["count1", "count2", "count3"]


@operation("recurring snapshot, timed-buffered")
def _(site: Site) -> None:
    with site.snapshots(SnapshotType.TIMED_BUFFERED, COUNTERS) as (_, calls):
        check_counters(site.iterations(calls, COUNTERS), COUNTERS)


@operation("recurring snapshot, pushed in parts")
def _(site: Site) -> None:
    with site.snapshots(SnapshotType.TIMED_BUFFERED, COUNTERS, sub_push_delay_msec=PUSH) as (_, calls):
        check_counters(site.iterations(calls, COUNTERS), COUNTERS)


@operation("recurring snapshot, pushed in parts, some fields")
def _(site: Site) -> None:
    fields = ["value", "timeStamp", "alarm"]
    options = {"sub_push_delay_msec": PUSH, "pv_field_filter_list": fields}
    with site.snapshots(SnapshotType.TIMED_BUFFERED, COUNTERS, **options) as (_, calls):
        found = site.iterations(calls, COUNTERS)
        check_counters(found, COUNTERS)
        kept = [set(value) for values in found for name in COUNTERS for value in values[name]]
        assert all(names == set(fields) for names in kept), kept


def trigger(site: Site, name: str, calls: Calls, seconds: float) -> bool:
    """Triggers a snapshot; returns whether the handler was called within a time."""
    before = len(calls.made)
    site.client.snapshost_trigger(name, timeout=PATIENCE)
    return calls.until(lambda made: len(made) > before, seconds)


@operation("recurring snapshot, triggered: as many calls as triggers")
def _(site: Site) -> None:
    names = ["count1", *STILL]
    with site.snapshots(SnapshotType.NORMAL, names, triggered=True) as (name, calls):
        # A client may listen later than its call returns; what was triggered before that does not count.
        assert any(trigger(site, name, calls, 2.0) for _ in range(10)), "no call"
        time.sleep(QUIET)
        before = len(calls.made)
        for _ in range(3):
            assert trigger(site, name, calls, PATIENCE), f"{len(calls.made) - before} calls"
        values = [data.get(f"{site.prefix}still1", []) for _, data in calls.made[before:]]
        assert [[value["value"] for value in found] for found in values] == [[STILL["still1"]]] * 3, values
    time.sleep(QUIET)
    assert len(calls.made) == before + 3, f"{len(calls.made) - before} calls for 3 triggers and a stop"


@operation("snapshot_stop: no more calls")
def _(site: Site) -> None:
    with site.snapshots(SnapshotType.NORMAL, ["count1"]) as (_, calls):
        calls.count(1)
    time.sleep(QUIET)  # what was on its way
    before = len(calls.made)
    time.sleep(QUIET)
    assert len(calls.made) == before, f"{len(calls.made) - before} calls"


def run(site: Site, name: str) -> dict[str, Any]:
    """Runs an operation; returns what is printed about it."""
    outcome: dict[str, Any] = {"operation": name, "passed": False, "seen": f"it did not return within {LIMIT:g} s"}

    def attempt() -> None:
        try:
            OPERATIONS[name](site)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            outcome["seen"] = f"{type(error).__name__}: {str(error)[:SEEN]} ({place.lineno})"
        else:
            outcome.update(passed=True, seen="")

    began = time.monotonic()
    attempting = threading.Thread(target=attempt, daemon=True)
    attempting.start()
    attempting.join(LIMIT)
    return outcome | {"seconds": round(time.monotonic() - began, 1)}


def end_with_the_input() -> None:
    """Ends the process when its standard input is closed, as it is when the tests are killed."""
    sys.stdin.read()
    os._exit(1)


def main(application: str, prefix: str) -> None:
    threading.Thread(target=end_with_the_input, daemon=True).start()
    site = Site(application, prefix)
    for name in OPERATIONS:
        print(json.dumps(run(site, name)), flush=True)
    site.client.close()
    sys.stdout.flush()
    os._exit(0)  # threads of operations that did not return


if __name__ == "__main__":
    main(*sys.argv[1:])
