"""Logs an outage of the broker in a few lines: when it begins, once a minute, and when it ends.

Thread safety: a lock; the transport's status thread reports changes, the scheduler's thread runs the reminders.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from reactivex import abc
from reactivex.disposable import SerialDisposable

from k2eg_rx.transport.interfaces import ConnectionState, TransportStatus

_REMINDER = 60.0  # seconds: the last lines of a log show that the outage lasts, and a night of it is 500 lines


class ConnectionLog:
    """Writes the connection's state to a log.

    Args:
        log: The logger.
        scheduler: Runs the reminders; its time is that of the outages.
        losses: Returns by name how many items were lost since the start; the line at the end names what has grown.
        pending: Describes what waits for the broker, for the reminders; empty if nothing does.
    """

    def __init__(
        self,
        log: logging.Logger,
        scheduler: abc.SchedulerBase,
        losses: Callable[[], Mapping[str, int]],
        pending: Callable[[], str] = lambda: "",
    ) -> None:
        self._log = log
        self._scheduler = scheduler
        self._losses = losses
        self._pending = pending
        self._lock = threading.Lock()
        self._status = TransportStatus(ConnectionState.CONNECTING)
        self._down_since: datetime | None = None
        self._losses_before: Mapping[str, int] = {}
        self._reminder = SerialDisposable()
        self._closed = False

    def on_status(self, status: TransportStatus) -> None:
        """Logs a change of the transport's status. Another reason for the same outage appears in the next reminder."""
        with self._lock:
            before, self._status = self._status, status
            if self._closed:
                return
            if status.connection is ConnectionState.DOWN:
                if self._down_since is None:
                    self._begin(status)
                elif status.refused and not before.refused:
                    self._log.warning("Kafka refuses the connection: reason=%s", status.reason)
            elif status.connection is ConnectionState.UP:
                self._up(status)

    def _begin(self, status: TransportStatus) -> None:
        self._down_since = self._scheduler.now
        self._losses_before = dict(self._losses())
        self._log.warning("Kafka connection lost: reason=%s", status.reason)
        self._schedule_reminder()

    def _schedule_reminder(self) -> None:
        def remind(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            with self._lock:
                if self._down_since is None or self._closed:
                    return
                pending = self._pending()
                self._log.warning(
                    "Kafka connection still lost: for=%.0f s%s reason=%s",
                    self._outage().total_seconds(),
                    f" {pending}" if pending else "",
                    self._status.reason,
                )
                self._schedule_reminder()

        self._reminder.disposable = self._scheduler.schedule_relative(_REMINDER, remind)

    def _outage(self) -> timedelta:
        return self._scheduler.now - (self._down_since or self._scheduler.now)

    def _up(self, status: TransportStatus) -> None:
        if self._down_since is None:
            level = logging.WARNING if status.reason else logging.INFO
            self._log.log(level, "Kafka connection up: reason=%s", status.reason or "none")
            return
        lost = [f"{name}={count}" for name, count in self._lost().items()]
        level = logging.WARNING if lost or status.reason else logging.INFO
        self._log.log(
            level,
            "Kafka connection is back: away=%.1f s lost: %s%s",
            self._outage().total_seconds(),
            " ".join(lost) or "nothing",
            f" reason={status.reason}" if status.reason else "",
        )
        self._down_since = None
        self._reminder.disposable = None

    def _lost(self) -> Mapping[str, int]:
        before = self._losses_before
        grown = {name: count - before.get(name, 0) for name, count in self._losses().items()}
        return {name: count for name, count in grown.items() if count}

    def close(self) -> None:
        """Stops logging. Idempotent."""
        with self._lock:
            self._closed = True
        self._reminder.dispose()
