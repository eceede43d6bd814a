"""The last step of every stream: the ordered, bounded, guarded hand-over to a subscriber.

In: items, in order, from the thread that has them (a pump, a timer); it is never blocked. Out: `on_next` calls, one
at a time for one subscriber, on a worker thread (or on the scheduler that was given to `subscribe`).

What happens to a slow subscriber is its own choice, `Overflow`; what is dropped is counted.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable
from reactivex.scheduler import ImmediateScheduler, TrampolineScheduler

from k2eg_rx.errors import ClientClosedError, K2EGError, WireError
from k2eg_rx.workers import Task, Workers

_log = logging.getLogger(__name__)

_T = TypeVar("_T")
_T_contra = TypeVar("_T_contra", contravariant=True)

DEFAULT_CAPACITY = 1024  # some 1 MB of ordinary events per subscriber
_SLICE = 256  # items taken at a time, since taking costs a lock
_TURNS = 4  # slices handed over before another mailbox gets its turn
_WORKER_LIMIT = 32  # handlers that block at the same time; threads are started only as needed


class Overflow(StrEnum):
    """What happens to events that a subscriber is too slow for.

    BLOCK: nothing is lost. The client stops reading events from Kafka until there is room, for its other event
    subscribers too; Kafka is the buffer. LATEST: of each PV the newest waits, older ones are dropped. DROP_OLDEST:
    the newest `capacity` events wait, older ones are dropped.
    """

    BLOCK = "block"
    LATEST = "latest"
    DROP_OLDEST = "drop_oldest"


class _Buffer(Protocol[_T]):
    def add(self, items: Iterable[_T]) -> int:
        """Takes items; returns how many, old or new, were dropped."""
        ...

    def take(self, count: int) -> list[_T]:
        """Returns, and forgets, the oldest items."""
        ...

    def __len__(self) -> int: ...


class _Queue(Generic[_T]):
    """Keeps all, or the newest `bound`."""

    def __init__(self, bound: int | None) -> None:
        self._items: deque[_T] = deque(maxlen=bound)

    def add(self, items: Iterable[_T]) -> int:
        new = list(items)
        bound = self._items.maxlen
        dropped = 0 if bound is None else max(0, len(self._items) + len(new) - bound)
        self._items.extend(new)
        return dropped

    def take(self, count: int) -> list[_T]:
        items = self._items
        if count >= len(items):
            taken = list(items)
            items.clear()
            return taken
        return [items.popleft() for _ in range(count)]

    def __len__(self) -> int:
        return len(self._items)


class _Newest(Generic[_T]):
    """Keeps the newest item of each name, in the order in which the names began to wait."""

    def __init__(self) -> None:
        self._items: dict[Any, _T] = {}

    def add(self, items: Iterable[_T]) -> int:
        dropped = 0
        for item in items:
            name = getattr(item, "name", None)
            dropped += name in self._items
            self._items[name] = item
        return dropped

    def take(self, count: int) -> list[_T]:
        names = list(self._items)[:count]
        return [self._items.pop(name) for name in names]

    def __len__(self) -> int:
        return len(self._items)


class Valve:
    """Open while every blocking mailbox has room; the event pump reads only while it is open.

    The count belongs to the lock. `on_open` is called on the thread that made room.
    """

    def __init__(self, on_open: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._full = 0
        self._on_open = on_open

    def is_open(self) -> bool:
        """Whether there is room everywhere."""
        return self._full == 0

    def shut(self) -> None:
        """One more mailbox is full."""
        with self._lock:
            self._full += 1

    def release(self) -> None:
        """One mailbox has room again."""
        with self._lock:
            self._full -= 1
            opened = self._full == 0
        if opened:
            self._on_open()


class Inlet(Protocol[_T_contra]):
    """The side of a mailbox that a stream's source sees. Any thread; nothing here blocks."""

    def offer(self, items: Sequence[_T_contra]) -> None:
        """Hands over items, in order."""
        ...

    def finish(self, error: Exception | None = None) -> None:
        """Ends the stream after what was offered: completed, or failed."""
        ...


