# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""`k2eg_rx.aio`: results and items have precise types."""

import asyncio
from contextlib import aclosing
from typing import assert_type

from reactivex import operators as ops

from k2eg_rx import Client, GetResult, PutResult, PVData, PVUpdate, Reply, Snapshot, SnapshotProperties, aio


def value_of(update: PVUpdate) -> float:
    return float(update.value)


async def main() -> None:
    async with aio.Client("demo", "my-app", timeout=5.0) as client:
        assert_type(client, aio.Client)
        assert_type(client.streams, Client)
        assert_type(await client.get("pva://x", timeout=5.0), PVData)
        assert_type(await client.put("pva://x", [1.5], check=False), Reply)
        assert_type(await client.get_many(["pva://x"]), dict[str, GetResult])
        assert_type(await client.put_many({"pva://x": 1, "pva://y": "On"}), dict[str, PutResult])
        assert_type(await client.snapshot(["pva://x"], duration=0.5), Snapshot)
        async with client.monitor("pva://x", overflow="latest") as updates:
            assert_type(updates, aio.Iteration[PVUpdate])
            async for update in updates:
                assert_type(update, PVUpdate)
        async with aclosing(client.snapshot_recurring(SnapshotProperties("s", ["pva://x"]))) as snapshots:
            assert_type(await anext(snapshots), Snapshot)
        values = client.streams.monitor_stream("pva://x").pipe(ops.map(value_of))
        assert_type(await aio.first(values, timeout=1.0), float)
        async for number in aio.iterate(values, capacity=10):
            assert_type(number, float)
        await aio.first(5)  # pyright: ignore[reportArgumentType]
        await client.get(["pva://x"])  # pyright: ignore[reportArgumentType]


asyncio.run(main())
