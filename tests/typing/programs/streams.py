# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""`k2eg_rx.Client`: items of streams keep their types in a pipe."""

from typing import Any, assert_type

from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx import (
    Client,
    GetResult,
    Overflow,
    PutResult,
    PVData,
    PVUpdate,
    Reply,
    Samples,
    Severity,
    Snapshot,
    SnapshotData,
    SnapshotHeader,
    SnapshotMessage,
    SnapshotProperties,
    SnapshotTail,
    Status,
    first,
)


def blocking(client: Client) -> None:
    assert_type(client.get("pva://x"), PVData)
    assert_type(client.put("pva://x", 1), Reply)
    assert_type(client.get_many(["pva://x"]), dict[str, GetResult])
    assert_type(client.put_many({"pva://x": 1}), dict[str, PutResult])
    assert_type(client.snapshot(["pva://x"]), Snapshot)


def severity(update: PVUpdate) -> Severity:
    return update.severity


with Client("demo", "my-app", group_name="workers") as client:
    assert_type(client, Client)
    assert_type(client.get_stream("pva://x", timeout=5.0), Observable[PVData])
    assert_type(client.put_stream("pva://x", [1.5, 2.5], check=False), Observable[Reply])
    assert_type(client.monitor_stream("pva://x", overflow="latest"), Observable[PVUpdate])
    assert_type(client.monitor_many_stream(["pva://x"], overflow=Overflow.BLOCK, capacity=10), Observable[PVUpdate])
    assert_type(client.snapshot_stream(["pva://x", "ca://y"]), Observable[Snapshot])
    assert_type(client.status_stream(), Observable[Status])

    pv = first(client.get_stream("pva://x"))
    assert_type(pv, PVData)
    assert_type(pv.data, dict[str, Any])
    assert_type(pv.timestamp, int | None)

    many = client.get_many_stream(["pva://x", "ca://y"], timeout=5.0)
    assert_type(many, Observable[GetResult])
    assert_type(client.put_many_stream({"pva://x": 1, "ca://y": "On"}, check=False), Observable[PutResult])
    results = first(many.pipe(ops.to_list()))
    assert_type(results, list[GetResult])
    assert_type(results[0].result(), PVData)
    assert_type(results[0].error, Exception | None)

    severities = client.monitor_stream("pva://x").pipe(ops.map(severity), ops.distinct_until_changed())
    assert_type(severities, Observable[Severity])

    orbit = SnapshotProperties(snapshot_name="orbit", pv_uri_list=["pva://x"])
    snapshot = first(client.snapshot_recurring_stream(orbit))
    samples = snapshot.data["x"]
    assert_type(samples, Samples)
    assert_type(samples[0], dict[str, Any])
    assert_type(samples[1:], list[dict[str, Any]])
    assert_type(samples["value"], Any)
    assert_type(snapshot.as_dict(), dict[str, Any])

    def show(message: SnapshotMessage) -> str:
        match message:
            case SnapshotHeader():
                return message.snapshot_name
            case SnapshotData():
                return message.pv_name
            case SnapshotTail():
                return message.error_message

    client.snapshot_events_stream(orbit).subscribe(lambda message: print(show(message)))
