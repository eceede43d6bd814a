"""The one thread of this process that speaks Channel Access, shared by all providers and there while one is.

In: providers that come and go. Out: an asyncio loop, running on the thread ``k2eg-ca``.

libca has one context for a process; it reads the EPICS_CA_* variables of the process environment when the context is
made, at the first use of Channel Access, and never again.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
from collections.abc import Callable
from contextvars import Context
from typing import Any, ClassVar

import aioca
from epicscorelibs.ca import cadef as _epics_cadef

from k2eg_rx.gateway.epics.native_threads import keep_thread_state

cadef: Any = _epics_cadef
_log = logging.getLogger(__name__)


@cadef.exception_handler
def _log_exception(arguments: Any) -> None:
    """Takes what libca would otherwise print on stderr, such as that a server has gone."""
    context = (arguments.ctx or b"").decode("utf-8", "replace")
    _log.info("%s (%s)", cadef.ca_message(arguments.stat), context)


class _Loop(asyncio.SelectorEventLoop):
    """An event loop. libca's threads keep their Python state from the first time on that they have it do something."""

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Has something called on the loop's thread; see `asyncio.AbstractEventLoop.call_soon_threadsafe`."""
        keep_thread_state()
        return super().call_soon_threadsafe(callback, *args, context=context)


class CALoop:
    """The thread; `acquire` and `release` count who needs it."""

    _lock: ClassVar[threading.Lock] = threading.Lock()
    _current: ClassVar[CALoop | None] = None

    def __init__(self) -> None:
        self._users = 0
        self._logging = False
        self.loop = _Loop()
        self._thread = threading.Thread(target=self._run, name="k2eg-ca", daemon=True)
        self._thread.start()

    @classmethod
    def acquire(cls) -> CALoop:
        """Returns the thread, started if need be. Give it back with `release`."""
        with cls._lock:
            if cls._current is None:
                cls._current = cls()
            cls._current._users += 1
            return cls._current

    def release(self) -> None:
        """Gives it back. The last one ends it, after all channels of the process are closed."""
        with CALoop._lock:
            self._users -= 1
            if not self._users:
                self._end()

    @classmethod
    def end_with_the_process(cls) -> None:
        """Ends the thread though it was not given back: libca's threads crash when the interpreter ends under them."""
        with cls._lock:
            if cls._current is not None:
                cls._current._end()

    def _end(self) -> None:
        if CALoop._current is self:
            CALoop._current = None
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()

    async def open(self, name: str) -> None:
        """Returns when a channel is connected. Called on the thread."""
        # No timeout of aioca's anywhere: asyncio.wait_for of Python 3.11 may swallow a cancellation (bpo-37658).
        await aioca.connect(name, wait=False, timeout=None)
        if not self._logging:  # by now aioca has made the context, which the handler belongs to
            self._logging = True
            cadef.ca_add_exception_event(_log_exception, None)
            # and has registered what ends libca at the exit: what is registered later is called before
            atexit.register(CALoop.end_with_the_process)
        await aioca.connect(name, timeout=None)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            left = asyncio.all_tasks(self.loop)  # of providers that were not closed
            for task in left:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            # A channel left open would call back into the closed loop when its server goes.
            aioca.purge_channel_caches()
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self.loop.close()
