"""`aio.Client` against a gateway that the test plays: replies and events arrive on any thread."""

import asyncio
import doctest
import importlib
import inspect
import threading
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

import k2eg_rx
from k2eg_rx import (
    ClientClosedError,
    OperationError,
    OperationTimeout,
    PVUpdate,
    SnapshotProperties,
    aio,
)
from k2eg_rx.testing import ScriptedGateway

SETTINGS = k2eg_rx.Settings("scripted", "nowhere:9092", "commands", "test-reply")
KNOWN = {"pva://x": {"value": 1}, "ca://y": {"value": 2.5}}


class ReplyingGateway:
    """A gateway that replies at once to commands about known PVs and ignores the others.

    Args:
        transport: The scripted transport.
    """

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        send = transport.out.send

        def send_and_reply(*arguments: Any, **options: Any) -> None:
            send(*arguments, **options)
            self.reply(transport.commands[-1])

        transport.out.send = send_and_reply

    def reply(self, command: dict[str, Any]) -> None:
        uri = command.get("pv_name")
        match command["command"]:
            case "get" if uri in KNOWN:
                self.transport.reply(command, **{uri.partition("://")[2]: KNOWN[uri]})
            case "get" if uri == "pva://failing":
                self.transport.reply(command, error=-3, message="Timeout operation")
            case "put" if uri in KNOWN:
                self.transport.reply(command, message="Successfull operation")
            case "snapshot":
                self.transport.reply(command, x=KNOWN["pva://x"])
                self.transport.reply(command, error=1)
            case "monitor" | "repeating_snapshot" | "repeating_snapshot_stop" | "repeating_snapshot_trigger":
                self.transport.reply(command)
            case _:
                pass


Run = Callable[[Callable[[aio.Client], Awaitable[Any]]], Any]


@pytest.fixture
def run(transport: Any) -> Iterator[Run]:
    """Runs a coroutine with a client that is connected to a replying gateway."""
    ReplyingGateway(transport)

    def with_client(main: Callable[[aio.Client], Awaitable[Any]]) -> Any:
        async def connected() -> Any:
            async with aio.Client("scripted", "test", settings=SETTINGS, transport=transport) as client:
                return await main(client)

        return asyncio.run(connected())

    yield with_client
    for thread in threading.enumerate():
        if thread.name.startswith("k2eg-aio"):
            thread.join(10)
            assert not thread.is_alive()


def test_get_and_put(run: Run, transport: Any) -> None:
    async def main(client: aio.Client) -> Any:
        reply = await client.put("pva://x", 5)
        return (await client.get("pva://x")).value, reply.message

    assert run(main) == (1, "Successfull operation")
    assert [command["command"] for command in transport.commands] == ["get", "put", "get"]


def test_failures_are_raised(run: Run) -> None:
    async def main(client: aio.Client) -> None:
        with pytest.raises(OperationError):
            await client.get("pva://failing")
        with pytest.raises(OperationTimeout):
            await client.get("pva://silent", timeout=0.01)
        with pytest.raises(ValueError, match="pva://x"):
            await client.put("pva://x", "not a number")
        with pytest.raises(ValueError, match="bad"):
            await client.get("bad")

    run(main)


def test_get_many_and_put_many_return_a_result_per_pv(run: Run) -> None:
    async def main(client: aio.Client) -> Any:
        got = await client.get_many(["ca://y", "pva://failing", "pva://x", "ca://y"], timeout=5.0)
        put = await client.put_many({"pva://x": 3, "ca://y": "wrong"}, timeout=5.0)
        with pytest.raises(ValueError, match="URIs"):
            await client.get_many("pva://x")
        return got, put

    got, put = run(main)
    assert [(uri, result.error is None) for uri, result in got.items()] == [
        ("ca://y", True),
        ("pva://failing", False),
        ("pva://x", True),
    ]
    assert got["ca://y"].result().value == 2.5
    assert put["pva://x"].result().error == 0
    assert isinstance(put["ca://y"].error, ValueError)


def test_snapshots(run: Run, transport: Any) -> None:
    async def main(client: aio.Client) -> Any:
        snapshot = await client.snapshot(["pva://x"], duration=0.5)
        async with client.snapshot_recurring(SnapshotProperties("s", ["pva://x"], triggered=True)) as snapshots:
            assert (await client.snapshot_trigger("s")).error == 0
            common = {"timestamp": 1, "iter_index": 1}
            transport.messages(
                "s",
                "s",
                {"message_type": 0, "snapshot_name": "s", **common},
                {"message_type": 1, **common, "x": {"value": 9}},
                {"message_type": 2, "error": 0, "snapshot_name": "s", **common},
            )
            recurring = await anext(snapshots)
            await client.snapshot_stop("s")
        return snapshot.data, recurring.data

    assert run(main) == ({"x": [{"value": 1}]}, {"x": [{"value": 9}]})