class Mailbox(Generic[_T]):
    """One subscriber's items on their way.

    All state belongs to the lock, but the observer, which only the one drain at a time touches.

    Attributes:
        execute: Has a task run where the subscriber is called.
    """

    def __init__(
        self,
        observer: abc.ObserverBase[_T],
        execute: Callable[[Task], None],
        office: Delivery,
        label: str,
        *,
        overflow: Overflow,
        capacity: int,
    ) -> None:
        self._observer = observer
        self.execute = execute
        self._office = office
        self._label = label
        self._lock = threading.Lock()
        self._buffer: _Buffer[_T] = (
            _Newest() if overflow is Overflow.LATEST else _Queue(capacity if overflow is Overflow.DROP_OLDEST else None)
        )
        self._high = capacity if overflow is Overflow.BLOCK else None
        self._low = capacity // 2
        self._shut = False
        self._scheduled = False
        self._ended = False
        self._error: Exception | None = None
        self._disposed = False
        self._drainer: int | None = None  # the thread at it, if any; written by that thread

    def offer(self, items: Sequence[_T]) -> None:
        """Queues items; drops by the subscriber's policy, never blocks."""
        with self._lock:
            if self._disposed or self._ended:
                return
            dropped = self._buffer.add(items)
            if self._high is not None and not self._shut and len(self._buffer) >= self._high:
                self._shut = True
                self._office.valve.shut()
            start = self._start()
        if dropped:
            self._office.count_dropped(dropped)
        if start:
            self._run_soon()

    def finish(self, error: Exception | None = None) -> None:
        """Ends the stream after what is queued."""
        with self._lock:
            if self._disposed or self._ended:
                return
            self._ended = True
            self._error = error
            start = self._start()
        if start:
            self._run_soon()

    def dispose(self) -> None:
        """Forgets what is queued; no more is handed over, but for an item under way."""
        with self._lock:
            if self._disposed:
                return
            self._disposed = True
            self._buffer.take(len(self._buffer))
            shut, self._shut = self._shut, False
        if shut:
            self._office.valve.release()
        self._office.leave(self)

    def is_drained_here(self) -> bool:
        """Whether the caller's thread is at it."""
        return self._drainer == threading.get_ident()

    def is_idle(self) -> bool:
        """Whether nothing is queued and nobody is at it, but perhaps the caller."""
        with self._lock:
            return not self._scheduled or self.is_drained_here()

    def _run_soon(self) -> None:
        try:
            self.execute(self._drain)
        except Exception:  # the subscriber's own scheduler is gone
            _log.debug("the scheduler of a subscriber to %s takes no more work", self._label, exc_info=True)
            self.dispose()

    def _start(self) -> bool:
        if self._scheduled:
            return False
        self._scheduled = True
        return True

    def _take(self) -> list[_T]:
        """Returns the next items; with none left, gives up the turn, unless the end has still to be told."""
        with self._lock:
            items = self._buffer.take(_SLICE)
            room = self._shut and len(self._buffer) <= self._low
            if room:
                self._shut = False
            if not items and (self._disposed or not self._ended):
                self._scheduled = False
        if room:
            self._office.valve.release()
        return items

    def _drain(self) -> None:
        self._drainer = threading.get_ident()
        items: list[_T] = []
        for _ in range(_TURNS):
            items = self._take()
            self._hand_over(items)
            if not items:
                break
        self._drainer = None
        if items:
            self._run_soon()  # at the end of the line: the others have their turn first
        elif self._ended and not self._disposed:
            self._tell_end()
        else:
            self._office.rest()

    def _hand_over(self, items: Sequence[_T]) -> None:
        prepare, on_next = self._office.prepare, self._observer.on_next
        for item in items:
            if self._disposed:
                return
            try:
                prepare(item)
            except WireError as error:
                self._office.discard(error, self._label)
                continue
            except K2EGError as error:
                self._fail(error)
                return
            try:
                on_next(item)
            except Exception as error:
                _log.exception("a subscriber to %s raised; its subscription ends", getattr(item, "name", self._label))
                self._fail(error)
                return

    def _fail(self, error: Exception) -> None:
        try:
            self._observer.on_error(error)
        except Exception as unhandled:
            if unhandled is not error:  # reactivex raises the error itself where no on_error was given
                _log.exception("the error handler of a subscriber to %s raised", self._label)
            else:
                _log.error("%s failed, and its subscriber has no on_error: %s", self._label, error)
        self.dispose()

    def _tell_end(self) -> None:
        if self._error is not None:
            self._fail(self._error)
            return
        try:
            self._observer.on_completed()
        except Exception:
            _log.exception("a subscriber to %s raised at its completion", self._label)
        self.dispose()


