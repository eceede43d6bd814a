"""The order of one client's puts: those to one record are sent in the order of the calls.

A put whose PV type has to be requested first is not passed by a later one to the same PV. One to another field of the
record, such as ``STOP``, waits for it for `_PATIENCE` seconds. Then the earlier one is abandoned with an error, since
sent later it would undo what the later one did: a motor would start after its stop. Only the sending is ordered: no put
waits for the reply to an earlier one.

Thread safety: the queues and turns belong to the lock. The thread that lets a put be the first of its queue sends it;
one thread at a time sends for each record. The lock is not held meanwhile, so that a put may cause further ones.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable, SingleAssignmentDisposable

from k2eg_rx.errors import OperationTimeout
from k2eg_rx.protocol import PutCommand
from k2eg_rx.pv import PVAddress

_T = TypeVar("_T")
Action = Callable[[], None]

# Seconds that a put waits for the type of an earlier one to another field. A gateway describes a PV in some 10 ms, one
# that it has to search for in 0.1 to 0.3 s.
_PATIENCE = 0.5


def _overtaken(turn: Turn, by: Turn, now: datetime) -> OperationTimeout:
    text = f"nothing was written: a later put, to {by.pv}, had waited {_PATIENCE:g} s for the type of this PV"
    return OperationTimeout(PutCommand.operation, turn.uri, round((now - turn.since).total_seconds(), 1), text)


class Turn:
    """A put's place in the queue of its record. Made by `PutOrder.enter`."""

    __slots__ = ("_order", "action", "on_overtaken", "patience", "pv", "record", "since", "uri")

    def __init__(
        self, order: PutOrder, address: PVAddress, since: datetime, on_overtaken: Callable[[Exception], None]
    ) -> None:
        self._order = order
        self.since = since
        self.uri = address.uri
        self.record = address.base
        field = address.field.removesuffix("$")
        self.pv = f"{address.base}.{field}" if address.is_record_field and field != "VAL" else address.base
        self.on_overtaken = on_overtaken
        self.action: Action | None = None
        self.patience: SingleAssignmentDisposable | None = None

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
    __slots__ = ("by_pv", "sending", "turns")

    def __init__(self) -> None:
        self.turns: OrderedDict[Turn, None] = OrderedDict()
        self.by_pv: dict[str, OrderedDict[Turn, None]] = {}
        self.sending = False  # the first one is being sent

    def is_sending(self, turn: Turn) -> bool:
        return self.sending and next(iter(self.turns)) is turn

    def add(self, turn: Turn) -> None:
        self.turns[turn] = None
        self.by_pv.setdefault(turn.pv, OrderedDict())[turn] = None

    def remove(self, turn: Turn) -> None:
        del self.turns[turn]
        same = self.by_pv[turn.pv]
        del same[turn]
        if not same:
            del self.by_pv[turn.pv]
        turn.action = None
        if turn.patience is not None:
            turn.patience.dispose()

    def impatient(self) -> list[tuple[Turn, SingleAssignmentDisposable]]:
        """Returns the turns that from now on wait only for those of other PVs."""
        turns = [
            turn
            for turn in (next(iter(turns)) for turns in self.by_pv.values())
            if turn.action is not None and turn.patience is None
        ]
        timers: list[tuple[Turn, SingleAssignmentDisposable]] = []
        for turn in turns:
            turn.patience = SingleAssignmentDisposable()
            timers.append((turn, turn.patience))
        return timers

    def overtake(self, turn: Turn) -> list[Turn]:
        """Removes and returns those before a turn that cannot be sent yet."""
        overtaken: list[Turn] = []
        for other in self.turns:
            if other is turn:
                break
            if other.action is None and not self.is_sending(other):
                overtaken.append(other)
        for other in overtaken:
            self.remove(other)
        return overtaken


