# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""Operators keep the types of items in a pipe and declare the types that they emit."""

import math
from typing import Any, assert_type

from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx import Client, PVUpdate, Severity, SnapshotProperties
from k2eg_rx.operators import (
    AlarmTransition,
    PutOutcome,
    PutReport,
    PutStepReport,
    Resampled,
    Staleness,
    alarms,
    changed,
    combine_pvs,
    conflate,
    field,
    latest_by_pv,
    put_many_to,
    put_to,
    rate_limit,
    resample,
    retry_activation,
    sample_latest,
    stale,
    timestamps,
    value,
)


def doubled(number: float) -> float:
    return 2.0 * number


def vector_of(update: PVUpdate) -> list[float]:
    return [float(update.value)]


def product(values: dict[str, Any]) -> float:
    return values["x"] * values["y"]


with Client("demo", "my-app") as client:
    updates = client.monitor_many_stream(["pva://x", "ca://y"])

    assert_type(updates.pipe(value()), Observable[Any])
    assert_type(updates.pipe(field("alarm.severity")), Observable[Any])
    assert_type(updates.pipe(timestamps()), Observable[int | None])

    assert_type(updates.pipe(changed(0.1, relative=0.01)), Observable[PVUpdate])
    assert_type(updates.pipe(timestamps(), changed()), Observable[int | None])
    assert_type(updates.pipe(conflate(10)), Observable[PVUpdate])
    assert_type(updates.pipe(sample_latest(2.0)), Observable[PVUpdate])
    assert_type(updates.pipe(rate_limit(2, capacity=50)), Observable[PVUpdate])
    assert_type(updates.pipe(retry_activation(attempts=3)), Observable[PVUpdate])

    assert_type(updates.pipe(alarms(Severity.MAJOR)), Observable[AlarmTransition])
    assert_type(updates.pipe(stale(5.0, pvs=["pva://x"])), Observable[Staleness])
    assert_type(updates.pipe(latest_by_pv()), Observable[dict[str, PVUpdate]])
    assert_type(updates.pipe(resample(120.0, pvs=["x", "y"])), Observable[Resampled])
    snapshots = client.snapshot_recurring_stream(SnapshotProperties("s", ["pva://x"]))
    assert_type(snapshots.pipe(resample(120.0, fill="linear")), Observable[Resampled])
    assert_type(
        updates.pipe(combine_pvs({"x": "pva://x", "t": updates.pipe(timestamps())})), Observable[dict[str, Any]]
    )

    writing = updates.pipe(
        retry_activation(),
        changed(),
        combine_pvs(["pva://x", "ca://y"], incomplete="fill_none", defaults={"x": 0.0}),
        ops.map(product),
        ops.map(doubled),
        put_to(client, "pva://z", limits=(-math.inf, 5.0), on_limit="refuse", rate=2.0, dry_run=True),
    )
    assert_type(writing, Observable[PutReport])

    def show(entry: PutReport) -> None:
        assert_type(entry.outcome, PutOutcome)
        assert_type(entry.value, float | None)
        print(entry)

    writing.subscribe(show)

    steps = updates.pipe(ops.map(vector_of), put_many_to(client, ["pva://z"], limits=(0, 1), max_step={"pva://z": 1}))
    assert_type(steps, Observable[PutStepReport])
    put_to(client, "pva://z", limits=(0, 1), on_step="hope")  # pyright: ignore[reportArgumentType]

    updates.pipe(changed("0.1"))  # pyright: ignore[reportArgumentType]
    updates.pipe(combine_pvs(["x"], incomplete="hope"))  # pyright: ignore[reportArgumentType]
    put_to(client, "pva://z")  # pyright: ignore[reportCallIssue]
    put_to(print, "pva://z", limits=(0, 1))  # pyright: ignore[reportArgumentType]
    client.monitor_stream("pva://x").pipe(timestamps(), alarms())  # pyright: ignore[reportArgumentType]
