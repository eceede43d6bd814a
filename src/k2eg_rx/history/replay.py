"""Replays an interval of the history of PVs at its original pace, faster, or as fast as possible.

Thread safety: updates are queued on the thread of the replay's task; a slow subscriber delays its own replay only.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from reactivex import Observable, abc

from k2eg_rx.delivery import Dispatcher, Overflow, ReplayGate, SubscriberInput
from k2eg_rx.history.merging import Merge
from k2eg_rx.history.pacing import LONGEST_SECONDS, Pace, checked_speed
from k2eg_rx.history.reader import HistoryQuery, HistoryReader
from k2eg_rx.history.selection import Interval, TimedUpdate
from k2eg_rx.history.tasks import Wakeup
from k2eg_rx.protocol import PVUpdate
from k2eg_rx.pv import PVAddress

_RECHECK = 1.0  # seconds to a step in case a wake-up was missed


class Replays:
    """Makes replays for one client. Immutable."""

    def __init__(self, reader: HistoryReader, dispatcher: Dispatcher) -> None:
        self._reader = reader
        self._dispatcher = dispatcher

    def updates(
        self, addresses: Sequence[PVAddress], interval: Callable[[], Interval], speed: float | None, capacity: int
    ) -> Observable[PVUpdate]:
        """Returns the updates of an interval, merged by event time; completes after the last.

        Args:
            addresses: The PVs.
            interval: Called at each subscription; returns the event times.
            speed: The speed relative to the original; None: as fast as possible.
            capacity: How many updates may be queued for a subscriber.

        Raises:
            ValueError: The speed is not above 0.
        """
        pace = checked_speed(speed)
        unique = list({address.name: address for address in addresses}.values())
        subject = unique[0].uri if len(unique) == 1 else f"{len(unique)} PVs from {unique[0].uri} on"

        def attach(queue: SubscriberInput[PVUpdate], gate: ReplayGate) -> abc.DisposableBase:
            query = HistoryQuery(self._reader, unique, interval(), subject, capacity)
            return self._reader.start(_Replay(query, Pace(pace), queue, gate, self._reader.runner.clock))

        return self._dispatcher.replay_stream(attach, f"replay of {subject}", Overflow.BLOCK, capacity)


class _Replay:
    """The task of one replay; a `StepTask`. Belongs to the thread of its steps.

    Args:
        query: Reads the updates.
        pace: When an update is due.
        queue: The subscriber's.
        gate: The queue's.
        clock: Returns seconds.
    """

    def __init__(
        self,
        query: HistoryQuery,
        pace: Pace,
        queue: SubscriberInput[PVUpdate],
        gate: ReplayGate,
        clock: Callable[[], float],
    ) -> None:
        self._query = query
        self._pace = pace
        self._queue = queue
        self._gate = gate
        self._clock = clock
        self._merge: Merge | None = None
        self._pending: deque[TimedUpdate] = deque()  # read, but not due yet
        self.wakeup = Wakeup()
        self.ended = threading.Event()
        gate.on_open = self.wakeup.notify

    def step(self) -> float | None:
        """Reads, or queues what is due; see `StepTask.step`."""
        if self._merge is None:
            self._merge = self._query.begin()
            return self._query.pause
        if not self._gate.is_open():
            self._query.suspend()
            return _RECHECK
        pause = 0.0
        if not self._pending:
            self._pending.extend(self._query.advance(self._merge))
            pause = self._query.pause
        pause = max(pause, self._offer_due())
        if not self._pending and self._merge.is_done:
            self._queue.finish()
            return None
        return pause

    def _offer_due(self) -> float:
        """Queues the updates that are due; returns the seconds to the next one."""
        now, due, pause = self._clock(), list[PVUpdate](), 0.0
        while self._pending:
            pause = max(0.0, self._pace.seconds_to(self._pending[0].time, now))
            if pause > 0:
                break
            due.append(self._pending.popleft().update)
        if due:
            self._queue.offer(due)
        return min(pause, LONGEST_SECONDS)

    def fail(self, error: Exception) -> None:
        """Fails the subscriber's stream."""
        self._queue.finish(error)

    def close(self) -> None:
        """Closes the query."""
        self._query.close()