def test_monitors(run: Run, transport: Any) -> None:
    async def main(client: aio.Client) -> list[Any]:
        seen: list[Any] = []
        async with client.monitor("pva://x") as updates:
            transport.event("x", "x", *range(3000))
            async for update in updates:
                assert isinstance(update, PVUpdate)
                seen.append(update.value)
                if len(seen) == 3000:
                    break
        assert transport.event_source.topics == []
        async with client.monitor_many(["pva://x", "ca://y"], overflow="latest") as updates:
            transport.event("y", "y", 7)
            seen.append((await anext(updates)).value)
        return seen

    assert run(main) == [*range(3000), 7]


def test_a_monitor_can_start_in_the_past() -> None:
    async def main(gateway: ScriptedGateway) -> list[Any]:
        x = gateway.pv("x", 0)
        async with aio.Client("any", "test") as client:
            async with client.monitor("pva://x") as updates:  # a PV that is not monitored is not in Kafka
                for number in (1, 2):
                    await anext(updates)
                    x.post(number)
                await anext(updates)
            async with client.monitor("pva://x", since=timedelta(hours=1)) as updates:
                return [(update.value, update.replayed) for update in [await anext(updates) for _ in range(3)]]

    with ScriptedGateway() as gateway, gateway.clock.running():
        assert asyncio.run(main(gateway)) == [(0, True), (1, True), (2, True)]


def test_a_monitor_sends_nothing_before_it_is_iterated_over(run: Run, transport: Any) -> None:
    async def main(client: aio.Client) -> None:
        client.monitor("pva://x")
        with pytest.raises(ValueError, match="newest"):
            client.monitor("pva://x", overflow="newest")
        with pytest.raises(ValueError, match=r"capacity"):
            client.monitor("pva://x", capacity=0)

    run(main)
    assert transport.commands == []


def test_streams_is_the_reactive_client(run: Run) -> None:
    async def main(client: aio.Client) -> Any:
        assert isinstance(client.streams, k2eg_rx.Client)
        return (await aio.first(client.streams.get_stream("pva://x"))).value

    assert run(main) == 1


def test_cancelling_an_operation_removes_it_from_the_pending_ones(run: Run) -> None:
    async def main(client: aio.Client) -> int:
        task = asyncio.create_task(client.get("pva://silent"))
        while client.streams.status.pending == 0:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        many = asyncio.create_task(client.get_many(["pva://silent", "pva://other"]))
        while client.streams.status.pending < 2:
            await asyncio.sleep(0)
        many.cancel()
        with pytest.raises(asyncio.CancelledError):
            await many
        while client.streams.status.pending:  # the sending thread may still be running
            await asyncio.sleep(0)
        return client.streams.status.pending

    assert run(main) == 0


def test_close_fails_pending_operations_and_ends_iterations(run: Run, transport: Any) -> None:
    async def main(client: aio.Client) -> Any:
        get = asyncio.create_task(client.get("pva://silent"))
        many = asyncio.create_task(client.get_many(["pva://x", "pva://silent"]))
        while client.streams.status.pending < 2:
            await asyncio.sleep(0)

        async def follow() -> list[int]:
            return [update.value async for update in client.monitor("pva://x")]

        updates = asyncio.create_task(follow())
        while client.streams.status.monitors == 0:
            await asyncio.sleep(0)
        await client.close()
        await client.close()
        with pytest.raises(ClientClosedError):
            await get
        results = await many
        assert results["pva://x"].result().value == 1
        assert isinstance(results["pva://silent"].error, ClientClosedError)
        assert await updates == []
        with pytest.raises(ClientClosedError):
            await client.get("pva://x")
        with pytest.raises(ClientClosedError):
            client.monitor("pva://x")
        return transport.closed

    assert run(main) is True


def test_commands_not_sent_before_close_have_an_error(run: Run, transport: Any) -> None:
    async def main(client: aio.Client) -> Any:
        send = transport.out.send

        def send_and_close(*arguments: Any, **options: Any) -> None:
            send(*arguments, **options)
            client.streams.close()

        transport.out.send = send_and_close
        return await client.get_many(["pva://x", "ca://y"])

    got = run(main)
    assert [type(result.error) for result in got.values()] == [type(None), ClientClosedError]


