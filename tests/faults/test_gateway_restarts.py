"""A killed gateway is replaced by one without its state; the client requests monitors and snapshots again."""

from __future__ import annotations

import threading
from typing import Any

from k2eg_rx import Snapshot, SnapshotProperties

PVS = 5
SECOND = 1_000_000  # the first value of the second gateway's PVs
SILENCE = 1000.0  # seconds; the second gateway's start makes the client repeat its commands, not silence
PATIENCE = 120.0  # seconds until a test fails; a passing test never waits that long


def test_monitors_and_recurring_snapshots_continue_with_another_gateway(site: Any, collector: Any) -> None:
    before = site.gateway()
    client = site.client(silence=SILENCE)
    uris = site.uris(PVS)
    changed = threading.Condition()
    snapshots: list[Snapshot] = []

    def on_snapshot(snapshot: Snapshot) -> None:
        with changed:
            snapshots.append(snapshot)
            changed.notify_all()

    properties = SnapshotProperties(snapshot_name=f"recurring-{site.name}", pv_uri_list=uris, time_window=200)
    client.monitor_many_stream(uris).subscribe(collector.on_next, collector.on_end, collector.on_end)
    client.snapshot_recurring_stream(properties).subscribe(on_snapshot, collector.on_end, collector.on_end)
    collector.wait_until(lambda: len(collector.values) == PVS, "all PVs")
    collector.wait_for_progress()
    with changed:
        assert changed.wait_for(lambda: len(snapshots) >= 2, PATIENCE)

    before.kill()
    after = site.gateway(first=SECOND)

    collector.wait_until(
        lambda: all(values[-1] >= SECOND for values in collector.values.values()), "values of the second gateway"
    )
    collector.wait_for_progress()
    names = [uri.removeprefix("pva://") for uri in uris]

    def is_from_second(snapshot: Snapshot) -> bool:
        samples = snapshot.as_dict()
        return all(any(sample["value"] >= SECOND for sample in samples[name]) for name in names)

    with changed:
        assert changed.wait_for(lambda: any(map(is_from_second, snapshots)), PATIENCE), snapshots[-1:]
        number = len(snapshots)
        assert changed.wait_for(lambda: len(snapshots) >= number + 3, PATIENCE), "iterations continue"
    collector.wait_for_last_values(after.pause())
    assert collector.ends == []
    for values in collector.values.values():
        assert values == sorted(set(values)), "values repeat or are out of order"
        second = [value for value in values if value >= SECOND]
        assert second == list(range(second[0], second[0] + len(second))), "a value of the second gateway is missing"