class Delivery:
    """Makes mailboxes, and the threads they are drained on, for one client.

    Args:
        prepare: Called on the worker with each item before it is handed over (it decodes); may raise `WireError`,
            whereupon the item is discarded, or another `K2EGError`, which ends the subscription.
        discard: Told of what was discarded, and of which stream.
        on_room: Called when the valve opens.
    """

    def __init__(
        self,
        prepare: Callable[[Any], None],
        discard: Callable[[WireError, str], None],
        on_room: Callable[[], None],
    ) -> None:
        self.prepare = prepare
        self.discard = discard
        self.valve = Valve(on_room)
        self._workers = Workers(_WORKER_LIMIT, "k2eg-subscriber")
        self._condition = threading.Condition()
        self._mailboxes: set[Mailbox[Any]] = set()
        self._dropped = 0
        self._closed = False

    @property
    def dropped(self) -> int:
        """How many events were dropped by their subscribers' policies."""
        return self._dropped

    def stream(
        self,
        attach: Callable[[Inlet[_T]], abc.DisposableBase],
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
        if capacity < 1:
            raise ValueError(f"capacity has to be at least 1, not {capacity}")
        overflow = Overflow(overflow)

        def subscribe(observer: abc.ObserverBase[_T], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            mailbox = Mailbox(observer, self._executor(scheduler), self, label, overflow=overflow, capacity=capacity)
            if not self._enter(mailbox):
                observer.on_error(ClientClosedError(f"{label}: the client is closed"))
                return Disposable()
            try:
                source = attach(mailbox)
            except BaseException:
                mailbox.dispose()
                raise

            def dispose() -> None:
                source.dispose()
                mailbox.dispose()

            return Disposable(dispose)

        return Observable(subscribe)

    def hand_over(self, source: Observable[_T], label: str) -> Observable[_T]:
        """Returns a stream of few items (a request's) as one whose subscribers are called on a worker."""

        def attach(inlet: Inlet[_T]) -> abc.DisposableBase:
            return source.subscribe(lambda item: inlet.offer((item,)), inlet.finish, inlet.finish)

        return self.stream(attach, label)

    def _executor(self, scheduler: abc.SchedulerBase | None) -> Callable[[Task], None]:
        """The pool; or the scheduler that the subscriber asked for. Operators pass on the trampoline and the immediate
        one by themselves, which would run the subscriber on the thread of the pump: those do not count as asked for."""
        if scheduler is None or isinstance(scheduler, (TrampolineScheduler, ImmediateScheduler)):
            return self._workers.submit

        def execute(task: Task) -> None:
            def action(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
                task()

            scheduler.schedule(action)

        return execute

    def _enter(self, mailbox: Mailbox[Any]) -> bool:
        with self._condition:
            if not self._closed:
                self._mailboxes.add(mailbox)
            return not self._closed

    def _on_workers(self) -> list[Mailbox[Any]]:
        return [mailbox for mailbox in self._mailboxes if mailbox.execute == self._workers.submit]

    def leave(self, mailbox: Mailbox[Any]) -> None:
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
        with self._condition:
            self._condition.wait_for(lambda: all(box.is_idle() for box in self._on_workers()), timeout)
            left = self._on_workers()
        for mailbox in left:
            mailbox.dispose()
        self._workers.close(timeout)
