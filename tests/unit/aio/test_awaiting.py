"""Waiting for a value in a coroutine: where it comes from, and what becomes of the subscription."""

import asyncio
import logging
import threading
from typing import Any

import pytest
import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops
from reactivex.internal.exceptions import SequenceContainsNoElementsError
from reactivex.subject import Subject

from k2eg_rx import Client, aio


def on_a_thread(action: Any) -> None:
    """Has something done on another thread, and waits for that."""
    thread = threading.Thread(target=action)
    thread.start()
    thread.join()


class Watched:
    """A subject that knows whether somebody is subscribed."""

    def __init__(self) -> None:
        self.subject: Subject[Any] = Subject()
        self.subscribed = False

        def begin(_: Any) -> Observable[Any]:
            self.subscribed = True
            return self.subject.pipe(ops.finally_action(self._end))

        self.stream: Observable[Any] = rx.defer(begin)

    def _end(self) -> None:
        self.subscribed = False


async def until_subscribed(watched: Watched) -> None:
    while not watched.subscribed:
        await asyncio.sleep(0)


def test_the_first_value_comes_from_another_thread_and_ends_the_subscription() -> None:
    async def main() -> Any:
        watched = Watched()
        value = asyncio.create_task(aio.first(watched.stream))
        await until_subscribed(watched)
        on_a_thread(lambda: (watched.subject.on_next(1), watched.subject.on_next(2)))
        return await value, watched.subscribed

    assert asyncio.run(main()) == (1, False)


def test_a_value_that_is_there_at_once_is_returned() -> None:
    assert asyncio.run(aio.first(rx.of(1, 2))) == 1


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        (rx.throw(ZeroDivisionError()), ZeroDivisionError),
        (rx.empty(), SequenceContainsNoElementsError),
        (rx.throw(StopIteration()), RuntimeError),
    ],
)
def test_what_ends_the_stream_before_a_value_is_raised(stream: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        asyncio.run(aio.first(stream))


def test_a_timeout_unsubscribes() -> None:
    async def main() -> bool:
        watched = Watched()
        with pytest.raises(TimeoutError, match=r"within 0\.01 s"):
            await aio.first(watched.stream, timeout=0.01)
        return watched.subscribed

    assert asyncio.run(main()) is False


def test_a_timeout_of_the_stream_itself_is_raised_as_it_is() -> None:
    with pytest.raises(TimeoutError, match="mine"):
        asyncio.run(aio.first(rx.throw(TimeoutError("mine")), timeout=10.0))


@pytest.mark.parametrize("timeout", [0, -1, "1"])
def test_a_wrong_timeout_is_refused(timeout: Any) -> None:
    with pytest.raises(ValueError, match="timeout"):
        asyncio.run(aio.first(rx.of(1), timeout))


def test_cancellation_unsubscribes() -> None:
    async def main() -> bool:
        watched = Watched()
        value = asyncio.create_task(aio.first(watched.stream))
        await until_subscribed(watched)
        value.cancel()
        with pytest.raises(asyncio.CancelledError):
            await value
        return watched.subscribed

    assert asyncio.run(main()) is False


def test_an_outer_timeout_unsubscribes() -> None:
    async def main() -> bool:
        watched = Watched()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await aio.first(watched.stream)
        return watched.subscribed

    assert asyncio.run(main()) is False


def test_one_that_fails_in_a_group_cancels_the_others() -> None:
    async def main() -> bool:
        watched = Watched()
        with pytest.raises(ExceptionGroup) as failed:  # noqa: PT012
            async with asyncio.TaskGroup() as group:
                group.create_task(aio.first(watched.stream))
                await until_subscribed(watched)
                group.create_task(aio.first(rx.throw(ZeroDivisionError())))
        assert [type(error) for error in failed.value.exceptions] == [ZeroDivisionError]
        return watched.subscribed

    assert asyncio.run(main()) is False


def test_a_value_for_a_loop_that_is_closed_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
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
        on_a_thread(lambda: subject.on_next(1))
    assert caplog.records == []
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]


def test_timers_of_the_streams_operators_run_on_the_loop() -> None:
    async def main() -> tuple[str, list[str]]:
        threads: list[str] = []
        value = rx.timer(0.01).pipe(
            ops.do_action(lambda _: threads.append(threading.current_thread().name)),
            ops.delay(0.01),
            ops.map(lambda _: "late"),
        )
        return await aio.first(value), threads

    assert asyncio.run(main()) == ("late", [threading.current_thread().name])


def test_a_timer_that_is_cancelled_does_not_fire() -> None:
    async def main() -> list[int]:
        fired: list[int] = []
        slow = rx.timer(0.01).pipe(ops.do_action(fired.append))
        assert await aio.first(rx.merge(slow, rx.of(7))) == 7
        await aio.first(rx.timer(0.02))
        return fired

    assert asyncio.run(main()) == []


def test_a_get_needs_no_thread_of_the_pool(client: Client, transport: Any) -> None:
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
