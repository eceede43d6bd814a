"""The command topic as an Observable of records."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

import reactivex
from reactivex import Observable, abc
from reactivex.disposable import Disposable

from k2eg_rx.gateway.runtime.event_loop import call_soon
from k2eg_rx.transport import Receiver, Record

_BATCH = 100  # commands per turn of the event loop, about 10 ms of work; updates and timers run in between


class CommandSource(Receiver):
    """Receives batches on the poll thread and emits the records on the event loop thread.

    Thread safety: a lock guards the queue between the two threads.

    Args:
        scheduler: The event loop.
        capacity: Returns how many more commands the gateway may accept. Called on both threads.

    Attributes:
        wake: Called on the event loop thread when the gateway has capacity again, after `ready` returned False.
    """

    def __init__(self, scheduler: abc.SchedulerBase, capacity: Callable[[], int]) -> None:
        self._scheduler = scheduler
        self._capacity = capacity
        self.wake: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._waiting: deque[Record] = deque()
        self._blocked = False
        self._observer: abc.ObserverBase[Record] | None = None

    def ready(self) -> bool:
        """Returns whether another batch may be delivered; further commands stay in Kafka until then."""
        with self._lock:
            self._blocked = self._capacity() <= len(self._waiting)
            return not self._blocked

    def receive(self, records: Sequence[Record]) -> None:
        """Enqueues a batch. Called on the poll thread."""
        with self._lock:
            first = not self._waiting
            self._waiting.extend(records)
        if first:
            call_soon(self._scheduler, self._drain)

    def capacity_available(self) -> None:
        """Calls `wake` if `ready` returned False before and there is capacity now."""
        with self._lock:
            wake = self._blocked and self._capacity() > len(self._waiting)
            if wake:
                self._blocked = False
        if wake:
            self.wake()

    def _drain(self) -> None:
        with self._lock:
            records = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            again = bool(self._waiting)
        for record in records:
            if self._observer is not None:
                self._observer.on_next(record)
        if again:
            call_soon(self._scheduler, self._drain)
        self.capacity_available()

    def records(self) -> Observable[Record]:
        """Returns the records of the command topic, for a single subscriber."""

        def subscribe(observer: abc.ObserverBase[Record], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            self._observer = observer
            return Disposable(self._unsubscribe)

        return reactivex.create(subscribe)

    def _unsubscribe(self) -> None:
        self._observer = None
