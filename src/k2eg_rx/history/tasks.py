"""Tales told step by step, and the threads that take the steps.

In: tales, which know what comes next and whom to tell it. Out: their steps, one after another, each tale's on a thread
of its own (``k2eg-past``, a daemon that ends with the tale; it alone uses what the tale reads with). Where a scheduler
stands in for the real time, the steps are taken on that, and none may wait.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from reactivex import abc
from reactivex.disposable import Disposable, SerialDisposable

from k2eg_rx.errors import ClientClosedError, K2EGError

_log = logging.getLogger(__name__)


class Wakeup:
    """Rung by anybody who has reason to believe that a step is due before its time."""

    def __init__(self) -> None:
        self._rung = threading.Event()
        self.on_ring: Callable[[], None] = lambda: None

    @property
    def is_rung(self) -> bool:
        """Whether it was rung since the last step began."""
        return self._rung.is_set()

    def ring(self) -> None:
        """Has the next step taken at once. Any thread."""
        self._rung.set()
        self.on_ring()

    def clear(self) -> None:
        """Takes note that a step begins."""
        self._rung.clear()

    def wait(self, seconds: float) -> None:
        """Returns when it is rung, or after so many seconds."""
        self._rung.wait(seconds)


class StepTask(Protocol):
    """Something that is told step by step.

    Attributes:
        bell: Rung when a step is due before its time.
        over: Set by anybody, when no more steps are wanted.
    """

    bell: Wakeup
    over: threading.Event

    def step(self) -> float | None:
        """Does a little; returns the seconds until more is to be done, or None at the end. Raises what went wrong."""
        ...

    def fail(self, error: Exception) -> None:
        """Told that it will not come to its end. Any thread."""
        ...

    def close(self) -> None:
        """Gives back what it read with; after the last step, where that was taken."""
        ...


class TaskRunner:
    """Takes the steps of several tales at a time.

    Args:
        scheduler: Where steps are taken; None for threads.
    """

    def __init__(self, scheduler: abc.SchedulerBase | None = None) -> None:
        self._scheduler = scheduler
        self._lock = threading.Lock()
        self._tales: dict[StepTask, threading.Thread | None] = {}  # under the lock, as is `_closed`
        self._closed = False

    @property
    def may_wait(self) -> bool:
        """Whether a step may wait."""
        return self._scheduler is None

    def now(self) -> datetime:
        """Returns the present time, with a time zone."""
        if self._scheduler is None:
            return datetime.now(UTC)
        now = self._scheduler.now
        return now if now.tzinfo is not None else now.replace(tzinfo=UTC)

    def clock(self) -> float:
        """Returns seconds, for differences."""
        return time.monotonic() if self._scheduler is None else self.now().timestamp()

    def start(self, tale: StepTask) -> abc.DisposableBase:
        """Has a tale told; disposing ends it, without waiting for that."""
        thread = None
        if self._scheduler is None:
            thread = threading.Thread(target=self._tell, args=(tale,), name="k2eg-past", daemon=True)
        with self._lock:
            closed = self._closed
            if not closed:
                self._tales[tale] = thread
        if closed:
            tale.fail(ClientClosedError("the client is closed"))
        elif thread is not None:
            thread.start()
        elif self._scheduler is not None:
            self._tell_on(self._scheduler, tale)

        def stop() -> None:
            tale.over.set()
            tale.bell.ring()

        return Disposable(stop)

    def _tell(self, tale: StepTask) -> None:
        while (pause := self._step(tale)) is not None:
            if pause > 0:
                tale.bell.wait(pause)

    def _tell_on(self, scheduler: abc.SchedulerBase, tale: StepTask) -> None:
        next_turn = SerialDisposable()

        def turn(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            pause = self._step(tale)
            if pause is None:
                next_turn.dispose()
            else:
                next_turn.disposable = scheduler.schedule_relative(0.0 if tale.bell.is_rung else pause, turn)

        def soon() -> None:
            next_turn.disposable = scheduler.schedule(turn)

        tale.bell.on_ring = soon
        soon()

    def _step(self, tale: StepTask) -> float | None:
        """Takes a step; after the last one, clears up."""
        pause = None
        tale.bell.clear()
        try:
            pause = None if tale.over.is_set() else tale.step()
        except K2EGError as error:
            tale.fail(error)
        except Exception as error:
            _log.exception("telling the past failed")
            tale.fail(error)
        if pause is None:
            tale.over.set()
            tale.close()
            with self._lock:
                self._tales.pop(tale, None)
        return pause

    def stop(self) -> None:
        """Fails what is still being told, and has the threads end. Idempotent."""
        for tale, thread in self._shut().items():
            if not tale.over.is_set():
                tale.fail(ClientClosedError("the client was closed before the past was told"))
            tale.over.set()
            if thread is None:
                self._step(tale)  # time may not go on
            tale.bell.ring()

    def close(self, timeout: float) -> None:
        """Stops, and waits for the threads, for at most `timeout` seconds. Idempotent."""
        deadline = time.monotonic() + timeout
        self.stop()
        for thread in self._shut().values():
            if thread is not None and thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    def _shut(self) -> dict[StepTask, threading.Thread | None]:
        """Takes no more tales; returns those that are being told."""
        with self._lock:
            self._closed = True
            return dict(self._tales)
