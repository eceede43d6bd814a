"""`aio.first`: values, errors, timeouts, and the subscription's end."""

import asyncio
import logging
import threading
from typing import Any

import pytest
import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops
from reactivex.scheduler.eventloop import AsyncIOScheduler
from reactivex.subject import Subject

from k2eg_rx import Client, OperationTimeout, aio


def run_on_thread(action: Any) -> None:
    """Runs an action on another thread and waits for its end."""
    thread = threading.Thread(target=action)
    thread.start()
    thread.join()


class ObservedSubject:
    """A subject that records whether it is subscribed to."""

    def __init__(self) -> None:
        self.subject: Subject[Any] = Subject()
        self.subscribed = False

        def begin(_: Any) -> Observable[Any]:
            self.subscribed = True
            return self.subject.pipe(ops.finally_action(self._end))

        self.stream: Observable[Any] = rx.defer(begin)

    def _end(self) -> None:
        self.subscribed = False


async def until_subscribed(observed: ObservedSubject) -> None:
    while not observed.subscribed:
        await asyncio.sleep(0)


def test_first_returns_an_item_of_another_thread_and_unsubscribes() -> None:
    async def main() -> Any:
        observed = ObservedSubject()
        value = asyncio.create_task(aio.first(observed.stream))
        await until_subscribed(observed)
        run_on_thread(lambda: (observed.subject.on_next(1), observed.subject.on_next(2)))
        return await value, observed.subscribed

    assert asyncio.run(main()) == (1, False)


def test_first_returns_an_item_emitted_during_subscription() -> None:
    assert asyncio.run(aio.first(rx.of(1, 2))) == 1


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        (rx.throw(ZeroDivisionError()), "ZeroDivisionError"),
        (rx.empty(), "EmptyStreamError"),
        (rx.throw(StopIteration()), "RuntimeError"),
    ],
)
def test_the_end_of_the_stream_before_an_item_is_raised(stream: Any, error: str) -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011
        asyncio.run(aio.first(stream))
    assert type(raised.value).__name__ == error


def test_a_timeout_unsubscribes() -> None:
    async def main() -> bool:
        observed = ObservedSubject()
        with pytest.raises(OperationTimeout, match=r"within 0\.01 s"):
            await aio.first(observed.stream, timeout=0.01)
        return observed.subscribed

    assert asyncio.run(main()) is False


def test_a_timeout_of_the_stream_is_raised_unchanged() -> None:
    with pytest.raises(TimeoutError, match="mine"):
        asyncio.run(aio.first(rx.throw(TimeoutError("mine")), timeout=10.0))


@pytest.mark.parametrize("timeout", [0, -1, "1"])
def test_an_invalid_timeout_is_rejected(timeout: Any) -> None:
    with pytest.raises(ValueError, match="timeout"):
        asyncio.run(aio.first(rx.of(1), timeout))


def test_cancellation_unsubscribes() -> None:
    async def main() -> bool:
        observed = ObservedSubject()
        value = asyncio.create_task(aio.first(observed.stream))
        await until_subscribed(observed)
        value.cancel()
        with pytest.raises(asyncio.CancelledError):
            await value
        return observed.subscribed

    assert asyncio.run(main()) is False


def test_an_outer_timeout_unsubscribes() -> None:
    async def main() -> bool:
        observed = ObservedSubject()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await aio.first(observed.stream)
        return observed.subscribed

    assert asyncio.run(main()) is False


def test_a_failure_in_a_task_group_unsubscribes_the_other_tasks() -> None:
    async def main() -> bool:
        observed = ObservedSubject()
        with pytest.raises(ExceptionGroup) as failed:  # noqa: PT012
            async with asyncio.TaskGroup() as group:
                group.create_task(aio.first(observed.stream))
                await until_subscribed(observed)
                group.create_task(aio.first(rx.throw(ZeroDivisionError())))
        assert [type(error) for error in failed.value.exceptions] == [ZeroDivisionError]
        return observed.subscribed

    assert asyncio.run(main()) is False


def test_an_item_for_a_closed_loop_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    subject: Subject[int] = Subject()
    kept: list[Any] = []

    def keep(observer: Any, scheduler: Any = None) -> Any:
        kept.append(observer)
        return subject.subscribe(observer)

    loop = asyncio.new_event_loop()
    waiting = loop.create_task(aio.first(Observable(keep)))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    with caplog.at_level(logging.WARNING):
        run_on_thread(lambda: subject.on_next(1))
    assert caplog.records == []
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]


def test_timers_of_operators_run_on_the_loop() -> None:
    async def main() -> tuple[str, list[str]]:
        threads: list[str] = []
        value = rx.timer(0.01).pipe(
            ops.do_action(lambda _: threads.append(threading.current_thread().name)),
            ops.delay(0.01),
            ops.map(lambda _: "late"),
        )
        return await aio.first(value), threads

    assert asyncio.run(main()) == ("late", [threading.current_thread().name])


def test_a_cancelled_timer_does_not_fire() -> None:
    async def main() -> list[int]:
        fired: list[int] = []
        slow = rx.timer(0.01).pipe(ops.do_action(fired.append))
        assert await aio.first(rx.merge(slow, rx.of(7))) == 7
        await aio.first(rx.timer(0.02))
        return fired

    assert asyncio.run(main()) == []


def test_a_get_works_while_all_pool_threads_are_busy(client: Client, transport: Any) -> None:
    free = threading.Event()
    busy = [threading.Event() for _ in range(32)]

    def occupy(number: int) -> None:
        busy[number].set()
        free.wait()

    async def main() -> Any:
        for number in range(32):
            client.monitor_stream(f"pva://b{number}").subscribe(lambda _, number=number: occupy(number))
            transport.event(f"b{number}", f"b{number}", 1)
        for event in busy:
            assert await asyncio.to_thread(event.wait, 30)
        got = asyncio.create_task(aio.first(client.get_stream("pva://x")))
        await asyncio.sleep(0)
        transport.reply(transport.commands[-1], x={"value": 1})
        return (await got).value

    try:
        assert asyncio.run(main()) == 1
    finally:
        free.set()


def test_a_stream_can_be_awaited_in_an_idle_loop(client: Client, transport: Any) -> None:
    """reactivex's own `await` and its scheduler for asyncio; replies come on another thread."""

    def answer() -> None:
        transport.reply(transport.commands[-1], x={"value": 1})

    async def main() -> list[Any]:
        values: list[Any] = []
        loop = asyncio.get_running_loop()

        async def awaited(stream: Any) -> Any:
            return await stream

        task = asyncio.ensure_future(awaited(client.get_stream("pva://x")))
        while not transport.commands:
            await asyncio.sleep(0)
        threading.Thread(target=answer).start()
        values.append((await asyncio.wait_for(task, 30)).value)
        got: asyncio.Future[Any] = loop.create_future()
        client.monitor_stream("pva://x").subscribe(got.set_result, scheduler=AsyncIOScheduler(loop))
        threading.Thread(target=transport.event, args=("x", "x", 2)).start()
        values.append((await asyncio.wait_for(got, 30)).value)
        return values

    assert asyncio.run(main()) == [1, 2]
