"""A past interval of some PVs, played as it was, faster, or as fast as possible.

In: subscriptions. Out: updates of the past to the subscribers' inlets, from the thread of their reader (see `past`).
A subscriber that is slow keeps its own reader waiting, and nobody else.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from reactivex import Observable, abc

from k2eg_rx.delivery import Dispatcher, Overflow, ReplayGate, SubscriberInput
from k2eg_rx.history.merging import Merge
from k2eg_rx.history.pacing import Pace, checked_speed
from k2eg_rx.history.reader import Past, Reading
from k2eg_rx.history.selection import Interval, TimedUpdate
from k2eg_rx.history.tasks import Wakeup
from k2eg_rx.protocol import PVUpdate
from k2eg_rx.pv import PVAddress

_LOOK = 1.0  # seconds until a look whether the bell was missed


class Replays:
    """Replays for one client.

    Args:
        past: What reads.
        delivery: What hands over to subscribers.
    """

    def __init__(self, past: Past, delivery: Dispatcher) -> None:
        self._past = past
        self._delivery = delivery

    def updates(
        self, addresses: Sequence[PVAddress], interval: Callable[[], Interval], speed: float | None, capacity: int
    ) -> Observable[PVUpdate]:
        """Returns the updates of an interval, merged by event time; the stream completes after the last.

        Args:
            addresses: The PVs.
            interval: Called at each subscription; returns the event times.
            speed: How fast; None for as fast as possible.
            capacity: How many updates may wait for a subscriber.

        Raises:
            ValueError: The speed is not above 0.
        """
        pace = checked_speed(speed)
        unique = list({address.name: address for address in addresses}.values())
        subject = unique[0].uri if len(unique) == 1 else f"{len(unique)} PVs from {unique[0].uri} on"

        def attach(inlet: SubscriberInput[PVUpdate], sluice: ReplayGate) -> abc.DisposableBase:
            reading = Reading(self._past, unique, interval(), subject, capacity)
            return self._past.start(_Replay(reading, Pace(pace), inlet, sluice, self._past.tellers.clock))

        return self._delivery.replay_stream(attach, f"replay of {subject}", Overflow.BLOCK, capacity)


class _Replay:
    """The tale of an interval. Belongs to the thread that takes its steps.

    Args:
        reading: What is read.
        pace: When it is due.
        inlet: The subscriber's.
        sluice: The valve of the subscriber's mailbox.
        clock: Returns seconds.
    """

    def __init__(
        self,
        reading: Reading,
        pace: Pace,
        inlet: SubscriberInput[PVUpdate],
        sluice: ReplayGate,
        clock: Callable[[], float],
    ) -> None:
        self._reading = reading
        self._pace = pace
        self._inlet = inlet
        self._sluice = sluice
        self._clock = clock
        self._merge: Merge | None = None
        self._told: deque[TimedUpdate] = deque()
        self.bell = Wakeup()
        self.over = threading.Event()
        sluice.on_open = self.bell.ring

    def step(self) -> float | None:
        """Does a little; see `StepTask.step`."""
        if self._merge is None:
            self._merge = self._reading.begin()
            return self._reading.pause
        if not self._sluice.is_open():
            self._reading.rest()
            return _LOOK
        pause = 0.0
        if not self._told:
            self._told.extend(self._reading.advance(self._merge))
            pause = self._reading.pause
        pause = max(pause, self._tell())
        if not self._told and self._merge.is_done:
            self._inlet.finish()
            return None
        return pause

    def _tell(self) -> float:
        """Tells what is due; returns the seconds until more is."""
        now, due, pause = self._clock(), list[PVUpdate](), 0.0
        while self._told:
            pause = max(0.0, self._pace.seconds_to(self._told[0].time, now))
            if pause > 0:
                break
            due.append(self._told.popleft().update)
        if due:
            self._inlet.offer(due)
        return pause

    def fail(self, error: Exception) -> None:
        """Told that it cannot be read to its end."""
        self._inlet.finish(error)

    def close(self) -> None:
        """Gives back what it read with."""
        self._reading.close()
