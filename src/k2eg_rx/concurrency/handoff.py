"""Poll loop with hand-off: another thread resumes polling when callbacks take longer than 5 ms.

Calling subscribers on the thread that has just read their events keeps the events in one processor's cache, but a
subscriber may block, and reading must not wait for it. The cost and the benefit are in
docs/decisions/0010-floods.md.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from k2eg_rx.concurrency.process_exit import join
from k2eg_rx.texts import get_logger
from k2eg_rx.transport import InlineWork

_log = get_logger(__name__)

_CHECK_INTERVAL = 0.005  # seconds: inline work that completes no task in between counts as slow
_IDLE_CHECKS = 100  # checks without inline work after which the watcher sleeps
_IDLE_SECONDS = 10.0  # after which a sleeping watcher ends; the next flood starts another
_PAUSE = 1.0  # seconds without inline work after slow work: the next would probably be slow, too


class Handoff:
    """A loop that runs on one thread at a time and moves to a second one when inline work is slow.

    The holder of the turn, the watcher and the inline work belong to the lock; what the loop uses to the holder.

    Args:
        name: The threads' name.
        loop: Called on the first thread, and on each that takes over. It has to return as soon as its thread does not
            have the turn any more; if it returns while it has, the hand-off ends.
    """

    def __init__(self, name: str, loop: Callable[[], None]) -> None:
        self._name = name
        self._loop = loop
        self._lock = threading.Lock()
        self._holder: threading.Thread | None = None
        self._watcher: threading.Thread | None = None  # checks the holder's inline work, and takes its turn
        self._inline: InlineWork | None = None
        self._paused_until = 0.0
        self._inline_began = threading.Event()
        self._ended = threading.Event()

    def start(self) -> None:
        """Starts the loop on a new thread."""
        self._holder = self._thread(self._run)
        self._holder.start()

    def join(self, timeout: float) -> None:
        """Waits for the end, at most `timeout` seconds; called in the loop itself, it does not wait."""
        deadline = time.monotonic() + timeout
        with self._lock:
            is_in_loop = self.has_turn() and self._inline is None
        if is_in_loop:
            return
        self._ended.wait(timeout)
        for thread in (self._holder, self._watcher):
            if thread is not None:
                join(thread, max(0.0, deadline - time.monotonic()))

    def has_turn(self) -> bool:
        """Whether the calling thread is to go on with the loop."""
        return self._holder is threading.current_thread()

    def may_run_inline(self) -> bool:
        """Whether the holder may run work inline now."""
        return time.monotonic() >= self._paused_until

    def run_inline(self, work: InlineWork) -> None:
        """Runs work on the calling thread, which may have lost the turn afterwards; see `has_turn`."""
        with self._lock:
            self._inline = work
        try:
            if not self._ensure_watched():
                work.pass_on()
            work.run()
        finally:
            with self._lock:
                if self._inline is work:
                    self._inline = None

    def _ensure_watched(self) -> bool:
        """Starts a watcher if there is none; returns whether there is one."""
        with self._lock:
            if self._watcher is None:
                watcher = self._thread(self._watch)
                try:
                    watcher.start()
                except RuntimeError:
                    _log.warning("cannot start another thread: name=%s", self._name, exc_info=True)
                    return False
                self._watcher = watcher
        if not self._inline_began.is_set():
            self._inline_began.set()
        return True

    def _thread(self, target: Callable[[], None]) -> threading.Thread:
        return threading.Thread(target=target, name=self._name, daemon=True)

    def _run(self) -> None:
        try:
            self._loop()
        finally:
            if self.has_turn():
                self._ended.set()
                self._inline_began.set()

    def _watch(self) -> None:
        """Checks the holder's inline work until the loop ends, the flood is long over, or it has taken the turn."""
        while not self._ended.is_set():
            if not self._inline_began.wait(_IDLE_SECONDS) and self._retire():
                return
            if self._check():
                self._run()
                return
            self._inline_began.clear()
            if self._inline is not None:  # it began after the last check, and found the watcher awake
                self._inline_began.set()

    def _retire(self) -> bool:
        with self._lock:
            if self._inline is None:
                self._watcher = None
            return self._inline is None

    def _check(self) -> bool:
        """Checks until there was no inline work for a while; returns whether the watcher has taken the turn."""
        seen, completed, idle = None, 0, 0
        while idle < _IDLE_CHECKS and not self._ended.wait(_CHECK_INTERVAL):
            work = self._inline
            if work is not None and work is seen and work.completed == completed and self._take_turn(work):
                return True
            seen, completed = work, 0 if work is None else work.completed
            idle = idle + 1 if work is None else 0
        return False

    def _take_turn(self, work: InlineWork) -> bool:
        with self._lock:
            if self._inline is not work:
                return False
            self._inline = None
            self._holder, self._watcher = self._watcher, None
            self._paused_until = time.monotonic() + _PAUSE
        work.pass_on()
        return True
