"""`aio.Client` against the real IOC."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
from reactivex import operators as ops

from k2eg_rx import OperationTimeout, PVUpdate, SnapshotProperties, aio
from k2eg_rx.embedded import EmbeddedStack

TIMEOUT = 60.0

Run = Callable[[Callable[[aio.Client], Awaitable[Any]]], Any]


@pytest.fixture
def run(stack: EmbeddedStack, fresh_app_name: str) -> Run:
    """Runs a coroutine with a connected client."""

    def with_client(main: Callable[[aio.Client], Awaitable[Any]]) -> Any:
        async def connected() -> Any:
            settings = stack.settings(fresh_app_name)
            async with asyncio.timeout(50), aio.Client("demo", fresh_app_name, settings=settings) as client:
                return await main(client)

        return asyncio.run(connected())

    return with_client


def test_gets_puts_and_snapshots_are_awaited(run: Run) -> None:
    async def main(client: aio.Client) -> None:
        assert (await client.put("pva://demo:setpoint1", 2, TIMEOUT)).error == 0
        assert (await client.get("ca://demo:setpoint1", TIMEOUT)).value == 2.0
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(client.get("pva://demo:setpoint1", TIMEOUT)) for _ in range(20)]
        assert {task.result().value for task in tasks} == {2.0}
        replies = await client.put_many({"pva://demo:setpoint1": 5, "ca://demo:setpoint2": 6}, TIMEOUT)
        assert all(reply.error is None for reply in replies.values())
        results = await client.get_many(["pva://demo:dead", "pva://demo:setpoint1", "ca://demo:setpoint2"], 5.0)
        assert [result.data and result.data.value for result in results.values()] == [None, 5.0, 6.0]
        assert isinstance(results["pva://demo:dead"].error, OperationTimeout)
        snapshot = await client.snapshot(["pva://demo:setpoint1", "ca://demo:setpoint2"], TIMEOUT)
        assert {name: samples["value"] for name, samples in snapshot.data.items()} == {
            "demo:setpoint1": 5.0,
            "demo:setpoint2": 6.0,
        }

    run(main)


def test_a_slow_loop_loses_nothing_and_other_tasks_run(run: Run) -> None:
    async def main(client: aio.Client) -> None:
        ramp: list[float] = []
        async with client.monitor("pva://demo:ramp100", capacity=4) as updates:
            async for update in updates:
                assert isinstance(update, PVUpdate)
                ramp.append(update.value)
                await client.get("pva://demo:setpoint1", TIMEOUT)  # some 10 ms: about as fast as the PV
                if len(ramp) == 100:
                    break
        assert updates.dropped == 0
        assert all((later - earlier) % 100 == 1 for earlier, later in pairwise(ramp)), ramp
        assert client.streams.status.monitors == 0

    run(main)


def test_iterating_over_a_stream_with_operators(run: Run) -> None:
    async def main(client: aio.Client) -> None:
        def value(update: PVUpdate) -> float:
            return update.value

        pairs = client.streams.monitor_stream("ca://demo:ramp10").pipe(ops.map(value), ops.buffer_with_count(2))
        async with aio.iterate(pairs, overflow="latest") as items:
            first, second = await anext(items)
            assert (second - first) % 100 == 1
        high = client.streams.monitor_stream("pva://demo:ramp100").pipe(
            ops.map(value), ops.filter(lambda v: v % 10 == 0)
        )
        assert await aio.first(high, TIMEOUT) % 10 == 0

    run(main)


def test_iterating_over_recurring_snapshots(run: Run, fresh_app_name: str) -> None:
    async def main(client: aio.Client) -> list[int]:
        properties = SnapshotProperties(fresh_app_name, ["pva://demo:ramp10", "ca://demo:sine10"], time_window=200)
        iterations: list[int] = []
        async with client.snapshot_recurring(properties) as snapshots:
            async for snapshot in snapshots:
                assert set(snapshot.data) == {"demo:ramp10", "demo:sine10"}
                iterations.append(snapshot.iteration)
                if len(iterations) == 3:
                    await client.snapshot_stop(fresh_app_name, TIMEOUT)
                    break
        return iterations

    iterations = run(main)
    assert iterations == list(range(iterations[0], iterations[0] + 3))