def test_close_releases_blocked_threads_at_once(run: Run, transport: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    full = threading.Semaphore(0)
    from k2eg_rx.concurrency.worker_pool import WorkerPool, blocking_section

    def watched() -> Any:
        full.release()
        return blocking_section()

    monkeypatch.setattr("k2eg_rx.aio.async_queue.blocking_section", watched)
    waits: list[float] = []
    wait_for = WorkerPool.wait_for

    def watched_wait(self: Any, condition: Any, predicate: Any, timeout: float) -> bool:
        waits.append(timeout)
        assert wait_for(self, condition, predicate, timeout)
        return True

    monkeypatch.setattr(WorkerPool, "wait_for", watched_wait)

    async def main(client: aio.Client) -> list[int]:
        updates = client.monitor("pva://x", capacity=2)
        async with updates:
            transport.event("x", "x", *range(500))
            assert await asyncio.to_thread(full.acquire, timeout=30)
            await client.close()
            return [update.value async for update in updates]

    assert run(main) == [0, 1]
    assert len(waits) == 1


def test_a_client_works_only_while_it_is_open(transport: Any) -> None:
    client = aio.Client("scripted", "test", settings=SETTINGS, transport=transport)
    with pytest.raises(RuntimeError, match="async with"):
        _ = client.streams

    async def main() -> None:
        await client.close()
        async with client:
            pass
        with pytest.raises(RuntimeError, match="once"):
            await client.__aenter__()
        with pytest.raises(ClientClosedError):
            await client.get("pva://x")

    asyncio.run(main())


def test_an_unknown_environment_is_raised_on_entering() -> None:
    async def main() -> None:
        async with aio.Client("no such environment", "test"):
            pass

    with pytest.raises(ValueError, match="no such environment"):
        asyncio.run(main())


def test_connecting_does_not_block_the_loop_and_a_cancelled_client_is_closed(transport: Any) -> None:
    connecting, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    class Slow(type(transport)):
        def events(self, receiver: Any, group_name: Any) -> Any:
            connecting.set()
            go_on.wait()
            return super().events(receiver, group_name)

        def close(self, timeout: float) -> None:
            closed.set()

    async def main() -> None:
        entering = asyncio.create_task(aio.Client("scripted", "test", settings=SETTINGS, transport=Slow()).__aenter__())
        assert await asyncio.to_thread(connecting.wait, 30)
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        go_on.set()
        assert await asyncio.to_thread(closed.wait, 30)

    asyncio.run(main())


def test_gets_run_concurrently_in_a_task_group(run: Run) -> None:
    async def main(client: aio.Client) -> list[Any]:
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            tasks = [group.create_task(client.get(uri)) for uri in list(KNOWN) * 20]
        return [task.result().value for task in tasks]

    assert run(main) == [1, 2.5] * 20


def members(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_the_client_has_every_method_of_the_reactive_client() -> None:
    """``X_stream`` is ``X`` here; it keeps its name if the reactive client also has an ``X``."""
    reactive = members(k2eg_rx.StreamClient)
    expected = {
        name if (plain := name.removesuffix("_stream")) != name and plain in reactive else plain for name in reactive
    }
    assert members(aio.Client) - {"streams"} == expected


@pytest.mark.parametrize("name", sorted(members(aio.Client) - {"streams", "status", "close"}))
def test_methods_have_the_parameters_of_the_reactive_client(name: str) -> None:
    reactive = getattr(k2eg_rx.StreamClient, f"{name}_stream", None) or getattr(k2eg_rx.StreamClient, name)
    parameters = [
        {
            parameter.name: (parameter.kind, parameter.default)
            for parameter in inspect.signature(method).parameters.values()
        }
        for method in (getattr(aio.Client, name), reactive)
    ]
    assert parameters[0] == parameters[1]


def test_ready_status_and_activations(run: Run) -> None:
    async def main(client: aio.Client) -> None:
        assert (await client.ready(timeout=5.0)).pending == client.status.pending == 0
        async with client.status_stream() as statuses:
            assert (await anext(statuses)).monitors == 0
        async with client.monitor("pva://x"), client.snapshot_recurring(SnapshotProperties("s", ["pva://x"])):
            assert (await client.activation(["pva://x"])).error == 0
            assert (await client.snapshot_activation("s")).error == 0

    run(main)


def test_snapshot_events_are_headers_data_and_tails() -> None:
    async def main(gateway: ScriptedGateway) -> list[Any]:
        gateway.pv("x", 7)
        properties = SnapshotProperties("s", ["pva://x"], time_window=100)
        async with aio.Client("any", "test") as client, client.snapshot_events(properties) as messages:
            return [type(await anext(messages)).__name__ for _ in range(3)]

    with ScriptedGateway() as gateway, gateway.clock.running():
        assert asyncio.run(main(gateway)) == ["SnapshotHeader", "SnapshotData", "SnapshotTail"]


def test_replay_ends_with_the_history() -> None:
    async def main(gateway: ScriptedGateway) -> list[Any]:
        x = gateway.pv("x", 0)
        async with aio.Client("any", "test") as client:
            async with client.monitor("pva://x") as updates:
                await anext(updates)
                x.post(1)
                await anext(updates)
            return [(update.value, update.replayed) async for update in client.replay(["pva://x"], timedelta(hours=1))]

    with ScriptedGateway() as gateway, gateway.clock.running():
        assert asyncio.run(main(gateway)) == [(0, True), (1, True)]


def test_public_names_are_sorted_and_exist() -> None:
    assert aio.__all__ == sorted(aio.__all__)
    assert all(hasattr(aio, name) for name in aio.__all__)


@pytest.mark.parametrize("module", ["client", "iteration", "awaiting"])
def test_docstring_examples(module: str) -> None:
    results = doctest.testmod(importlib.import_module(f"k2eg_rx.aio.{module}"))
    assert results.failed == 0
    assert results.attempted > 0
