"""The dispatcher and its queues, on a virtual scheduler."""

import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from reactivex import operators as ops
from reactivex.disposable import Disposable
from reactivex.scheduler import CurrentThreadScheduler, ImmediateScheduler, TimeoutScheduler
from reactivex.testing import TestScheduler

from k2eg_rx.concurrency import WorkerPool
from k2eg_rx.delivery.buffers import Overflow
from k2eg_rx.delivery.dispatcher import Dispatcher
from k2eg_rx.delivery.subscriber_queue import SubscriberInput, SubscriberQueue
from k2eg_rx.errors import ClientClosedError, OperationError, WireError


@dataclass
class Item:
    name: str
    number: int


class Source:
    """A source that records its queues and how often they were disconnected."""

    def __init__(self) -> None:
        self.queues: list[SubscriberInput[Item]] = []
        self.disposed = 0

    def attach(self, queue: SubscriberInput[Item]) -> Disposable:
        self.queues.append(queue)

        def dispose() -> None:
            self.disposed += 1

        return Disposable(dispose)

    def offer(self, *numbers: int, name: str = "a") -> None:
        for queue in self.queues:
            queue.offer([Item(name, number) for number in numbers])


class Bench:
    """A dispatcher with records of its callbacks; `poison` items are undecodable, `fatal` ones raise."""

    def __init__(self) -> None:
        self.poison: set[int] = set()
        self.fatal: set[int] = set()
        self.discarded: list[tuple[str, str]] = []
        self.opened = 0
        self.dispatcher = Dispatcher(
            self.prepare,
            lambda error, label: self.discarded.append((error.kind, label)),
            self.open,
            WorkerPool(32, "k2eg-subscriber"),
        )

    def prepare(self, item: Item) -> None:
        if item.number in self.poison:
            raise WireError("undecodable", "bad")
        if item.number in self.fatal:
            raise OperationError(-1, "no such field")

    def discard(self, error: WireError, label: str) -> None:
        self.discarded.append((error.kind, label))

    def open(self) -> None:
        self.opened += 1


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.dispatcher.close(0)


@pytest.fixture
def scheduler() -> TestScheduler:
    return TestScheduler()


def numbers(seen: Sequence[Item]) -> list[int]:
    return [item.number for item in seen]


def test_items_are_delivered_in_order_by_the_scheduler(bench: Bench, scheduler: TestScheduler) -> None:
    source, seen = Source(), list[Item]()
    bench.dispatcher.stream(source.attach, "a").subscribe(seen.append, scheduler=scheduler)
    source.offer(1, 2, 3)
    assert seen == []
    scheduler.start()
    source.offer(4)
    scheduler.start()
    assert numbers(seen) == [1, 2, 3, 4]


