"""The dispatcher: calls each subscriber in order, on one thread at a time, without blocking the poll thread.

Thread safety: any thread. Subscribers are called on the executor's threads, on the scheduler that was given to
`subscribe`, or inline on the poll thread (`Dispatcher.collect_inline`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

from reactivex import Observable, abc
from reactivex.disposable import Disposable
from reactivex.typing import Subscription

from k2eg_rx.arguments import at_least_one
from k2eg_rx.concurrency import Task, TaskExecutor, chosen_scheduler
from k2eg_rx.delivery.buffers import Buffer, Overflow, buffer_for
from k2eg_rx.delivery.gates import BackpressureGate, ReplayGate
from k2eg_rx.delivery.subscriber_queue import SubscriberInput, SubscriberQueue
from k2eg_rx.errors import ClientClosedError, WireError
from k2eg_rx.transport import InlineWork

_T = TypeVar("_T")
_Gate = TypeVar("_Gate", bound=BackpressureGate)

DEFAULT_CAPACITY = 1024  # some 1 MB of ordinary events per subscriber


class LabelledObservable(Observable[_T]):
    """An Observable with a label for error messages, such as the PV's URI. What its `pipe` returns has it too.

    Attributes:
        label: The label.
        overflow: The overflow policy of its subscribers, if they have queues.
    """

    def __init__(self, subscribe: Subscription[_T], label: str, overflow: Overflow | None = None) -> None:
        super().__init__(subscribe)
        self.label = label
        self.overflow = overflow

    def pipe(self, *operators: Callable[[Any], Any]) -> Any:
        """Composes operators, as `Observable.pipe` does."""
        result: Any = super().pipe(*operators)
        if type(result) is Observable:  # not one that belongs to others, such as a subject
            vars(cast("object", result)).setdefault("label", self.label)
        return cast("Any", result)


def label_of(stream: Observable[Any]) -> str:
    """Returns the label of a stream, or "the stream" if it has none."""
    label = vars(stream).get("label")
    return label if isinstance(label, str) else "the stream"


def overflow_of(stream: Observable[Any]) -> Overflow | None:
    """Returns the overflow policy of a client's own stream; None for others."""
    return stream.overflow if isinstance(stream, LabelledObservable) else None


