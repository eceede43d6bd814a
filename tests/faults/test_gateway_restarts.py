"""The gateway dies and another one takes its place: it knows nothing of monitors and snapshots until it is asked."""

from __future__ import annotations

import threading
from typing import Any

from k2eg_rx import Snapshot, SnapshotProperties

PVS = 5
NEXT = 1_000_000  # the first value of the second gateway's PVs
SILENCE = 2.0  # seconds until the client asks again
PATIENCE = 120.0  # seconds until something that should happen is missing; a green test never waits that long


def test_monitors_and_recurring_snapshots_come_back_by_themselves(site: Any, witness: Any) -> None:
    before = site.gateway()
    client = site.client(silence=SILENCE)
    uris = site.uris(PVS)
    changed = threading.Condition()
    snapshots: list[Snapshot] = []

    def keep(snapshot: Snapshot) -> None:
        with changed:
            snapshots.append(snapshot)
            changed.notify_all()

    properties = SnapshotProperties(snapshot_name=f"recurring-{site.name}", pv_uri_list=uris, time_window=200)
    client.monitor_many_stream(uris).subscribe(witness.see, witness.end, witness.end)
    client.snapshot_recurring_stream(properties).subscribe(keep, witness.end, witness.end)
    witness.wait_until(lambda: len(witness.values) == PVS, "all PVs")
    witness.wait_for_progress()
    with changed:
        assert changed.wait_for(lambda: len(snapshots) >= 2, PATIENCE)

    before.kill()
    after = site.gateway(first=NEXT)

    witness.wait_until(lambda: all(values[-1] >= NEXT for values in witness.values.values()), "the second gateway's")
    witness.wait_for_progress()
    names = [uri.removeprefix("pva://") for uri in uris]

    def of_the_second(snapshot: Snapshot) -> bool:
        samples = snapshot.as_dict()
        return all(any(sample["value"] >= NEXT for sample in samples[name]) for name in names)

    with changed:
        assert changed.wait_for(lambda: any(map(of_the_second, snapshots)), PATIENCE), snapshots[-1:]
        number = len(snapshots)
        assert changed.wait_for(lambda: len(snapshots) >= number + 3, PATIENCE), "iterations go on"
    witness.wait_for_last(after.quiet())
    assert witness.ends == []
    for values in witness.values.values():
        assert values == sorted(set(values)), "each once, in order"
        second = [value for value in values if value >= NEXT]
        assert second == list(range(second[0], second[0] + len(second))), "none is missing from the first one on"
