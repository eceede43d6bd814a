"""Snapshots of `dml` against the real IOC."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from queue import Empty, Queue
from threading import Event
from typing import Any

import pytest

from k2eg import OperationError
from k2eg.broker import SnapshotProperties, SnapshotType
from k2eg.dml import dml
from k2eg_rx.embedded import EmbeddedStack

TIMEOUT = 60.0
URIS = ["pva://demo:ramp100", "ca://demo:mode", "pva://demo:table"]
NAMES = {"demo:ramp100", "demo:mode", "demo:table"}
TIMES = {"timestamp", "iteration", "header_timestamp", "tail_timestamp"}


@pytest.fixture
def k(stack: EmbeddedStack, fresh_app_name: str) -> Iterator[dml]:
    with dml("demo", fresh_app_name, settings=stack.settings(fresh_app_name)) as client:
        yield client


class Handler:
    """A handler whose calls can be waited for."""

    def __init__(self) -> None:
        self.calls: Queue[tuple[str, dict[str, Any]]] = Queue()

    def __call__(self, name: str, data: dict[str, Any]) -> None:
        self.calls.put((name, data))

    def take(self, count: int) -> list[dict[str, Any]]:
        return [self.calls.get(timeout=TIMEOUT)[1] for _ in range(count)]


def test_snapshot_sync_returns_all_pvs(k: dml) -> None:
    result = k.snapshot_sync(URIS, timeout=TIMEOUT)
    assert result["error"] == 0
    assert set(result["snapshot"]) == NAMES
    assert set(result) == NAMES | {"error", "snapshot"}
    assert result["demo:mode"][0]["value"] == result["snapshot"]["demo:mode"]["value"]
    assert isinstance(result["demo:ramp100"]["value"], float)


def test_a_pv_without_data_has_an_empty_list(k: dml) -> None:
    result = k.snapshot_sync(["pva://demo:sum", "pva://no:such:pv"], timeout=TIMEOUT)
    assert result["no:such:pv"] == []
    assert result["demo:sum"]["alarm"]["severity"] == 0
    with pytest.raises(KeyError, match="no data of this PV"):
        result["no:such:pv"]["value"]


def test_a_snapshot_calls_its_handler_with_the_id_returned(k: dml) -> None:
    handler = Handler()
    ids = [k.snapshot(URIS, handler) for _ in range(2)]
    calls = [handler.calls.get(timeout=TIMEOUT) for _ in ids]
    assert sorted(name for name, _ in calls) == sorted(ids)
    assert all(set(data) == NAMES and all(data.values()) for _, data in calls)


def test_a_recurring_snapshot_calls_its_handler_with_each_iteration(k: dml, fresh_app_name: str) -> None:
    handler = Handler()
    properties = SnapshotProperties(snapshot_name=fresh_app_name, pv_uri_list=URIS, time_window=100)
    assert k.snapshot_recurring(properties, handler, timeout=TIMEOUT)["error"] == 0
    iterations = handler.take(4)
    assert k.snapshot_stop(fresh_app_name, timeout=TIMEOUT)["error"] == 0
    assert [iteration["iteration"] for iteration in iterations] == [1, 2, 3, 4]
    assert all(set(iteration) == NAMES | TIMES for iteration in iterations)
    assert all(
        iteration["header_timestamp"] <= iteration["tail_timestamp"] == iteration["timestamp"]
        for iteration in iterations
    )
    assert all(earlier["timestamp"] < later["timestamp"] for earlier, later in pairwise(iterations))
    assert [len(iteration["demo:mode"]) for iteration in iterations] == [1] * 4
    assert iterations[-1]["demo:ramp100"][0]["value"] == iterations[-1]["demo:ramp100"]["value"]


def test_a_triggered_snapshot_has_an_iteration_per_trigger_and_none_at_its_stop(k: dml, fresh_app_name: str) -> None:
    handler = Handler()
    properties = SnapshotProperties(snapshot_name=fresh_app_name, pv_uri_list=["pva://demo:sum"], triggered=True)
    k.snapshot_recurring(properties, handler, timeout=TIMEOUT)
    for number, trigger in enumerate([k.snapshost_trigger, k.snapshot_trigger], start=1):
        assert trigger(fresh_app_name, timeout=TIMEOUT)["error"] == 0
        assert [iteration["iteration"] for iteration in handler.take(1)] == [number]
    ended = Event()
    k.snapshot_recurring_stream(properties).subscribe(on_completed=ended.set)
    k.snapshot_stop(fresh_app_name, timeout=TIMEOUT)
    assert ended.wait(TIMEOUT)
    with pytest.raises(Empty):
        handler.calls.get(block=False)


def test_a_buffered_snapshot_has_every_value_with_the_filtered_fields(k: dml, fresh_app_name: str) -> None:
    handler = Handler()
    properties = SnapshotProperties(
        snapshot_name=fresh_app_name,
        pv_uri_list=["pva://demo:ramp100"],
        time_window=500,
        sub_push_delay_msec=100,
        type=SnapshotType.TIMED_BUFFERED,
        pv_field_filter_list=["value"],
    )
    k.snapshot_recurring(properties, handler, timeout=TIMEOUT)
    iterations = handler.take(3)
    k.snapshot_stop(fresh_app_name)
    ramp = [sample["value"] for iteration in iterations for sample in iteration["demo:ramp100"]]
    assert len(ramp) > 50
    assert all((later - earlier) % 100 == 1 for earlier, later in pairwise(ramp)), ramp
    assert all(set(sample) == {"value"} for iteration in iterations for sample in iteration["demo:ramp100"])


def test_a_filter_for_a_field_that_a_pv_lacks_is_rejected(k: dml, fresh_app_name: str) -> None:
    properties = SnapshotProperties(
        snapshot_name=fresh_app_name,
        pv_uri_list=["pva://demo:sum", "ca://demo:mode"],
        type="timedbuffered",
        pv_field_filter_list=["value", "display"],
    )
    with pytest.raises(ValueError, match="ca://demo:mode has no field 'display'"):
        k.snapshot_recurring(properties, print, timeout=TIMEOUT)


def test_a_name_can_be_used_again_after_its_stop(k: dml, fresh_app_name: str) -> None:
    for window in (100, 200):
        handler = Handler()
        properties = SnapshotProperties(
            snapshot_name=fresh_app_name, pv_uri_list=["pva://demo:sum"], time_window=window
        )
        k.snapshot_recurring(properties, handler, timeout=TIMEOUT)
        while handler.take(1)[0]["iteration"] != 1:
            pass  # the last iteration of the run before, which may reach Kafka after the reply to its stop
        assert handler.take(1)[0]["iteration"] == 2
        k.snapshot_stop(fresh_app_name, timeout=TIMEOUT)


def test_a_trigger_of_an_unknown_snapshot_raises(k: dml, fresh_app_name: str) -> None:
    with pytest.raises(OperationError, match="-2"):
        k.snapshost_trigger(fresh_app_name, timeout=TIMEOUT)
    assert k.snapshot_stop(fresh_app_name, timeout=TIMEOUT)["error"] == 0
