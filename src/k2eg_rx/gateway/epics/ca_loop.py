"""The asyncio loop for Channel Access, shared by all providers of the process.

libca has one context per process. It reads the EPICS_CA_* environment variables when the context is created, at the
first use of Channel Access, and never again.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Callable
from contextvars import Context
from typing import Any, ClassVar

import aioca
from epicscorelibs.ca import cadef as _epics_cadef

from k2eg_rx.gateway.epics.native_threads import keep_thread_state
from k2eg_rx.texts import get_logger

cadef: Any = _epics_cadef
_log = get_logger(__name__)

_OP_PUT = 1  # CA_OP_PUT of cadef.h

# The status of the newest failed plain put of each channel, by its name. Thread safety: single operations of a dict.
failed_puts: dict[str, int] = {}


@cadef.exception_handler
def _on_exception(arguments: Any) -> None:
    """Keeps the status of a failed put, and logs what libca would print on stderr, such as the loss of a server."""
    if arguments.op == _OP_PUT and arguments.chid:
        failed_puts[cadef.ca_name(arguments.chid)] = arguments.stat
        return
    context = (arguments.ctx or b"").decode("utf-8", "replace")
    _log.info("Channel Access event: %s (%s)", cadef.ca_message(arguments.stat), context)


class _Loop(asyncio.SelectorEventLoop):
    """An event loop that keeps the Python state of the libca threads that schedule callbacks on it."""

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """See `asyncio.AbstractEventLoop.call_soon_threadsafe`."""
        keep_thread_state()
        return super().call_soon_threadsafe(callback, *args, context=context)


class CALoop:
    """An asyncio loop on the thread ``k2eg-ca`` that runs while at least one provider has acquired it.

    Thread safety: `acquire`, `release` and `end_with_the_process` are callable on any other thread.
    """

    _lock: ClassVar[threading.Lock] = threading.Lock()
    _current: ClassVar[CALoop | None] = None

    def __init__(self) -> None:
        self._users = 0
        self._handles_exceptions = False
        self.loop = _Loop()
        self._thread = threading.Thread(target=self._run, name="k2eg-ca", daemon=True)
        self._thread.start()

    @classmethod
    def acquire(cls) -> CALoop:
        """Returns the running loop, or starts one. The caller calls `release` when done."""
        with cls._lock:
            if cls._current is None:
                cls._current = cls()
            cls._current._users += 1
            return cls._current

    def release(self) -> None:
        """Gives up one use. The last one closes all channels of the process and ends the thread."""
        with CALoop._lock:
            self._users -= 1
            if not self._users:
                self._end()

    @classmethod
    def end_with_the_process(cls) -> None:
        """Ends the thread even if it is in use: libca threads crash if they outlive the interpreter."""
        with cls._lock:
            if cls._current is not None:
                cls._current._end()

    def _end(self) -> None:
        if CALoop._current is self:
            CALoop._current = None
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()

    async def open(self, name: str) -> None:
        """Waits until a channel is connected."""
        # without aioca's timeouts: asyncio.wait_for of Python 3.11 may swallow a cancellation (bpo-37658)
        await aioca.connect(name, wait=False, timeout=None)
        if not self._handles_exceptions:  # only now has aioca created the context that the handler belongs to,
            self._handles_exceptions = True
            cadef.ca_add_exception_event(_on_exception, None)
            # and registered its own exit handler; handlers registered later run earlier
            atexit.register(CALoop.end_with_the_process)
        await aioca.connect(name, timeout=None)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            remaining = asyncio.all_tasks(self.loop)  # of providers that were not closed
            for task in remaining:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*remaining, return_exceptions=True))
            # an open channel would call back into the closed loop when its server disappears
            aioca.purge_channel_caches()
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self.loop.close()