class Dispatcher:
    """Makes the queues of one client's subscribers and drains them. All state belongs to the condition's lock.

    Attributes:
        gate: Open while no blocking queue is full.

    Args:
        prepare: Called with each item before its delivery, on the thread that delivers (it decodes). On `WireError` the
            item is dropped, on another `K2EGError` the subscription fails.
        on_decode_error: Called with that `WireError` and the stream's label.
        on_room: Called when the gate opens.
        executor: Runs the subscribers' code; closed with the dispatcher.
        yield_to_requests: Called between slices of many items, to let other threads have the processor.
        is_behind: Returns whether many records wait in Kafka; see `source_is_behind`.
    """

    def __init__(
        self,
        prepare: Callable[[Any], None],
        on_decode_error: Callable[[WireError, str], None],
        on_room: Callable[[], None],
        executor: TaskExecutor,
        *,
        yield_to_requests: Callable[[], None] = lambda: None,
        is_behind: Callable[[], bool] = lambda: False,
    ) -> None:
        self.prepare = prepare
        self.is_behind = is_behind
        self.yield_to_requests = yield_to_requests
        self.on_decode_error = on_decode_error
        self.gate = BackpressureGate(on_room)
        self._executor = executor
        self._condition = threading.Condition()
        self._queues: set[SubscriberQueue[Any]] = set()
        self._dropped = 0
        self._closed = False

    def collect_inline(self) -> InlineWork | None:
        """Collects the subscriber calls that the calling thread causes; see `FloodHints.collect_inline`."""
        return self._executor.collect_inline()

    @property
    def dropped(self) -> int:
        """The number of items that were dropped by overflow policies."""
        return self._dropped

    def stream(
        self,
        attach: Callable[[SubscriberInput[_T]], abc.DisposableBase],
        label: str,
        overflow: Overflow = Overflow.BLOCK,
        capacity: int = DEFAULT_CAPACITY,
        make_buffer: Callable[[Overflow, int], Buffer[Any]] = buffer_for,
    ) -> Observable[_T]:
        """Returns an observable whose every subscription has a queue of its own.

        Args:
            attach: Connects a queue to its source; disposing the result disconnects it.
            label: The stream's name, for the log.
            overflow: The policy for a slow subscriber.
            capacity: How many items may be queued, at least 1.
            make_buffer: Makes the buffer of a policy.

        Raises:
            ValueError: The capacity is below 1, or the policy is unknown.
        """
        return self._stream(
            lambda queue, _: attach(queue), lambda: self.gate, label, overflow, capacity, make_buffer=make_buffer
        )

    def replay_stream(
        self,
        attach: Callable[[SubscriberInput[_T], ReplayGate], abc.DisposableBase],
        label: str,
        overflow: Overflow,
        capacity: int,
    ) -> Observable[_T]:
        """Returns an observable like `stream`'s, whose queues each have a gate of their own, given to `attach`."""
        return self._stream(attach, lambda: ReplayGate(self.gate), label, overflow, capacity)

    def _stream(
        self,
        attach: Callable[[SubscriberInput[_T], _Gate], abc.DisposableBase],
        make_gate: Callable[[], _Gate],
        label: str,
        overflow: Overflow,
        capacity: int,
        *,
        make_buffer: Callable[[Overflow, int], Buffer[Any]] = buffer_for,
    ) -> Observable[_T]:
        capacity = at_least_one(capacity, "capacity")
        overflow = Overflow(overflow)

        def subscribe(observer: abc.ObserverBase[_T], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            gate = make_gate()
            execute = self._execute_on(scheduler)
            rest = self._executor.resubmit if execute == self._executor.submit else execute
            queue = SubscriberQueue(
                observer,
                execute,
                rest,
                self,
                gate=gate,
                label=label,
                overflow=overflow,
                capacity=capacity,
                make_buffer=make_buffer,
            )
            if not self._add(queue):
                observer.on_error(ClientClosedError(f"{label}: the client is closed"))
                return Disposable()
            try:
                source = attach(queue, gate)
            except BaseException:
                queue.dispose()
                raise

            def dispose() -> None:
                source.dispose()
                queue.dispose()

            return Disposable(dispose)

        return LabelledObservable(subscribe, label, overflow)

    def deliver(self, source: Observable[_T], label: str) -> Observable[_T]:
        """Returns a stream of few items, such as a request's, as one whose subscribers are called by the executor."""

        def attach(queue: SubscriberInput[_T]) -> abc.DisposableBase:
            return source.subscribe(lambda item: queue.offer((item,)), queue.finish, queue.finish)

        return self.stream(attach, label)

    def _execute_on(self, scheduler: abc.SchedulerBase | None) -> Callable[[Task], None]:
        """Returns the executor's `submit`, or what runs tasks on the scheduler that the user gave to `subscribe`."""
        scheduler = chosen_scheduler(scheduler)
        if scheduler is None:
            return self._executor.submit

        def execute(task: Task) -> None:
            def action(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
                task()

            scheduler.schedule(action)

        return execute

    def _add(self, queue: SubscriberQueue[Any]) -> bool:
        with self._condition:
            if not self._closed:
                self._queues.add(queue)
            return not self._closed

    def _executor_queues(self) -> list[SubscriberQueue[Any]]:
        return [queue for queue in self._queues if queue.execute == self._executor.submit]

    def remove(self, queue: SubscriberQueue[Any]) -> None:
        """Removes a queue that has ended."""
        with self._condition:
            self._queues.discard(queue)
            self._condition.notify_all()

    def on_idle(self) -> None:
        """Wakes `close` when a queue has delivered all its items."""
        if self._closed:
            with self._condition:
                self._condition.notify_all()

    def count_dropped(self, count: int) -> None:
        """Counts dropped items."""
        with self._condition:
            self._dropped += count

    def is_worker(self) -> bool:
        """Whether the calling thread is in a subscriber's callback."""
        with self._condition:
            return any(queue.is_drained_here() for queue in self._queues)

    def close(self, timeout: float) -> None:
        """Completes every stream after its queued items and closes the executor, in at most `timeout` seconds.

        Called in a subscriber's callback, it does not wait for that subscriber. Nor does it wait for subscribers on
        schedulers of their own, which complete when their scheduler runs. Idempotent.
        """
        with self._condition:
            self._closed = True
            queues = set(self._queues)
        for queue in queues:
            queue.finish()
        self._executor.wait_for(
            self._condition, lambda: all(queue.is_idle() for queue in self._executor_queues()), timeout
        )
        with self._condition:
            unfinished = self._executor_queues()
        for queue in unfinished:
            queue.dispose()
        self._executor.close(timeout)
