"""Runs parts of a transport step by step instead of on threads, under a `VirtualClock`.

Thread safety: steps run on the thread that runs the clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from k2eg_rx.texts import get_logger
from k2eg_rx.transport import ConnectionState, TransportStatus

_log = get_logger(__name__)

Step = Callable[[], bool]
"""Does a bounded amount of work; returns whether there was any."""

Listener = Callable[[TransportStatus], None]


class Stepper(Protocol):
    """Runs steps; a `VirtualClock`."""

    def add_step(self, step: Step) -> Callable[[], None]:
        """Adds a step to run; returns an idempotent function that removes it. Any thread."""
        ...

    def time(self) -> float:
        """Returns the time in Unix seconds."""
        ...


class SteppedStatusEvents:
    """Reports the broker's status to listeners in order, one call per step. Any thread; deques are atomic.

    Args:
        stepper: Runs the steps.
    """

    def __init__(self, stepper: Stepper) -> None:
        self._status = TransportStatus(ConnectionState.CONNECTING)
        self._listeners: list[Listener] = []
        self._calls: deque[tuple[Listener, TransportStatus]] = deque()
        self._remove_step = stepper.add_step(self._step)

    def listen(self, listener: Listener) -> None:
        """Calls the listener with the current status, then with each change."""
        self._listeners.append(listener)
        self._calls.append((listener, self._status))

    def announce(self, status: TransportStatus) -> None:
        """Reports a status unless it equals the one before."""
        if status != self._status:
            self._status = status
            self._calls.extend((listener, status) for listener in self._listeners)

    def close(self, timeout: float) -> None:  # noqa: ARG002 - there is no thread to wait for
        """Delivers what is queued, then removes the step. Idempotent."""
        while self._step():
            pass
        self._remove_step()

    def _step(self) -> bool:
        if not self._calls:
            return False
        listener, status = self._calls.popleft()
        try:
            listener(status)
        except Exception:
            _log.exception("status listener failed: status=%s", status)
        return True
