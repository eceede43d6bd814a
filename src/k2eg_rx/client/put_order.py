"""The order of one client's puts: those to one record are sent in the order of the calls.

A put whose PV type has to be requested first is not passed by a later one. Only the sending is ordered: no put waits
for the reply to an earlier one.

Thread safety: the queues and turns belong to the lock. The thread that lets a put be the first of its queue sends it;
one thread at a time sends for each record. The lock is not held meanwhile, so that a put may cause further ones.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable, SingleAssignmentDisposable

_T = TypeVar("_T")
Action = Callable[[], None]


class Turn:
    """A put's place in the queue of its record. Made by `PutOrder.enter`."""

    __slots__ = ("_order", "action", "key")

    def __init__(self, order: PutOrder, key: str) -> None:
        self._order = order
        self.key = key
        self.action: Action | None = None

    def send(self, action: Action) -> bool:
        """Calls the action once, now or on another thread: when the puts before it were sent or abandoned.

        Returns:
            Whether it still waits for them. An abandoned put does not wait, and is not sent.
        """
        return self._order.send(self, action)

    def leave(self) -> bool:
        """Abandons the put, unless it was sent; returns whether that was the case now. Idempotent."""
        return self._order.leave(self)


class _Queue:
    __slots__ = ("sending", "turns")

    def __init__(self) -> None:
        self.turns: OrderedDict[Turn, None] = OrderedDict()
        self.sending = False  # the first one is being sent


class PutOrder:
    """One queue of puts per record. A record without puts that wait takes no memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: dict[str, _Queue] = {}

    def __len__(self) -> int:
        return len(self._queues)

    def enter(self, record: str) -> Turn:
        """Returns the place of a new put, behind those that entered before. It must be sent or abandoned."""
        turn = Turn(self, record)
        with self._lock:
            queue = self._queues.get(record)
            if queue is None:
                queue = self._queues[record] = _Queue()
            queue.turns[turn] = None
        return turn

    def send(self, turn: Turn, action: Action) -> bool:
        """See `Turn.send`."""
        with self._lock:
            queue = self._queues.get(turn.key)
            if queue is None or turn not in queue.turns:
                return False
            turn.action = action
        self._advance(turn.key)
        return turn.action is not None

    def leave(self, turn: Turn) -> bool:
        """See `Turn.leave`."""
        with self._lock:
            queue = self._queues.get(turn.key)
            if queue is None or turn not in queue.turns or (queue.sending and next(iter(queue.turns)) is turn):
                return False
            self._remove(queue, turn)
        self._advance(turn.key)
        return True

    def _remove(self, queue: _Queue, turn: Turn) -> None:
        del queue.turns[turn]
        turn.action = None
        if not queue.turns:
            del self._queues[turn.key]

    def _advance(self, record: str) -> None:
        """Sends the first puts of a queue, unless another thread, or this one further up, does so already."""
        while True:
            with self._lock:
                queue = self._queues.get(record)
                if queue is None or queue.sending:
                    return
                turn = next(iter(queue.turns))
                action, turn.action = turn.action, None
                if action is None:
                    return
                queue.sending = True
            try:
                action()
            except BaseException:
                self._sent(queue, turn)
                self._advance(record)  # the others do not wait for a put that failed
                raise
            self._sent(queue, turn)

    def _sent(self, queue: _Queue, turn: Turn) -> None:
        with self._lock:
            queue.sending = False
            self._remove(queue, turn)


def in_order(order: PutOrder, record: str, put: Callable[[Turn], Observable[_T]]) -> Observable[_T]:
    """Returns a put that enters the order at each subscription, and leaves it when it ends.

    Args:
        order: The client's order.
        record: The record.
        put: Returns the put, which is sent by its turn.
    """

    def subscribe(observer: abc.ObserverBase[_T], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        turn = order.enter(record)

        def leave() -> None:
            turn.leave()

        def fail(error: Exception) -> None:
            turn.leave()
            observer.on_error(error)

        try:
            subscription = put(turn).subscribe(observer.on_next, fail, observer.on_completed)
        except BaseException:  # also of the value's own methods
            turn.leave()
            raise
        return CompositeDisposable(subscription, Disposable(leave))

    return Observable(subscribe)


def in_turn(
    put: Observable[_T], turn: Turn, timeout: float, timed_out: Callable[[], Exception], timers: abc.SchedulerBase
) -> Observable[_T]:
    """Returns a put that is subscribed to, and so sent, when it is its turn.

    Args:
        put: The put; may be subscribed to on another thread.
        turn: Its turn.
        timeout: Seconds to wait for the turn.
        timed_out: Returns the error of a put that waited for longer; it is abandoned.
        timers: The scheduler of the timeout.
    """

    def subscribe(observer: abc.ObserverBase[_T], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        timer, sent = SingleAssignmentDisposable(), SingleAssignmentDisposable()

        def send() -> None:
            timer.dispose()
            sent.disposable = put.subscribe(observer)

        def expire(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            if turn.leave():
                observer.on_error(timed_out())

        if turn.send(send):
            timer.disposable = timers.schedule_relative(timeout, expire)
        return CompositeDisposable(timer, sent)

    return Observable(subscribe)
