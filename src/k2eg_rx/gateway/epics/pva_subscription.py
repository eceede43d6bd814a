"""One PVAccess subscription: whole structures in order, across reconnections, until it is closed.

Thread safety: p4p signals new items on its worker thread, and callbacks run there; items that arrive before p4p has
returned the subscription are handled on the thread ``k2eg-pva``. Two callbacks never run at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

from p4p.client import raw as p4p_raw

from k2eg_rx.concurrency import TimerScheduler
from k2eg_rx.gateway.epics.native_threads import keep_thread_state
from k2eg_rx.gateway.epics.provider import Subscriber
from k2eg_rx.gateway.epics.pva_values import UpdateReader, spec_of
from k2eg_rx.protocol import Structure
from k2eg_rx.pv import PVAddress
from k2eg_rx.texts import get_logger

_raw: Any = p4p_raw
_log = get_logger(__name__)

_RETRY_SECONDS = 5.0  # after a server ended or refused a subscription, which it may do again at once

# Creates a p4p subscription, given the callback that p4p calls when the subscription has items.
Monitor = Callable[[Callable[[], None]], Any]


class PVASubscription:
    """A `Subscription` over p4p.

    Args:
        address: The requested PV.
        on_update: See `Provider.subscribe`.
        on_connection: See `Provider.subscribe`.
        on_unreadable: See `Provider.subscribe`.
        monitor: Creates the p4p subscription.
        timers: Runs what must not block p4p's worker thread.
        on_close: Called when the subscription is closed.

    Attributes:
        reason: Why the server ended the subscription; empty if it did not.
    """

    def __init__(
        self,
        address: PVAddress,
        on_update: Callable[[Structure], None],
        on_connection: Callable[[bool], None],
        on_unreadable: Callable[[], None] = lambda: None,
        *,
        monitor: Monitor,
        timers: TimerScheduler,
        on_close: Callable[[PVASubscription], None],
    ) -> None:
        self._address = address
        self._subscriber = Subscriber(address, on_update, on_connection, on_unreadable)
        self._monitor = monitor
        self._timers = timers
        self._on_close = on_close
        self._lock = threading.Lock()
        self._source: Any = None
        self._signals = 0
        self._draining = False
        self._connected = False
        self._reader: UpdateReader | None = None
        self.reason = ""

    def open(self) -> None:
        """Subscribes. Called once by the provider, and again after the server has ended the subscription."""
        source = self._monitor(self._on_signal)
        with self._lock:
            self._source = source
            closed = self._subscriber.closed
            self._draining = early = self._signals > 0
        if closed:
            source.close()
        elif early:
            self._timers.call_soon(self._drain)

    def close(self) -> None:
        """See `Subscription.close`."""
        with self._lock:
            self._subscriber.closed = True
            source, self._source = self._source, None
        self._on_close(self)
        if source is not None:
            self._timers.call_soon(source.close)  # blocks while p4p's worker thread is in a callback

    def _on_signal(self) -> None:
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
            if source is not None:
                self._handle_all(source)
            with self._lock:
                if seen == self._signals or source is not self._source:
                    self._draining = False
                    return

    def _handle_all(self, source: Any) -> None:
        # p4p's own `pop` asks each value three times for the name of its type, in order to convert it, and logs it:
        # 1 to 4 µs of an update's 7 in p4p. With `nt=False` it converts nothing.
        pop = cast("Any", super(_raw.Subscription, source)).pop
        while not self._subscriber.closed and (item := pop()) is not None:
            self._handle(item)

    def _handle(self, item: Any) -> None:
        if isinstance(item, Exception):
            self._on_interruption(item)
            return
        if not self._connected:
            self._connected, self.reason = True, ""
            self._subscriber.connection(True)
        self._subscriber.read(self._read, item)

    def _read(self, item: Any) -> Structure:
        if self._reader is None:  # the first value of a connection; only here can its type change
            self._reader = UpdateReader(spec_of(item))
        return self._reader.read(item)

    def _on_interruption(self, reason: Exception) -> None:
        self._reader = None
        is_lost = isinstance(reason, _raw.Disconnected)
        self.reason = "" if is_lost else f"the server ended the subscription: {reason or type(reason).__name__}"
        if self._connected:
            self._connected = False
            self._subscriber.connection(False)
        if is_lost:
            return  # p4p reconnects by itself
        _log.warning(
            "subscription ended by server: pv=%s retry=%g s error=%s",
            self._address,
            _RETRY_SECONDS,
            reason or type(reason).__name__,
        )
        with self._lock:
            source, self._source, self._signals = self._source, None, 0
        if source is not None:
            self._timers.call_soon(source.close)
            self._timers.call_later(_RETRY_SECONDS, self._reopen)

    def _reopen(self) -> None:
        if self._subscriber.closed:
            return
        try:
            self.open()
        except Exception:
            _log.exception("subscribing again failed: pv=%s retry=%g s", self._address, _RETRY_SECONDS)
            self._timers.call_later(_RETRY_SECONDS, self._reopen)
