"""The last step of every stream: the ordered, bounded, guarded hand-over to a subscriber.

In: items, in order, from the thread that has them (a pump, a timer); it is never blocked. Out: `on_next` calls, one
at a time for one subscriber, on a worker thread (or on the scheduler that was given to `subscribe`). In a flood, the
thread that has the items may do the worker's part (`collect_inline`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable
from reactivex.typing import Subscription

from k2eg_rx.concurrency import Task, TaskExecutor, chosen_scheduler
from k2eg_rx.delivery.buffers import Overflow
from k2eg_rx.delivery.gates import ReplayGate
from k2eg_rx.delivery.subscriber_queue import BackpressureGate, SubscriberInput, SubscriberQueue
from k2eg_rx.errors import ClientClosedError, WireError
from k2eg_rx.transport import InlineWork

_T = TypeVar("_T")
_V = TypeVar("_V", bound=BackpressureGate)

DEFAULT_CAPACITY = 1024  # some 1 MB of ordinary events per subscriber


class LabelledObservable(Observable[_T]):
    """An Observable with a label for error messages, such as the PV's URI."""

    def __init__(self, subscribe: Subscription[_T], label: str) -> None:
        super().__init__(subscribe)
        self.label = label


def label_of(stream: Observable[Any]) -> str:
    """Returns the label of a stream, or "the stream" if it has none."""
    return stream.label if isinstance(stream, LabelledObservable) else "the stream"


