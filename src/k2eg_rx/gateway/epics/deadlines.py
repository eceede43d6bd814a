"""One thread for all that has to happen later: deadlines of operations, and what must not hold up its caller.

In: actions, with a delay. Out: each is called once on the thread, unless it is cancelled before. Any thread.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)

_MOST_CANCELLED = 1000  # operations mostly end before their deadline; beyond these the heap is swept


class Deadline:
    """An action to come."""

    __slots__ = ("_owner", "action")

    def __init__(self, owner: Deadlines, action: Callable[[], None]) -> None:
        self._owner = owner
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Has the action not called, if it was not yet. Any thread; idempotent."""
        self._owner.cancel(self)


class Deadlines:
    """The thread and what it still has to do."""

    def __init__(self, name: str) -> None:
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, Deadline]] = []
        self._number = itertools.count()  # keeps the order of those that are due at the same time
        self._cancelled = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def after(self, seconds: float, action: Callable[[], None]) -> Deadline:
        """Has an action called in so many seconds, and returns it so that it can be cancelled."""
        deadline = Deadline(self, action)
        with self._changed:
            heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._number), deadline))
            if self._heap[0][2] is deadline:
                self._changed.notify()
        return deadline

    def soon(self, action: Callable[[], None]) -> None:
        """Has an action called as soon as possible."""
        self.after(0.0, action)

    def cancel(self, deadline: Deadline) -> None:
        """Drops an action; see `Deadline.cancel`."""
        with self._changed:
            if deadline.action is None:
                return
            deadline.action = None
            self._cancelled += 1
            if self._cancelled > _MOST_CANCELLED:
                self._heap = [entry for entry in self._heap if entry[2].action is not None]
                heapq.heapify(self._heap)
                self._cancelled = 0

    def close(self) -> None:
        """Calls what `soon` was asked for, forgets the rest, and ends the thread. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _next(self) -> Callable[[], None] | None:
        """Waits for the next action; None when it is closed and nothing is due."""
        with self._changed:
            while True:
                wait = self._heap[0][0] - time.monotonic() if self._heap else None
                if wait is not None and wait <= 0:
                    deadline = heapq.heappop(self._heap)[2]
                    action, deadline.action = deadline.action, None
                    if action is not None:
                        return action
                    self._cancelled -= 1
                elif self._closed:
                    return None
                else:
                    self._changed.wait(wait)

    def _run(self) -> None:
        while (action := self._next()) is not None:
            try:
                action()
            except Exception:
                _log.exception("an action on %s failed", self._thread.name)
