"""`aio.iterate`: order, capacity and ends of iterations, for streams that emit on threads of the tests."""

import asyncio
import gc
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import pytest
import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops
from reactivex.disposable import Disposable
from reactivex.subject import Subject

from k2eg_rx import Client, aio
from k2eg_rx.concurrency.worker_pool import blocking_section


class Emitter:
    """A stream that emits given items on a thread of its own.

    Attributes:
        emitted: The items passed to the observer, including the one whose call has not returned.
        unsubscribed: Set when the subscription is disposed of.
        done: Set when the thread ends.
    """

    def __init__(self, items: Any, error: Exception | None = None, completes: bool = True) -> None:
        self.emitted: list[Any] = []
        self.unsubscribed = threading.Event()
        self.done = threading.Event()

        def subscribe(observer: Any, _: Any = None) -> Disposable:
            def emit() -> None:
                for item in items:
                    if self.unsubscribed.is_set():
                        break
                    self.emitted.append(item)
                    observer.on_next(item)
                if error is not None:
                    observer.on_error(error)
                elif completes:
                    observer.on_completed()
                self.done.set()

            threading.Thread(target=emit).start()
            return Disposable(self.unsubscribed.set)

        self.stream: Observable[Any] = Observable(subscribe)


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Released each time a thread is about to block."""
    times = threading.Semaphore(0)

    @contextmanager
    def watched() -> Iterator[Callable[[], bool]]:
        times.release()
        with blocking_section() as is_to_end:
            yield is_to_end

    monkeypatch.setattr("k2eg_rx.aio.async_queue.blocking_section", watched)
    return times


async def occurs(event: threading.Event | threading.Semaphore) -> None:
    """Returns when an event has occurred on another thread."""
    wait = event.wait if isinstance(event, threading.Event) else lambda timeout: event.acquire(timeout=timeout)
    assert await asyncio.to_thread(wait, 30)


def test_items_arrive_in_order_before_the_end() -> None:
    async def main() -> list[int]:
        return [item async for item in aio.iterate(Emitter(range(5000)).stream)]

    assert asyncio.run(main()) == list(range(5000))


def test_an_error_is_raised_after_the_items_before_it() -> None:
    async def main() -> list[int]:
        items: list[int] = []
        updates = aio.iterate(Emitter([1, 2], error=ZeroDivisionError()).stream)
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async for item in updates:
                items.append(item)
        assert [item async for item in updates] == []
        return items

    assert asyncio.run(main()) == [1, 2]


@pytest.mark.parametrize("error", [StopAsyncIteration(), StopIteration()])
def test_a_stop_iteration_error_is_not_the_end_of_the_iteration(error: Exception) -> None:
    async def main() -> None:
        async for _ in aio.iterate(rx.throw(error)):
            pass

    with pytest.raises(RuntimeError, match="Iteration"):
        asyncio.run(main())


def test_an_error_during_subscription_is_raised() -> None:
    def subscribe(*_: Any) -> Any:
        raise ZeroDivisionError

    async def main() -> None:
        async with aio.iterate(Observable(subscribe)) as items:
            await anext(items)

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())


def test_entering_returns_after_subscription() -> None:
    go_on = threading.Event()
    subject: Subject[int] = Subject()

    def subscribe(observer: Any, _: Any = None) -> Any:
        go_on.wait()
        return subject.subscribe(observer)

    async def main() -> list[int]:
        asyncio.get_running_loop().call_later(0.02, go_on.set)
        async with aio.iterate(Observable(subscribe)) as items:
            assert go_on.is_set()
            subject.on_next(1)
            subject.on_completed()
            return [item async for item in items]

    assert asyncio.run(main()) == [1]


def test_nothing_is_subscribed_before_the_first_item_is_requested() -> None:
    subscriptions: list[int] = []
    items = aio.iterate(rx.defer(lambda _: subscriptions.append(1) or rx.of(1)))
    assert subscriptions == []
    assert items.dropped == 0

    async def main() -> list[int]:
        return [item async for item in items]

    assert asyncio.run(main()) == [1]


async def leave_with(items: aio.Iteration[Any]) -> None:
    async with items:
        async for _ in items:
            break


async def leave_closing(items: aio.Iteration[Any]) -> None:
    async with aclosing(items):
        async for _ in items:
            break


async def leave_by_an_error(items: aio.Iteration[Any]) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with items:
            async for _ in items:
                raise ZeroDivisionError


async def close(items: aio.Iteration[Any]) -> None:
    await anext(items)
    await items.aclose()
    await items.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(items)


@pytest.mark.parametrize("leave", [leave_with, leave_closing, leave_by_an_error, close])
def test_leaving_an_iteration_unsubscribes(leave: Any) -> None:
    async def main() -> None:
        emitter = Emitter([1], completes=False)
        await leave(aio.iterate(emitter.stream))
        await occurs(emitter.unsubscribed)  # an item may overtake the subscribing thread

    asyncio.run(main())


def test_garbage_collection_unsubscribes_a_loop_left_by_break() -> None:
    async def main() -> None:
        emitter = Emitter([1], completes=False)
        async for _ in aio.iterate(emitter.stream):
            break
        gc.collect()
        await occurs(emitter.unsubscribed)

    asyncio.run(main())


def test_a_fast_emitter_blocks(blocked: threading.Semaphore) -> None:
    async def main() -> None:
        emitter = Emitter(range(100))
        async with aio.iterate(emitter.stream, capacity=10) as items:
            await occurs(blocked)
            assert emitter.emitted == list(range(11))  # ten are queued, the thread holds one
            assert [await anext(items) for _ in range(4)] == [0, 1, 2, 3]
            assert len(emitter.emitted) == 11  # the thread wakes when the queue is half empty
            assert [item async for item in items] == list(range(4, 100))
            assert items.dropped == 0

    asyncio.run(main())


def test_a_capacity_of_one_loses_nothing() -> None:
    async def main() -> list[int]:
        return [item async for item in aio.iterate(Emitter(range(50)).stream, capacity=1)]

    assert asyncio.run(main()) == list(range(50))


def test_drop_oldest_keeps_the_newest_and_counts_drops() -> None:
    async def main() -> tuple[list[int], int]:
        emitter = Emitter(range(100))
        async with aio.iterate(emitter.stream, capacity=3, overflow="drop_oldest") as items:
            await occurs(emitter.done)
            return [item async for item in items], items.dropped

    assert asyncio.run(main()) == ([97, 98, 99], 97)


def test_latest_keeps_the_newest_of_each_name_and_counts_drops() -> None:
    class Named:
        def __init__(self, name: str, value: int) -> None:
            self.name, self.value = name, value

    async def main() -> tuple[list[Any], int]:
        emitter = Emitter([Named("a", 1), Named("b", 2), Named("a", 3), Named("a", 4)])
        async with aio.iterate(emitter.stream, capacity=1, overflow="latest") as items:
            await occurs(emitter.done)
            return [(item.name, item.value) async for item in items], items.dropped

    assert asyncio.run(main()) == ([("a", 4), ("b", 2)], 2)


@pytest.mark.parametrize("full", [False, True])
def test_cancellation_unsubscribes_and_releases_a_blocked_thread(
    full: bool, blocked: threading.Semaphore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k2eg_rx.aio.async_queue._CHECK_INTERVAL", 3600.0)  # the thread is notified, it does not poll

    async def main() -> None:
        emitter = Emitter(range(100) if full else [], completes=False)
        entered = asyncio.Event()

        async def follow() -> None:
            async with aio.iterate(emitter.stream, capacity=2) as items:
                entered.set()
                await (asyncio.Event().wait() if full else anext(items))

        task = asyncio.create_task(follow())
        await entered.wait()
        if full:
            await occurs(blocked)
        assert len(emitter.emitted) == (3 if full else 0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await occurs(emitter.unsubscribed)
        await occurs(emitter.done)

    asyncio.run(main())


def test_waiting_can_time_out_and_be_repeated_without_loss() -> None:
    async def main() -> int:
        subject: Subject[int] = Subject()
        async with aio.iterate(subject) as items:
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(items), 0.01)
            subscription: Any = items._subscription  # pyright: ignore[reportPrivateUsage]
            assert len(subscription.queue._waiters) == 0
            subject.on_next(1)
            return await anext(items)

    assert asyncio.run(main()) == 1


def test_a_timeout_around_the_loop_unsubscribes() -> None:
    async def main() -> None:
        emitter = Emitter([1], completes=False)
        with pytest.raises(TimeoutError):  # noqa: PT012
            async with asyncio.timeout(0.05), aio.iterate(emitter.stream) as items:
                async for _ in items:
                    pass
        await occurs(emitter.unsubscribed)

    asyncio.run(main())


def test_a_failing_task_group_unsubscribes() -> None:
    async def main() -> None:
        emitter = Emitter([1], completes=False)

        async def follow() -> None:
            async with aio.iterate(emitter.stream) as items:
                async for _ in items:
                    raise ZeroDivisionError

        with pytest.raises(ExceptionGroup):  # noqa: PT012
            async with asyncio.TaskGroup() as group:
                group.create_task(follow())
                group.create_task(asyncio.Event().wait())
        await occurs(emitter.unsubscribed)

    asyncio.run(main())


def test_aclose_by_another_task_ends_the_iteration() -> None:
    async def main() -> list[int]:
        items = aio.iterate(Emitter([1], completes=False).stream)
        first = await anext(items)

        async def rest() -> list[int]:
            return [item async for item in items]

        task = asyncio.create_task(rest())
        await asyncio.sleep(0)
        await items.aclose()
        return [first, *await task]

    assert asyncio.run(main()) == [1]


def test_tasks_can_share_an_iteration() -> None:
    async def main() -> list[int]:
        items = aio.iterate(Emitter(range(1000)).stream, capacity=7)

        async def some() -> list[int]:
            taken: list[int] = []
            async for item in items:
                taken.append(item)
                await asyncio.sleep(0)
            assert taken == sorted(taken)
            return taken

        parts = await asyncio.gather(*(some() for _ in range(4)))
        return sorted(item for part in parts for item in part)

    assert asyncio.run(main()) == list(range(1000))


def test_other_tasks_run_while_items_are_always_available() -> None:
    async def main() -> int:
        emitter = Emitter(range(1000))
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with aio.iterate(emitter.stream, capacity=1000) as items:
            await occurs(emitter.done)
            task = asyncio.create_task(other())
            async for _ in items:
                pass
            task.cancel()
        return turns

    assert asyncio.run(main()) >= 10


def test_a_stream_can_emit_all_items_during_subscription() -> None:
    async def main() -> None:
        emitted: list[int] = []
        stream = rx.from_iterable(range(100_000)).pipe(ops.do_action(emitted.append))
        async with aio.iterate(stream, capacity=8) as items:
            assert [await anext(items) for _ in range(20)] == list(range(20))
        assert len(emitted) < 100

    asyncio.run(main())


def test_an_item_on_the_loops_thread_beyond_capacity_is_an_error() -> None:
    async def main() -> None:
        subject: Subject[int] = Subject()
        async with aio.iterate(subject, capacity=2) as items:
            for number in range(3):
                subject.on_next(number)
            assert [await anext(items), await anext(items)] == [0, 1]
            with pytest.raises(RuntimeError, match="own thread"):
                await anext(items)

    asyncio.run(main())


def test_items_for_a_closed_loop_end_the_stream(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k2eg_rx.aio.async_queue._CHECK_INTERVAL", 0.01)
    more, kept = threading.Event(), []

    def stream() -> Iterator[int]:
        yield 0
        more.wait()
        yield from range(1, 1000)

    emitters = [Emitter(stream()), Emitter(stream()), Emitter(range(1000))]
    overflows = ["block", "latest", "block"]  # the last one is blocked when the loop is closed

    async def main() -> None:
        for emitter, overflow in zip(emitters, overflows, strict=True):
            items = aio.iterate(emitter.stream, capacity=4, overflow=overflow)
            kept.append(items)
            await anext(items)
        # the first item may come before the subscription exists, which can be disposed of only from then on
        for thread in threading.enumerate():
            if thread.name == "k2eg-aio-subscribe":
                await asyncio.to_thread(thread.join, 30)

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
        more.set()
        for emitter in emitters:
            assert emitter.done.wait(30)
            assert len(emitter.emitted) < 20  # emitting stops soon after
    assert caplog.records == []


@pytest.mark.parametrize("arguments", [{"capacity": 0}, {"capacity": 1.5}, {"capacity": True}, {"overflow": "newest"}])
def test_invalid_arguments_are_rejected(arguments: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        aio.iterate(rx.of(1), **arguments)


def test_a_full_iteration_fills_the_clients_queue(client: Client, transport: Any, blocked: threading.Semaphore) -> None:
    async def main() -> list[int]:
        stream = client.monitor_stream("pva://x", capacity=8)
        async with aio.iterate(stream, capacity=8) as items:
            transport.event("x", "x", *range(50))
            await occurs(blocked)
            assert transport.event_source.receiver.ready()  # the pool thread holds the others
            transport.event("x", "x", *range(50, 100))
            assert not transport.event_source.receiver.ready()
            values = [(await anext(items)).value for _ in range(100)]
            while not transport.event_source.receiver.ready():
                await asyncio.sleep(0)
            return values

    assert asyncio.run(main()) == list(range(100))


def test_gets_work_while_more_iterations_block_than_the_pool_has_threads(
    client: Client, transport: Any, blocked: threading.Semaphore
) -> None:
    names = [f"x{n}" for n in range(40)]  # more than the pool has threads

    async def main() -> Any:
        iterations = [aio.iterate(client.monitor_stream(f"pva://{name}"), capacity=1) for name in names]
        for name, iteration in zip(names, iterations, strict=True):
            await iteration.__aenter__()
            transport.event(name, name, 1, 2, 3)
            await occurs(blocked)
        results: list[Any] = []
        client.get_stream("pva://x").subscribe(results.append)
        transport.reply(transport.commands[-1], x={"value": 7})
        while not results:
            await asyncio.sleep(0)
        for iteration in iterations:
            await iteration.aclose()
        return results[0].value

    assert asyncio.run(main()) == 7


def test_closing_the_client_ends_the_iteration(client: Client, transport: Any) -> None:
    async def main() -> list[int]:
        async with aio.iterate(client.monitor_stream("pva://x")) as items:
            transport.event("x", "x", 1, 2)
            values = [(await anext(items)).value]
            await asyncio.to_thread(client.close)
            return values + [update.value async for update in items]

    assert asyncio.run(main()) == [1, 2]


def test_closing_the_client_ends_a_blocked_iteration(
    client: Client, transport: Any, blocked: threading.Semaphore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k2eg_rx.aio.async_queue._CHECK_INTERVAL", 0.01)

    async def main() -> list[int]:
        async with aio.iterate(client.monitor_stream("pva://x"), capacity=2) as items:
            transport.event("x", "x", *range(9))
            await occurs(blocked)
            await asyncio.to_thread(client.close, 0.2)
            return [update.value async for update in items]

    assert asyncio.run(main()) == [0, 1]
