"""Handlers of the callback API, as subscriptions to streams.

In: the items of one stream, on a thread of the client's pool, one at a time. Out: calls of one handler there. A handler
that raises is logged with the name it was called with, and is called again with the next item: scripts count on it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, Generic, TypeVar

from reactivex import Observable
from reactivex.disposable import SingleAssignmentDisposable

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

Handler = Callable[[str, dict[str, Any]], object]


class Listener(Generic[_T]):
    """One handler, subscribed to one stream.

    Attributes:
        handler: What is called.
    """

    def __init__(self, what: str, handler: Handler, read: Callable[[_T], tuple[str, dict[str, Any]]]) -> None:
        """Makes a listener that does not listen yet.

        Args:
            what: What it listens to, for the log.
            handler: What to call.
            read: Returns the handler's two arguments for an item of the stream.

        Raises:
            ValueError: The handler cannot be called.
        """
        if not callable(handler):
            raise ValueError(f"the handler of {what} has to be callable, not {handler!r}")
        self.handler = handler
        self._what = what
        self._read = read
        self._expected = True  # whether somebody waits for the begin, and gets its failure
        self._ended: Future[None] = Future()
        self._subscription = SingleAssignmentDisposable()  # may be disposed of by the first call, before it is there

    def listen(self, stream: Observable[_T]) -> None:
        """Subscribes."""
        self._subscription.disposable = stream.subscribe(self._call, self._fail, self._complete)

    def settle(self) -> None:
        """Told that it listens: from now on nobody waits, and a failure is logged."""
        self._expected = False

    def failure(self, wait: float = 0.0) -> BaseException | None:
        """Returns what the stream has failed with, or None if it has not within `wait` seconds."""
        try:
            return self._ended.exception(wait)
        except TimeoutError:
            return None

    def on_end(self, action: Callable[[], None]) -> None:
        """Has the action called once, when the stream has ended or is listened to no more."""
        self._ended.add_done_callback(lambda _: action())

    def dispose(self) -> None:
        """Ends the calls, but for one under way. Idempotent."""
        self._subscription.dispose()
        self._complete()

    def accepts(self, name: str) -> bool:
        """Whether the handler is called for that name."""
        return bool(name)

    def _call(self, item: _T) -> None:
        name, data = self._read(item)
        if not self.accepts(name):
            return
        try:
            self.handler(name, data)
        except Exception:
            _log.exception("the handler of %s raised for %s; it will be called with the next", self._what, name)

    def _fail(self, error: Exception) -> None:
        if not self._expected:
            _log.error("%s ended: %s", self._what, error)
        with suppress(InvalidStateError):
            self._ended.set_exception(error)

    def _complete(self) -> None:
        with suppress(InvalidStateError):
            self._ended.set_result(None)


class PVListener(Listener[_T]):
    """A handler of some PVs, each of which can be stopped by itself.

    They are one subscription, so that the handler is called for one of them at a time.
    """

    def __init__(
        self, names: Iterable[str], handler: Handler, read: Callable[[_T], tuple[str, dict[str, Any]]]
    ) -> None:
        self._names = dict.fromkeys(names)
        super().__init__(f"a monitor of {', '.join(self._names)}", handler, read)

    def accepts(self, name: str) -> bool:
        """Whether the PV has not been stopped."""
        return name in self._names

    def stop(self, name: str) -> None:
        """Stops one PV, and with the last one the subscription."""
        self._names.pop(name, None)
        if not self._names:
            self.dispose()


class Listeners:
    """The listeners of a client's monitors. Any thread; the list belongs to the lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: list[PVListener[Any]] = []

    def add(self, listener: PVListener[Any]) -> None:
        """Keeps a listener for as long as it listens."""
        with self._lock:
            self._listeners.append(listener)
        listener.on_end(lambda: self._discard(listener))

    def _discard(self, listener: PVListener[Any]) -> None:
        with self._lock:
            self._listeners = [other for other in self._listeners if other is not listener]

    def stop(self, name: str, handler: Handler | None) -> None:
        """Ends the calls about a PV: of all handlers, or of the given one."""
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            if listener.accepts(name) and (handler is None or handler == listener.handler):
                listener.stop(name)

    def __len__(self) -> int:
        return len(self._listeners)
