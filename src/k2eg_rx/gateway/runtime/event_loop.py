"""The gateway's one thread: it owns the monitors, the snapshots, the commands under way and what goes out.

In: actions, from any thread (EPICS callbacks, the pump of the command topic, futures), and timers. Out: their
execution, one at a time, on the thread `k2eg-gateway`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

from reactivex import abc, typing
from reactivex.disposable import Disposable
from reactivex.internal import DisposedException

from k2eg_rx.concurrency import SteadyLoop

_log = logging.getLogger(__name__)


class EventLoop(SteadyLoop):
    """A reactivex scheduler on one thread of its own.

    By its base's clock a step of the system's neither holds up the windows of snapshots nor makes them rush. Two things
    are different from its base. An action that raises is logged and counted, where it would end the thread. And once it
    is closed nothing is done any more, neither what was taken up already nor what an action under way would have the
    scheduler do.
    """

    def __init__(self, on_failure: Callable[[], None]) -> None:
        super().__init__(thread_factory=self._new_thread)
        self._on_failure = on_failure
        self._started: threading.Thread | None = None
        self._closed = False  # set once, by whoever closes it

    def _new_thread(self, target: typing.StartableTarget) -> threading.Thread:
        self._started = threading.Thread(target=target, name="k2eg-gateway", daemon=True)
        return self._started

    def invoke_action(self, action: abc.ScheduledAction[Any], state: Any = None) -> abc.DisposableBase:
        """Runs an action, whatever it raises; none after the end."""
        if self._closed:
            return Disposable()
        try:
            return super().invoke_action(action, state)
        except Exception as error:
            if self._closed and isinstance(error, DisposedException):
                return Disposable()
            _log.exception("an action of the gateway's thread failed")
            self._on_failure()
            return Disposable()

    def close(self, timeout: float) -> None:
        """Ends the thread; what is still scheduled is not done. Idempotent."""
        self._closed = True
        self.dispose()
        thread = self._started
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)


def post(scheduler: abc.SchedulerBase, action: Callable[[], None]) -> None:
    """Has the scheduler's thread do something soon; nothing once the scheduler has ended."""

    def run(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
        action()

    with contextlib.suppress(DisposedException):
        scheduler.schedule(run)