class PutOrder:
    """One queue of puts per record. A record without puts that wait takes no memory.

    Args:
        timers: The scheduler of the time that a put waits for those to other fields.
        can_send: Whether puts can be sent; before that none overtakes another.
    """

    def __init__(self, timers: abc.SchedulerBase, can_send: Callable[[], bool] = lambda: True) -> None:
        self._timers = timers
        self._can_send = can_send
        self._lock = threading.Lock()
        self._queues: dict[str, _Queue] = {}

    def __len__(self) -> int:
        return len(self._queues)

    @property
    def waiting(self) -> int:
        """The number of puts that wait only for those before them."""
        with self._lock:
            return sum(turn.action is not None for queue in self._queues.values() for turn in queue.turns)

    def enter(self, address: PVAddress, on_overtaken: Callable[[Exception], None] = lambda _: None) -> Turn:
        """Returns the place of a new put, behind those that entered before. It must be sent or abandoned.

        Args:
            address: The PV.
            on_overtaken: Called with the error, on the timers' thread, if the put is abandoned for a later one.
        """
        turn = Turn(self, address, self._timers.now, on_overtaken)
        with self._lock:
            queue = self._queues.get(turn.record)
            if queue is None:
                queue = self._queues[turn.record] = _Queue()
            queue.add(turn)
        return turn

    def send(self, turn: Turn, action: Action) -> bool:
        """See `Turn.send`."""
        with self._lock:
            queue = self._queues.get(turn.record)
            if queue is None or turn not in queue.turns:
                return False
            turn.action = action
        self._advance(turn.record)
        return turn.action is not None

    def leave(self, turn: Turn) -> bool:
        """See `Turn.leave`."""
        with self._lock:
            queue = self._queues.get(turn.record)
            if queue is None or turn not in queue.turns or queue.is_sending(turn):
                return False
            self._remove(queue, turn)
        self._advance(turn.record)
        return True

    def _remove(self, queue: _Queue, turn: Turn) -> None:
        queue.remove(turn)
        if not queue.turns:
            del self._queues[turn.record]

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
                    impatient = queue.impatient()
                    break
                queue.sending = True
            try:
                action()
            except BaseException:
                self._sent(queue, turn)
                self._advance(record)  # the others do not wait for a put that failed
                raise
            self._sent(queue, turn)
        for waiting, timer in impatient:
            self._be_patient(waiting, timer)

    def _be_patient(self, turn: Turn, timer: SingleAssignmentDisposable) -> None:
        def expire(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            self._overtake(turn)

        timer.disposable = self._timers.schedule_relative(_PATIENCE, expire)

    def _overtake(self, turn: Turn) -> None:
        """Sends a put; abandons those to other fields that it has waited for."""
        overtaken: list[Turn] = []
        with self._lock:
            queue = self._queues.get(turn.record)
            if queue is None or turn not in queue.turns or turn.action is None:
                return
            turn.patience = None
            if self._can_send():
                overtaken = queue.overtake(turn)
        try:
            self._advance(turn.record)
        finally:
            for other in overtaken:
                other.on_overtaken(_overtaken(other, turn, self._timers.now))

    def _sent(self, queue: _Queue, turn: Turn) -> None:
        with self._lock:
            queue.sending = False
            self._remove(queue, turn)


def in_order(order: PutOrder, address: PVAddress, put: Callable[[Turn], Observable[_T]]) -> Observable[_T]:
    """Returns a put that enters the order at each subscription, and leaves it when it ends.

    Args:
        order: The client's order.
        address: The PV.
        put: Returns the put, which is sent by its turn.
    """

    def subscribe(observer: abc.ObserverBase[_T], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        subscription = SingleAssignmentDisposable()
        failed = threading.Lock()  # acquired once, by the thread that reports the error

        def fail(error: Exception) -> None:
            turn.leave()
            if failed.acquire(blocking=False):
                observer.on_error(error)

        def abandon(error: Exception) -> None:
            subscription.dispose()
            fail(error)

        def leave() -> None:
            turn.leave()

        turn = order.enter(address, abandon)
        try:
            subscription.disposable = put(turn).subscribe(observer.on_next, fail, observer.on_completed)
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
