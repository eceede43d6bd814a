"""Time in which an operator waits for items."""

from __future__ import annotations

from reactivex.disposable import Disposable
from reactivex.testing import TestScheduler

from k2eg_rx.concurrency import WorkerPool
from k2eg_rx.delivery import Dispatcher, SubscriberInput, source_is_behind
from k2eg_rx.operators.idle_time import IdleTime


def test_time_counts_while_an_operator_waits() -> None:
    now = [100]
    idle = IdleTime(lambda: now[0], longest=7)
    now[0] += 5
    assert idle.enter() == 5
    now[0] += 50  # it is busy
    idle.leave()
    now[0] += 3
    assert (idle.now(), idle.enter()) == (8, 8)
    idle.leave()
    now[0] += 90
    assert idle.now() == 15, "it may have been a stall of the process"


def test_time_does_not_count_while_the_source_is_far_behind() -> None:
    now, behind, seen, queues = [100], [True], list[int](), list[SubscriberInput[int]]()
    idle, scheduler = IdleTime(lambda: now[0]), TestScheduler()
    dispatcher = Dispatcher(
        lambda _: None, lambda *_: None, lambda: None, WorkerPool(1, "test"), is_behind=lambda: behind[0]
    )

    def attach(queue: SubscriberInput[int]) -> Disposable:
        queues.append(queue)
        return Disposable()

    def take(_: int) -> None:
        seen.append(idle.enter())
        idle.leave()

    def receive() -> int:
        queues[0].offer([0])
        scheduler.start()
        return seen[-1]

    dispatcher.stream(attach, "numbers").subscribe(take, scheduler=scheduler)
    assert receive() == 0
    now[0] += 5
    assert receive() == 0
    now[0] += 5
    assert idle.now() == 0, "also for a timer of the operator"
    behind[0] = False
    assert idle.now() == 5
    assert receive() == 5
    assert source_is_behind() is None
    dispatcher.close(0)