class Dispatcher:
    """Makes mailboxes, and the threads they are drained on, for one client.

    Args:
        prepare: Called on the worker with each item before it is handed over (it decodes); may raise `WireError`,
            whereupon the item is discarded, or another `K2EGError`, which ends the subscription.
        discard: Told of what was discarded, and of which stream.
        on_room: Called when the valve opens.
        executor: Runs the subscribers' code.
        give_way: Called by who has much to hand over, now and then, so that others can have the processor first.
    """

    def __init__(
        self,
        prepare: Callable[[Any], None],
        discard: Callable[[WireError, str], None],
        on_room: Callable[[], None],
        executor: TaskExecutor,
        *,
        yield_to_requests: Callable[[], None] = lambda: None,
    ) -> None:
        self.prepare = prepare
        self.yield_to_requests = yield_to_requests
        self.discard = discard
        self.valve = BackpressureGate(on_room)
        self._workers = executor
        self._condition = threading.Condition()
        self._mailboxes: set[SubscriberQueue[Any]] = set()
        self._dropped = 0
        self._closed = False

    def collect_inline(self) -> InlineWork | None:
        """Leaves to the caller's thread what there is to hand over; see `Receiver.collect_inline`."""
        return self._workers.collect_inline()

    @property
    def dropped(self) -> int:
        """How many events were dropped by their subscribers' policies."""
        return self._dropped

    def stream(
        self,
        attach: Callable[[SubscriberInput[_T]], abc.DisposableBase],
        label: str,
        overflow: Overflow = Overflow.BLOCK,
        capacity: int = DEFAULT_CAPACITY,
    ) -> Observable[_T]:
        """Returns an observable whose every subscription gets a mailbox of its own.

        Args:
            attach: Connects a mailbox to the source of its items; what it returns undoes that.
            label: What the stream is about, for the log.
            overflow: What happens to what the subscriber is too slow for.
            capacity: How many items may wait.
        """
        return self._stream(lambda inlet, _: attach(inlet), lambda: self.valve, label, overflow, capacity)

    def stream_of_past(
        self,
        attach: Callable[[SubscriberInput[_T], ReplayGate], abc.DisposableBase],
        label: str,
        overflow: Overflow,
        capacity: int,
    ) -> Observable[_T]:
        """Returns an observable whose mailboxes each have a valve of their own, for their source to join to the common.

        Args:
            attach: As for `stream`; given the valve too.
            label: As for `stream`.
            overflow: As for `stream`.
            capacity: As for `stream`.
        """
        return self._stream(attach, lambda: ReplayGate(self.valve), label, overflow, capacity)

    def _stream(
        self,
        attach: Callable[[SubscriberInput[_T], _V], abc.DisposableBase],
        make_valve: Callable[[], _V],
        label: str,
        overflow: Overflow,
        capacity: int,
    ) -> Observable[_T]:
        if capacity < 1:
            raise ValueError(f"capacity has to be at least 1, not {capacity}")
        overflow = Overflow(overflow)

        def subscribe(observer: abc.ObserverBase[_T], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            valve = make_valve()
            office = self if valve is self.valve else _Branch(self, valve)
            execute = self._executor(scheduler)
            rest = self._workers.resubmit if execute == self._workers.submit else execute
            mailbox = SubscriberQueue(observer, execute, rest, office, label, overflow=overflow, capacity=capacity)
            if not self._enter(mailbox):
                observer.on_error(ClientClosedError(f"{label}: the client is closed"))
                return Disposable()
            try:
                source = attach(mailbox, valve)
            except BaseException:
                mailbox.dispose()
                raise

            def dispose() -> None:
                source.dispose()
                mailbox.dispose()

            return Disposable(dispose)

        return LabelledObservable(subscribe, label)

    def hand_over(self, source: Observable[_T], label: str) -> Observable[_T]:
        """Returns a stream of few items (a request's) as one whose subscribers are called on a worker."""

        def attach(inlet: SubscriberInput[_T]) -> abc.DisposableBase:
            return source.subscribe(lambda item: inlet.offer((item,)), inlet.finish, inlet.finish)

        return self.stream(attach, label)

    def _executor(self, scheduler: abc.SchedulerBase | None) -> Callable[[Task], None]:
        """The pool; or the scheduler that the subscriber asked for. Operators pass on some by themselves, and those do
        not count as asked for: the trampoline and the immediate one would run the subscriber on the thread of the pump,
        reactivex's default for timers on a new thread for each slice of items."""
        scheduler = chosen_scheduler(scheduler)
        if scheduler is None:
            return self._workers.submit

        def execute(task: Task) -> None:
            def action(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
                task()

            scheduler.schedule(action)

        return execute

    def _enter(self, mailbox: SubscriberQueue[Any]) -> bool:
        with self._condition:
            if not self._closed:
                self._mailboxes.add(mailbox)
            return not self._closed

    def _on_workers(self) -> list[SubscriberQueue[Any]]:
        return [mailbox for mailbox in self._mailboxes if mailbox.execute == self._workers.submit]

    def leave(self, mailbox: SubscriberQueue[Any]) -> None:
        """Forgets a mailbox."""
        with self._condition:
            self._mailboxes.discard(mailbox)
            self._condition.notify_all()

    def rest(self) -> None:
        """Told by a mailbox that has handed over all it had."""
        if self._closed:
            with self._condition:
                self._condition.notify_all()

    def count_dropped(self, count: int) -> None:
        """Counts dropped events."""
        with self._condition:
            self._dropped += count

    def is_worker(self) -> bool:
        """Whether the caller is a subscriber that is being handed something."""
        with self._condition:
            return any(mailbox.is_drained_here() for mailbox in self._mailboxes)

    def close(self, timeout: float) -> None:
        """Completes every stream after what is queued, for at most `timeout` seconds, and ends the threads.

        Called on a worker (from a subscriber), it does not wait for that subscriber, nor for those who are called on
        a scheduler of their own: they get their end when it runs. Idempotent.
        """
        with self._condition:
            self._closed = True
            mailboxes = set(self._mailboxes)
        for mailbox in mailboxes:
            mailbox.finish()
        self._workers.wait_for(self._condition, lambda: all(box.is_idle() for box in self._on_workers()), timeout)
        with self._condition:
            left = self._on_workers()
        for mailbox in left:
            mailbox.dispose()
        self._workers.close(timeout)


class _Branch:
    """The office of a mailbox with a valve of its own; all else is the delivery's.

    Args:
        delivery: Whose branch it is.
        valve: Shut while the mailbox is full.
    """

    def __init__(self, delivery: Dispatcher, valve: BackpressureGate) -> None:
        self.valve = valve
        self.prepare = delivery.prepare
        self.discard = delivery.discard
        self.leave = delivery.leave
        self.yield_to_requests = delivery.yield_to_requests
        self.rest = delivery.rest
        self.count_dropped = delivery.count_dropped
