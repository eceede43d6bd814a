"""The command topic as an Observable.

In: batches of records, on the pump's thread. Out: records, one at a time, on the gateway's thread. The queue belongs to
the lock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

import reactivex
from reactivex import Observable, abc
from reactivex.disposable import Disposable

from k2eg_rx.gateway.runtime.event_loop import post
from k2eg_rx.transport import Receiver, Record

_BATCH = 100  # commands at a stretch, some 10 ms of work: updates and timers have their turn in between


class CommandSource(Receiver):
    """The receiver of the command topic.

    Args:
        scheduler: The gateway's thread.
        room: How many more commands the gateway has room for. Any thread.

    Attributes:
        wake: Called on the gateway's thread when there is room again, after the source was told that there is none.
    """

    def __init__(self, scheduler: abc.SchedulerBase, room: Callable[[], int]) -> None:
        self._scheduler = scheduler
        self._room = room
        self.wake: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._waiting: deque[Record] = deque()
        self._blocked = False
        self._observer: abc.ObserverBase[Record] | None = None

    def ready(self) -> bool:
        """Whether another batch is welcome; what is not stays in Kafka. On the pump's thread."""
        with self._lock:
            self._blocked = self._room() <= len(self._waiting)
            return not self._blocked

    def receive(self, records: Sequence[Record]) -> None:
        """Takes a batch, on the pump's thread."""
        with self._lock:
            first = not self._waiting
            self._waiting.extend(records)
        if first:
            post(self._scheduler, self._drain)

    def relieved(self) -> None:
        """Has the source ask again, if it was told that there is no room, and now there is."""
        with self._lock:
            wake = self._blocked and self._room() > len(self._waiting)
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
            post(self._scheduler, self._drain)
        self.relieved()

    def commands(self) -> Observable[Record]:
        """Returns the records of the command topic, for one subscriber."""

        def subscribe(observer: abc.ObserverBase[Record], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            self._observer = observer
            return Disposable(self._unsubscribe)

        return reactivex.create(subscribe)

    def _unsubscribe(self) -> None:
        self._observer = None