def test_items_and_end_that_come_as_a_drain_ends_are_delivered(
    bench: Bench, scheduler: TestScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulates another thread between the drain's check for an empty queue and its end."""
    source, received = Source(), list[object]()
    bench.dispatcher.stream(source.attach, "a").subscribe(
        lambda item: received.append(item.number), on_completed=lambda: received.append("end"), scheduler=scheduler
    )
    take = SubscriberQueue._take

    def take_and_offer_more(queue: SubscriberQueue[Item]) -> object:
        taken = take(queue)
        if received == [1] and len(source.queues) == 1:
            monkeypatch.undo()
            source.offer(2)
            source.queues[0].finish()
        return taken

    monkeypatch.setattr(SubscriberQueue, "_take", take_and_offer_more)
    source.offer(1)
    scheduler.start()
    assert received == [1, 2, "end"]


def test_more_items_than_one_slice_are_all_delivered(bench: Bench, scheduler: TestScheduler) -> None:
    source, seen = Source(), list[Item]()
    bench.dispatcher.stream(source.attach, "a", capacity=10_000).subscribe(seen.append, scheduler=scheduler)
    source.offer(*range(5000))
    scheduler.start()
    assert numbers(seen) == list(range(5000))


def test_a_full_blocking_queue_pauses_the_gate_until_it_has_room(bench: Bench, scheduler: TestScheduler) -> None:
    source, seen = Source(), list[Item]()
    bench.dispatcher.stream(source.attach, "a", Overflow.BLOCK, 4).subscribe(seen.append, scheduler=scheduler)
    source.offer(1, 2, 3)
    assert bench.dispatcher.gate.is_open()
    source.offer(4, 5)
    assert not bench.dispatcher.gate.is_open()
    assert bench.opened == 0
    scheduler.start()
    assert bench.dispatcher.gate.is_open()
    assert bench.opened == 1
    assert numbers(seen) == [1, 2, 3, 4, 5]
    assert bench.dispatcher.dropped == 0


def test_disposing_a_full_queue_opens_the_gate(bench: Bench, scheduler: TestScheduler) -> None:
    source = Source()
    subscription = bench.dispatcher.stream(source.attach, "a", Overflow.BLOCK, 1).subscribe(scheduler=scheduler)
    source.offer(1)
    assert not bench.dispatcher.gate.is_open()
    subscription.dispose()
    assert bench.dispatcher.gate.is_open()
    assert source.disposed == 1


def test_latest_keeps_the_newest_of_each_pv_and_counts_the_rest(bench: Bench, scheduler: TestScheduler) -> None:
    source, seen = Source(), list[Item]()
    bench.dispatcher.stream(source.attach, "a", Overflow.LATEST).subscribe(seen.append, scheduler=scheduler)
    source.offer(1, 2, 3, name="a")
    source.offer(7, name="b")
    source.offer(4, name="a")
    scheduler.start()
    assert [(item.name, item.number) for item in seen] == [("a", 4), ("b", 7)]
    assert bench.dispatcher.dropped == 3
    assert bench.dispatcher.gate.is_open()


def test_drop_oldest_keeps_the_newest_and_counts_the_rest(bench: Bench, scheduler: TestScheduler) -> None:
    source, seen = Source(), list[Item]()
    bench.dispatcher.stream(source.attach, "a", Overflow.DROP_OLDEST, 3).subscribe(seen.append, scheduler=scheduler)
    source.offer(1, 2)
    source.offer(3, 4, 5)
    scheduler.start()
    assert numbers(seen) == [3, 4, 5]
    assert bench.dispatcher.dropped == 2


def test_a_raising_subscriber_gets_its_error_and_others_continue(
    bench: Bench, scheduler: TestScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    source, seen = Source(), list[Item]()
    errors: list[Exception] = []
    stream = bench.dispatcher.stream(source.attach, "pva://a")

    def fail(item: Item) -> None:
        raise RuntimeError(f"boom {item.number}")

    stream.subscribe(fail, errors.append, scheduler=scheduler)
    stream.subscribe(seen.append, scheduler=scheduler)
    source.offer(1, 2)
    scheduler.start()
    assert [str(error) for error in errors] == ["boom 1"]
    assert numbers(seen) == [1, 2]
    assert source.disposed == 1
    assert "subscription ends, its on_next raised: stream=a" in caplog.text


@pytest.mark.parametrize("where", ["on_next", "on_error", "on_completed"])
def test_a_subscriber_that_exits_ends_its_subscription_only(bench: Bench, scheduler: TestScheduler, where: str) -> None:
    source, seen = Source(), list[Item]()
    errors: list[Exception] = []

    def exit_(*_: object) -> None:
        sys.exit(3)

    def next_(item: Item) -> None:
        if where != "on_completed":
            exit_() if where == "on_next" else int("x")

    stream = bench.dispatcher.stream(source.attach, "a")
    stream.subscribe(next_, exit_ if where == "on_error" else errors.append, exit_, scheduler=scheduler)
    stream.subscribe(seen.append, scheduler=scheduler)
    source.offer(1, 2)
    for queue in source.queues:
        queue.finish()
    scheduler.start()
    expected = ["a subscriber raised SystemExit(3); it ends its subscription only, not the program"]
    assert [str(error) for error in errors] == (expected if where == "on_next" else [])
    assert numbers(seen) == [1, 2]
    assert source.disposed == 2


def test_an_exception_downstream_of_operators_reaches_on_error(bench: Bench, scheduler: TestScheduler) -> None:
    source = Source()
    errors: list[Exception] = []
    stream = bench.dispatcher.stream(source.attach, "a").pipe(ops.map(lambda item: item.number), ops.map(str))

    def fail(text: str) -> None:
        raise RuntimeError(text)

    stream.subscribe(fail, errors.append, scheduler=scheduler)
    source.offer(1, 2)
    scheduler.start()
    assert [str(error) for error in errors] == ["1"]


def test_a_failure_without_on_error_is_logged_and_contained(
    bench: Bench, scheduler: TestScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    source = Source()
    bench.dispatcher.stream(source.attach, "pva://a").subscribe(scheduler=scheduler)
    source.queues[0].finish(OperationError(-2, "no"))
    with caplog.at_level(logging.ERROR):
        scheduler.start()
    assert "stream failed, its subscriber has no on_error: stream=pva://a" in caplog.text


def test_an_undecodable_item_is_counted_and_the_next_one_delivered(bench: Bench, scheduler: TestScheduler) -> None:
    source, seen = Source(), list[Item]()
    bench.poison = {2}
    bench.dispatcher.stream(source.attach, "pva://a").subscribe(seen.append, scheduler=scheduler)
    source.offer(1, 2, 3)
    scheduler.start()
    assert numbers(seen) == [1, 3]
    assert bench.discarded == [("undecodable", "pva://a")]


def test_an_item_that_fails_in_prepare_fails_the_stream(bench: Bench, scheduler: TestScheduler) -> None:
    source, seen = Source(), list[Item]()
    errors: list[Exception] = []
    bench.fatal = {2}
    bench.dispatcher.stream(source.attach, "a").subscribe(seen.append, errors.append, scheduler=scheduler)
    source.offer(1, 2, 3)
    scheduler.start()
    assert numbers(seen) == [1]
    assert isinstance(errors[0], OperationError)


def test_completion_follows_the_queued_items(bench: Bench, scheduler: TestScheduler) -> None:
    source, seen = Source(), list[object]()
    stream = bench.dispatcher.stream(source.attach, "a")
    stream.subscribe(seen.append, None, lambda: seen.append("end"), scheduler=scheduler)
    source.offer(1)
    source.queues[0].finish()
    source.offer(2)
    scheduler.start()
    assert [item.number if isinstance(item, Item) else item for item in seen] == [1, "end"]
    assert source.disposed == 1


def test_a_subscriber_that_unsubscribes_itself_gets_no_more_items(bench: Bench, scheduler: TestScheduler) -> None:
    source, seen = Source(), list[Item]()
    bench.dispatcher.stream(source.attach, "a").pipe(ops.take(2)).subscribe(seen.append, scheduler=scheduler)
    source.offer(1, 2, 3, 4)
    scheduler.start()
    assert numbers(seen) == [1, 2]
    assert source.disposed == 1


def test_a_slow_subscriber_does_not_delay_others(bench: Bench) -> None:
    slow, fast = TestScheduler(), TestScheduler()
    source, seen = Source(), list[Item]()
    stream = bench.dispatcher.stream(source.attach, "a")
    stream.subscribe(scheduler=slow)
    stream.subscribe(seen.append, scheduler=fast)
    source.offer(1, 2)
    fast.start()
    assert numbers(seen) == [1, 2]


@pytest.mark.parametrize("passed_on", [CurrentThreadScheduler, ImmediateScheduler, TimeoutScheduler])
def test_schedulers_that_operators_pass_on_are_not_used(bench: Bench, passed_on: type[CurrentThreadScheduler]) -> None:
    executor = bench.dispatcher._execute_on(passed_on.singleton())  # pyright: ignore[reportPrivateUsage]
    assert executor == bench.dispatcher._execute_on(None)  # pyright: ignore[reportPrivateUsage]


def test_a_closed_scheduler_ends_the_subscription_without_an_error(bench: Bench) -> None:
    class ClosedScheduler(TestScheduler):
        def schedule(self, action: object, state: object = None) -> Disposable:
            raise RuntimeError("closed")

    source = Source()
    bench.dispatcher.stream(source.attach, "a").subscribe(scheduler=ClosedScheduler())
    source.offer(1)


def test_a_closed_dispatcher_rejects_new_subscribers(bench: Bench) -> None:
    bench.dispatcher.close(0)
    errors: list[Exception] = []
    bench.dispatcher.stream(Source().attach, "a").subscribe(on_error=errors.append)
    assert isinstance(errors[0], ClientClosedError)


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_capacity_below_one_is_rejected(bench: Bench, capacity: int) -> None:
    with pytest.raises(ValueError, match="capacity"):
        bench.dispatcher.stream(Source().attach, "a", capacity=capacity)


def test_an_unknown_overflow_policy_is_rejected(bench: Bench) -> None:
    with pytest.raises(ValueError, match="newest"):
        bench.dispatcher.stream(Source().attach, "a", overflow="newest")  # pyright: ignore[reportArgumentType]


def test_many_items_are_delivered_in_slices_with_yields_between(scheduler: TestScheduler) -> None:
    yields: list[int] = []
    source, seen = Source(), list[Item]()
    dispatcher = Dispatcher(
        lambda item: None,
        lambda error, label: None,
        lambda: None,
        WorkerPool(32, "k2eg-subscriber"),
        yield_to_requests=lambda: yields.append(len(seen)),
    )
    dispatcher.stream(source.attach, "a").subscribe(seen.append, scheduler=scheduler)
    source.offer(*range(10))
    scheduler.start()
    assert yields == []
    source.offer(*range(150))
    scheduler.start()
    assert yields == [74, 138]
    dispatcher.close(0)


def _even(item: Item) -> bool:
    return item.number % 2 == 0


@pytest.mark.parametrize("overflow", [Overflow.BLOCK, Overflow.DROP_OLDEST])
def test_reclaimed_items_are_not_delivered_and_the_others_keep_their_order(
    bench: Bench, scheduler: TestScheduler, overflow: Overflow
) -> None:
    source, seen = Source(), list[Item]()
    bench.dispatcher.stream(source.attach, "a", overflow).subscribe(seen.append, scheduler=scheduler)
    source.offer(1, 2, 3, 4, 5)
    assert numbers(source.queues[0].reclaim_undelivered(_even)) == [2, 4]
    source.offer(6)
    scheduler.start()
    assert numbers(seen) == [1, 3, 5, 6]


def test_items_of_the_slice_being_delivered_are_reclaimed(bench: Bench, scheduler: TestScheduler) -> None:
    source, seen, reclaimed = Source(), list[int](), list[int]()

    def receive(item: Item) -> None:
        seen.append(item.number)
        if item.number == 2:
            source.offer(7, 8)
            reclaimed.extend(numbers(source.queues[0].reclaim_undelivered(_even)))

    bench.dispatcher.stream(source.attach, "a").subscribe(receive, scheduler=scheduler)
    source.offer(1, 2, 3, 4, 5, 6)
    scheduler.start()
    assert reclaimed == [4, 6, 8]
    assert seen == [1, 2, 3, 5, 7]


def test_the_newest_item_of_a_name_is_reclaimed(bench: Bench, scheduler: TestScheduler) -> None:
    source, seen = Source(), list[Item]()
    bench.dispatcher.stream(source.attach, "a", Overflow.LATEST).subscribe(seen.append, scheduler=scheduler)
    source.offer(1, 2)
    source.offer(3, name="b")
    assert numbers(source.queues[0].reclaim_undelivered(_even)) == [2]
    scheduler.start()
    assert numbers(seen) == [3]


def test_an_older_item_returned_to_the_queue_counts_as_dropped(bench: Bench, scheduler: TestScheduler) -> None:
    source, seen = Source(), list[int]()

    def receive(item: Item) -> None:
        seen.append(item.number)
        if item.number == 1:
            source.offer(5, name="b")
            source.queues[0].reclaim_undelivered(lambda _: False)

    bench.dispatcher.stream(source.attach, "a", Overflow.LATEST).subscribe(receive, scheduler=scheduler)
    source.offer(1)
    source.offer(3, name="b")
    scheduler.start()
    assert (seen, bench.dispatcher.dropped) == ([1, 5], 1)


def test_reclaiming_makes_room_in_a_full_queue(bench: Bench, scheduler: TestScheduler) -> None:
    source, seen = Source(), list[Item]()
    bench.dispatcher.stream(source.attach, "a", capacity=4).subscribe(seen.append, scheduler=scheduler)
    source.offer(2, 4, 6, 8)
    assert not bench.dispatcher.gate.is_open()
    source.queues[0].reclaim_undelivered(lambda item: item.number > 6)
    assert not bench.dispatcher.gate.is_open()
    source.queues[0].reclaim_undelivered(lambda item: item.number > 4)
    assert bench.dispatcher.gate.is_open()
    assert bench.opened == 1
    scheduler.start()
    assert numbers(seen) == [2, 4]


def test_an_item_is_either_delivered_or_reclaimed(bench: Bench) -> None:
    """Two threads race, with the shortest switch interval."""
    source, seen, reclaimed = Source(), list[int](), list[int]()
    done = threading.Event()
    interval = sys.getswitchinterval()
    total = 20_000
    bench.dispatcher.stream(source.attach, "a", capacity=10 * total).subscribe(
        lambda item: seen.append(item.number), on_completed=done.set
    )
    sys.setswitchinterval(1e-6)
    try:
        for start in range(0, total, 100):
            source.offer(*range(start, start + 100))
            reclaimed.extend(numbers(source.queues[0].reclaim_undelivered(_even)))
        source.queues[0].finish()
        assert done.wait(60.0)
    finally:
        sys.setswitchinterval(interval)
    assert sorted(seen + reclaimed) == list(range(total))
    assert seen == sorted(seen)
    assert reclaimed == sorted(reclaimed)
