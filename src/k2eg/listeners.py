"""Handlers of the callback API, subscribed to streams.

Thread safety: a stream calls its listener on the client's pool threads, one item at a time; all else is for any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, Generic, TypeVar

from reactivex import Observable
from reactivex.disposable import SingleAssignmentDisposable

from k2eg_rx.arguments import callback
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

_T = TypeVar("_T")

Handler = Callable[[str, dict[str, Any]], object]


class Listener(Generic[_T]):
    """A handler, subscribed to one stream; an exception of the handler is logged and does not end the subscription.

    Attributes:
        handler: The handler.
    """

    def __init__(
        self,
        label: str,
        handler: Handler,
        to_arguments: Callable[[_T], tuple[str, dict[str, Any]]],
        parameters: tuple[str, str],
    ) -> None:
        """
        Args:
            label: Describes the subscription in the log.
            handler: The handler.
            to_arguments: Returns the handler's two arguments for an item of the stream.
            parameters: What they are, for the error.

        Raises:
            ValueError: The handler is not callable, or not with two arguments.
        """
        self.handler = callback(handler, f"the handler of {label}", *parameters)
        self._label = label
        self._to_arguments = to_arguments
        self._started = False  # until then, the caller that starts the stream raises its failure
        self._ended: Future[None] = Future()
        self._subscription = SingleAssignmentDisposable()  # the handler may dispose of it during subscription

    def subscribe(self, stream: Observable[_T]) -> None:
        """Subscribes the handler to a stream."""
        self._subscription.disposable = stream.subscribe(self._on_next, self._on_error, self._on_completed)

    def mark_started(self) -> None:
        """Logs a later failure of the stream, since no caller is left to raise it."""
        self._started = True

    def failure(self, timeout: float = 0.0) -> BaseException | None:
        """Returns the stream's error, or None if there is none within `timeout` seconds."""
        try:
            return self._ended.exception(timeout)
        except TimeoutError:
            return None

    def on_end(self, action: Callable[[], None]) -> None:
        """Calls an action once when the stream has ended or the listener is disposed of."""
        self._ended.add_done_callback(lambda _: action())

    def dispose(self) -> None:
        """Unsubscribes; a call in progress is not interrupted. Idempotent."""
        self._subscription.dispose()
        self._on_completed()

    def accepts(self, name: str) -> bool:
        """Whether the handler is to be called for that name."""
        return bool(name)

    def _on_next(self, item: _T) -> None:
        name, data = self._to_arguments(item)
        if not self.accepts(name):
            return
        try:
            self.handler(name, data)
        except Exception:
            _log.exception(
                "handler failed, it is called again with the next item: listener=%s item=%s", self._label, name
            )

    def _on_error(self, error: Exception) -> None:
        if self._started:
            _log.error("%s failed: %s", self._label, error)
        with suppress(InvalidStateError):
            self._ended.set_exception(error)

    def _on_completed(self) -> None:
        with suppress(InvalidStateError):
            self._ended.set_result(None)


class PVListener(Listener[_T]):
    """A handler for one or more PVs, each of which can be stopped.

    All PVs share one subscription, so that calls of the handler do not overlap.
    """

    def __init__(
        self, names: Iterable[str], handler: Handler, to_arguments: Callable[[_T], tuple[str, dict[str, Any]]]
    ) -> None:
        self._names = dict.fromkeys(names)
        super().__init__(
            f"monitor of {', '.join(self._names)}", handler, to_arguments, ("the PV's name", "its structure")
        )

    def accepts(self, name: str) -> bool:
        """Whether the PV has not been stopped."""
        return name in self._names

    def stop(self, name: str) -> None:
        """Stops one PV; stopping the last one unsubscribes."""
        self._names.pop(name, None)
        if not self._names:
            self.dispose()


class Listeners:
    """The active monitor listeners of a client.

    Thread safety: a lock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: list[PVListener[Any]] = []

    def add(self, listener: PVListener[Any]) -> None:
        """Adds a listener; it is removed when it ends."""
        with self._lock:
            self._listeners.append(listener)
        listener.on_end(lambda: self._discard(listener))

    def _discard(self, listener: PVListener[Any]) -> None:
        with self._lock:
            self._listeners = [other for other in self._listeners if other is not listener]

    def stop(self, name: str, handler: Handler | None) -> None:
        """Stops calling all handlers of a PV, or the given one."""
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            if listener.accepts(name) and (handler is None or handler == listener.handler):
                listener.stop(name)

    def __len__(self) -> int:
        return len(self._listeners)
