"""One PVAccess subscription: every update as a whole structure, in order, through reconnections, until it is closed.

In: p4p's "there is something" signals on its worker thread. Out: calls of `on_update` and `on_connection` there, or on
the provider's own thread for what came before p4p had returned the subscription; never two at a time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from p4p.client import raw as p4p_raw

from k2eg_rx.concurrency import TimerScheduler
from k2eg_rx.gateway.epics.native_threads import keep_thread_state
from k2eg_rx.gateway.epics.provider import Subscriber
from k2eg_rx.gateway.epics.pva_values import UpdateReader, spec_of
from k2eg_rx.protocol import Structure
from k2eg_rx.pv import PVAddress

_raw: Any = p4p_raw
_log = logging.getLogger(__name__)

_RETRY_SECONDS = 5.0  # after a server has ended or refused a subscription, which it may do as quickly again

# Given the signal's handler, subscribes and returns p4p's subscription.
Monitor = Callable[[Callable[[], None]], Any]


class PVASubscription:
    """A `Subscription` over p4p."""

    def __init__(
        self,
        address: PVAddress,
        on_update: Callable[[Structure], None],
        on_connection: Callable[[bool], None],
        *,
        monitor: Monitor,
        timers: TimerScheduler,
        forget: Callable[[PVASubscription], None],
    ) -> None:
        self._address = address
        self._subscriber = Subscriber(address, on_update, on_connection)
        self._monitor = monitor
        self._timers = timers
        self._forget = forget
        self._lock = threading.Lock()
        self._source: Any = None
        self._signals = 0
        self._draining = False
        self._connected = False
        self._reader: UpdateReader | None = None

    def open(self) -> None:
        """Subscribes. Called once by its provider, and again when the server has ended the subscription."""
        source = self._monitor(self._signal)
        with self._lock:
            self._source = source
            closed = self._subscriber.closed
            self._draining = early = self._signals > 0
        if closed:
            source.close()
        elif early:
            self._timers.call_soon(self._drain)

    def close(self) -> None:
        """Ends it; no callback is made after it returns, but for one under way. Idempotent; any thread."""
        with self._lock:
            self._subscriber.closed = True
            source, self._source = self._source, None
        self._forget(self)
        if source is not None:
            self._timers.call_soon(source.close)  # it waits for the worker thread, which may be in a callback

    def _signal(self) -> None:
        keep_thread_state()
        with self._lock:
            self._signals += 1
            if self._draining or self._source is None:
                return
            self._draining = True
        self._drain()

    def _drain(self) -> None:
        while True:
            with self._lock:
                seen, source = self._signals, self._source
            while source is not None and not self._subscriber.closed and (item := source.pop()) is not None:
                self._take(item)
            with self._lock:
                if seen == self._signals or source is not self._source:
                    self._draining = False
                    return

    def _take(self, item: Any) -> None:
        if isinstance(item, Exception):
            self._interrupted(item)
            return
        if self._reader is None:  # the first value since it connected: only now its type may be another
            self._reader = UpdateReader(spec_of(item))
            self._connected = True
            self._subscriber.connection(True)
        self._subscriber.update(self._reader.read(item))

    def _interrupted(self, reason: Exception) -> None:
        self._reader = None
        if self._connected:
            self._connected = False
            self._subscriber.connection(False)
        if isinstance(reason, _raw.Disconnected):
            return  # p4p searches for it again
        _log.warning("%s: the server ended the subscription: %s", self._address, reason or type(reason).__name__)
        with self._lock:
            source, self._source, self._signals = self._source, None, 0
        if source is not None:
            self._timers.call_soon(source.close)
            self._timers.call_later(_RETRY_SECONDS, self._reopen)

    def _reopen(self) -> None:
        if not self._subscriber.closed:
            self.open()
