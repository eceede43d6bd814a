"""The choice of an operator's scheduler."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from reactivex.scheduler import CurrentThreadScheduler, ImmediateScheduler, TimeoutScheduler
from reactivex.scheduler.eventloop import AsyncIOScheduler
from reactivex.scheduler.mainloop import TkinterScheduler
from reactivex.testing import TestScheduler

from k2eg_rx.concurrency import PRODUCTION, Runtime, chosen_scheduler, scheduler_or, use_runtime

SHARED = PRODUCTION.scheduler


def test_the_operators_scheduler_has_precedence_over_the_subscribers() -> None:
    given, subscribed = TestScheduler(), TestScheduler()
    assert scheduler_or(given, subscribed) is given
    assert scheduler_or(None, subscribed) is subscribed
    assert scheduler_or(None, None) is SHARED


@pytest.mark.parametrize("passed_on", [CurrentThreadScheduler, ImmediateScheduler, TimeoutScheduler])
def test_default_schedulers_of_reactivex_are_ignored(passed_on: Callable[[], Any]) -> None:
    assert scheduler_or(None, passed_on()) is SHARED
    chosen = passed_on()
    assert scheduler_or(chosen, None) is chosen


def test_the_runtimes_scheduler_is_the_default() -> None:
    virtual, subscribed = TestScheduler(), TestScheduler()
    with use_runtime(Runtime(scheduler=virtual)):
        assert scheduler_or(None, None) is virtual
        assert scheduler_or(None, subscribed) is subscribed


def test_asyncios_scheduler_wakes_its_loop_from_other_threads() -> None:
    async def main() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        scheduler = chosen_scheduler(AsyncIOScheduler(loop))
        assert scheduler is not None
        ran: asyncio.Future[int] = loop.create_future()
        thread = threading.Thread(
            target=scheduler.schedule, args=(lambda *_: ran.set_result(threading.get_ident()),), daemon=True
        )
        thread.start()
        return await asyncio.wait_for(ran, 30), threading.get_ident()  # an idle loop: nothing else wakes it

    where, loops = asyncio.run(main())
    assert where == loops


def test_a_scheduler_that_only_its_own_thread_may_use_is_refused_with_a_hint() -> None:
    class Window:
        pass

    with pytest.raises(ValueError, match=r"got a TkinterScheduler: subscribe without it, and pass items on by a queue"):
        chosen_scheduler(TkinterScheduler(Window()))
