"""How the client is doing: the connection and what was skipped, dropped or is still to come.

In: the transport's changes of state, and counters that are asked once a second. Out: a stream of `Status`, the present
one first, then one for each change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import reactivex as rx
from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.subject import Subject

from k2eg_rx.transport import ConnectionState, TransportStatus

_INTERVAL = 1.0  # seconds between looks at the counters: often enough for a display, too seldom to cost anything


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a client.

    Attributes:
        connection: The state of the connection to the broker.
        reason: In words, what is wrong and what to do; empty while all is well.
        lag: Event records that are in Kafka and not read yet, as far as known.
        dropped: Events dropped so far by subscribers' overflow policies.
        discarded: Records skipped so far because they break the wire format.
        monitors: Monitored PVs.
        pending: Requests that wait for a reply.
    """

    connection: ConnectionState
    reason: str = ""
    lag: int = 0
    dropped: int = 0
    discarded: int = 0
    monitors: int = 0
    pending: int = 0


class StatusBoard:
    """Keeps the last word of the transport and makes the stream of `Status`.

    Args:
        measure: Returns the status for a transport's state and the counters of the moment.
        timers: The scheduler of the once-a-second look.
    """

    def __init__(self, measure: Callable[[TransportStatus], Status], timers: abc.SchedulerBase) -> None:
        self._measure = measure
        self._timers = timers
        self._last = TransportStatus(ConnectionState.CONNECTING)
        self._changes: Subject[object] = Subject()
        self._end: Subject[None] = Subject()

    def update(self, status: TransportStatus) -> None:
        """Takes a new state of the transport. Any thread."""
        self._last = status
        self._changes.on_next(status)

    def now(self) -> Status:
        """Returns the status of this moment."""
        return self._measure(self._last)

    def stream(self) -> Observable[Status]:
        """Returns the present status and each later change."""
        looks: Observable[object] = rx.interval(_INTERVAL, scheduler=self._timers).pipe(ops.map(lambda count: count))
        return rx.merge(self._changes, looks).pipe(
            ops.start_with(None),
            ops.map(lambda _: self.now()),
            ops.distinct_until_changed(),
            ops.take_until(self._end),
        )

    def close(self) -> None:
        """Completes the streams."""
        self._end.on_next(None)
