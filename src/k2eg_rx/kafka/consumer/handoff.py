"""A loop that changes threads: who runs it may leave for other work, and if that takes long another thread goes on.

In: the loop, and work to leave for. Out: calls of the loop, by one thread at a time. Calling subscribers on the thread
that has just read their events saves a third of an event's processor time, as the events need not get from one
processor's cache into another's; but a subscriber may take as long as it likes, and reading must not wait for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from k2eg_rx.transport import Work

_log = logging.getLogger(__name__)

_LOOK = 0.005  # seconds between two looks: work that has not moved on between them takes long
_LOOKS = 100  # without anybody away, after which nobody looks any more, until somebody is
_IDLE = 10.0  # seconds after which who has nothing to look at ends; the next flood starts another
_REST = 1.0  # seconds after work that took long in which nobody leaves: the next would be likely to, too


class Handoff:
    """The turn at a loop, which one thread has at a time.

    Who has the turn, who watches, and what the holder is away for belong to the lock. What the loop uses belongs to the
    holder.

    Args:
        name: The threads'.
        loop: Called on the first thread, and on each that takes over. It has to return as soon as its thread does not
            have the turn any more; if it returns while it has, all is over.
    """

    def __init__(self, name: str, loop: Callable[[], None]) -> None:
        self._name = name
        self._loop = loop
        self._lock = threading.Lock()
        self._holder: threading.Thread | None = None
        self._watcher: threading.Thread | None = None  # who looks after the holder, and takes its turn
        self._away: Work | None = None
        self._rests_until = 0.0
        self._left = threading.Event()  # somebody has left for work: it is to be watched
        self._over = threading.Event()

    def start(self) -> None:
        """Has a new thread begin."""
        self._holder = self._thread(self._run)
        self._holder.start()

    def join(self, timeout: float) -> None:
        """Waits until all is over, for at most `timeout` seconds; but nobody waits for itself."""
        deadline = time.monotonic() + timeout
        with self._lock:
            waits_for_itself = self.has_turn() and self._away is None
        if waits_for_itself or not self._over.wait(timeout):
            return
        for thread in (self._holder, self._watcher):
            if thread is not None and thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def has_turn(self) -> bool:
        """Whether the caller's thread is to go on with the loop."""
        return self._holder is threading.current_thread()

    def may_leave(self) -> bool:
        """Whether the holder may leave for work now."""
        return time.monotonic() >= self._rests_until

    def leave_for(self, work: Work) -> None:
        """Does some work. Whether the caller still has the turn afterwards is to be asked."""
        with self._lock:
            self._away = work
        try:
            if not self._have_watched():
                work.pass_on()
            work.run()
        finally:
            with self._lock:
                if self._away is work:
                    self._away = None

    def _have_watched(self) -> bool:
        """Sees to it that somebody looks after the holder; returns whether somebody does."""
        with self._lock:
            if self._watcher is None:
                watcher = self._thread(self._watch)
                try:
                    watcher.start()
                except RuntimeError:
                    _log.warning("cannot start another thread for %s", self._name, exc_info=True)
                    return False
                self._watcher = watcher
        if not self._left.is_set():
            self._left.set()
        return True

    def _thread(self, target: Callable[[], None]) -> threading.Thread:
        return threading.Thread(target=target, name=self._name, daemon=True)

    def _run(self) -> None:
        try:
            self._loop()
        finally:
            if self.has_turn():
                self._over.set()
                self._left.set()

    def _watch(self) -> None:
        """Looks after the holder. Ends with the loop, when there is nothing to look at, and when it has taken the turn:
        it has other things to do then."""
        while not self._over.is_set():
            if not self._left.wait(_IDLE) and self._is_needless():
                return
            if self._look_on():
                self._run()
                return
            self._left.clear()
            if self._away is not None:  # it left just now, and saw that it was watched
                self._left.set()

    def _is_needless(self) -> bool:
        with self._lock:
            if self._away is None:
                self._watcher = None
            return self._away is None

    def _look_on(self) -> bool:
        """Looks now and then; returns whether it has taken the turn. Ends when nobody has been away for a while."""
        seen, done, idle = None, 0, 0
        while idle < _LOOKS and not self._over.wait(_LOOK):
            away = self._away
            if away is not None and away is seen and away.done == done and self._take_turn(away):
                return True
            seen, done = away, 0 if away is None else away.done
            idle = idle + 1 if away is None else 0
        return False

    def _take_turn(self, work: Work) -> bool:
        with self._lock:
            if self._away is not work:
                return False
            self._away = None
            self._holder, self._watcher = self._watcher, None
            self._rests_until = time.monotonic() + _REST
        work.pass_on()
        return True
