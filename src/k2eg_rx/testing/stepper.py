"""Parts that work without a thread: they take a step when they are asked to, one after the other.

In: `step` functions. Out: calls of them, on the thread of whoever drives. What a transport in memory has threads for
is done this way under a `VirtualClock`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

from k2eg_rx.transport import ConnectionState, TransportStatus

_log = logging.getLogger(__name__)

Step = Callable[[], bool]
"""Does what there is to do, of bounded length; returns whether there was anything."""

Listener = Callable[[TransportStatus], None]


class Stepper(Protocol):
    """What drives parts."""

    def drive(self, step: Step) -> Callable[[], None]:
        """Has a part take its steps from now on; returns what ends that. Any thread; idempotent."""
        ...

    def time(self) -> float:
        """The time, Unix seconds."""
        ...


class SteppedStatusEvents:
    """Tells listeners how it stands with the broker, in order, a step for each call. Any thread; deques are atomic.

    Args:
        stepper: What drives it.
    """

    def __init__(self, stepper: Stepper) -> None:
        self._status = TransportStatus(ConnectionState.CONNECTING)
        self._listeners: list[Listener] = []
        self._calls: deque[tuple[Listener, TransportStatus]] = deque()
        self._release = stepper.drive(self._step)

    def listen(self, listener: Listener) -> None:
        """Has the listener called with the present state, and then with each change."""
        self._listeners.append(listener)
        self._calls.append((listener, self._status))

    def announce(self, status: TransportStatus) -> None:
        """Takes a state; the same as before is no news."""
        if status != self._status:
            self._status = status
            self._calls.extend((listener, status) for listener in self._listeners)

    def close(self, timeout: float) -> None:  # noqa: ARG002 - nothing is waited for
        """Ends it after what is announced already. Idempotent."""
        while self._step():
            pass
        self._release()

    def _step(self) -> bool:
        if not self._calls:
            return False
        listener, status = self._calls.popleft()
        try:
            listener(status)
        except Exception:
            _log.exception("a listener to the state of the connection raised")
        return True
