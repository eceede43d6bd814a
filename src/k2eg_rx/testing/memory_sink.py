"""The record sink of the in-memory broker.

Thread safety: `send` on any thread; delivery reports run on the sink's thread, or on the stepper's.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from k2eg_rx.errors import TransportError
from k2eg_rx.testing.memory_broker import MemoryBroker
from k2eg_rx.testing.stepper import Stepper
from k2eg_rx.texts import get_logger
from k2eg_rx.transport import Headers

_log = get_logger(__name__)

OnDelivery = Callable[[TransportError | None], None]


class MemorySink:
    """Sends records to the broker in order; a `RecordSink`.

    Args:
        broker: The broker.
        stepper: Runs the sink instead of a thread of its own.
    """

    def __init__(self, broker: MemoryBroker, stepper: Stepper | None = None) -> None:
        self._broker = broker
        self._queue: deque[tuple[Any, ...]] = deque()
        self._deadline: float | None = None
        self._thread: threading.Thread | None = None
        self._remove_step: Callable[[], None] = lambda: None
        if stepper is not None:
            self._remove_step = stepper.add_step(self._step)
        else:
            self._thread = threading.Thread(target=self._run, name="k2eg-sink", daemon=True)
            self._thread.start()

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        on_delivery: OnDelivery | None = None,
        timestamp_ms: int | None = None,
        still_wanted: Callable[[], bool] | None = None,
        partition: int | None = None,
    ) -> None:
        """Queues a record; see `RecordSink.send`."""
        with self._broker.changed:
            if self._deadline is not None:
                raise TransportError(f"cannot send to {topic!r}: the sink is closed")
            self._queue.append((topic, value, key, headers, on_delivery, timestamp_ms, still_wanted, partition))
            self._broker.changed.notify_all()

    def close(self, timeout: float) -> None:
        """Sends what is queued, for at most `timeout` seconds; see `RecordSink.close`."""
        with self._broker.changed:
            if self._deadline is None:
                self._deadline = time.monotonic() + timeout
            self._broker.changed.notify_all()
        if self._thread is None:
            self._remove_step()
            while self._queue:  # without waiting: only this thread could bring the broker back
                self._send_next()
        elif self._thread is not threading.current_thread():
            self._thread.join(timeout + 1.0)  # 1 s to report the records not sent in time

    def _run(self) -> None:
        while True:
            with self._broker.changed:
                while not (self._queue and self._broker.is_up) and not self._must_stop():
                    self._broker.changed.wait(self._time_left())
                if not self._queue:
                    return
            self._send_next()

    def _step(self) -> bool:
        count = len(self._queue) if self._broker.is_up else 0
        for _ in range(count):
            self._send_next()
        return count > 0

    def _send_next(self) -> None:
        with self._broker.changed:
            if not self._queue:  # `close` and the clock's thread have sent records at the same time
                return
            topic, value, key, headers, on_delivery, timestamp_ms, still_wanted, partition = self._queue.popleft()
            if not self._broker.is_up:
                error: TransportError | None = TransportError(f"not sent to {topic!r}: closed before it was sent")
            elif still_wanted is not None and not still_wanted():
                error = TransportError(f"not sent to {topic!r}: given up before that")
            else:
                error = self._broker.append(topic, value, key, headers, timestamp_ms, partition=partition)
        if on_delivery is not None:
            _report(on_delivery, error)

    def _must_stop(self) -> bool:
        return self._deadline is not None and (not self._queue or time.monotonic() >= self._deadline)

    def _time_left(self) -> float | None:
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)


def _report(on_delivery: OnDelivery, error: TransportError | None) -> None:
    try:
        on_delivery(error)
    except Exception:
        _log.exception("delivery callback failed")
