"""Publishes current values once more, for clients that could not read them when they were published first.

A client of this library reads a PV's topic from before its command on. A released client (`k2eg` up to 0.3.2)
subscribes to the topic when it has the reply, and reads it from the time at which its consumer group was assigned
anew. So for each activation by a released client the value is published again after a delay, and whenever the topic
is seen to have more consumers than before; then once more after the next look, for a consumer that was slow to ask
where the topic ends.

Repeats of one monitor are merged: within half a second there are two at most, however many clients ask.

Thread safety: belongs to the event loop thread.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from itertools import count
from typing import Generic, Protocol, TypeVar

from reactivex import abc
from reactivex.disposable import SerialDisposable

from k2eg_rx.gateway.runtime.event_loop import in_slices

_MERGED = timedelta(seconds=0.5)  # in which requests are answered together; after a restart clients ask within less
_SETTLING = timedelta(seconds=0.5)  # from a consumer's partitions to its first offsets, which it asks for one by one
# Seconds after an activation at which its topic's consumers are looked up, beside the usual look-ups once a minute.
# Brokers wait 3 s for further members of an empty group, and up to the session timeout, 30 s, for lost ones.
_LOOK_UPS = (1.0, 2.0, 4.0, 7.0, 12.0, 20.0, 32.0)


class RepeatState:
    """What is to be repeated of one monitor.

    Attributes:
        last: When the value was repeated last.
        owed: Whether a request waits for a value; a newer one will do as well.
        due: Whether a repeat for a subscribing client is due; a newer value does not replace it.
        due_again: When another one will be due, for a later request.
    """

    __slots__ = ("due", "due_again", "last", "owed")

    def __init__(self) -> None:
        self.last: datetime | None = None
        self.owed = False
        self.due = False
        self.due_again: datetime | None = None


class Repeatable(Protocol):
    """A monitor as it is seen here."""

    topic: str
    repeats: RepeatState


_M = TypeVar("_M", bound=Repeatable)


class Repeats(Generic[_M]):
    """The repeats of a gateway's monitors.

    Args:
        scheduler: The event loop.
        publish: Publishes a monitor's current value; returns whether there is one.
        look_up: Looks up the number of consumers per topic, and passes it to its argument; None if unknown.
        delay: Seconds from an activation until the value is repeated for a released client; 0: it is not.
    """

    def __init__(
        self,
        scheduler: abc.SchedulerBase,
        publish: Callable[[_M], bool],
        look_up: Callable[[Callable[[Mapping[str, int] | None], None]], None],
        delay: float,
    ) -> None:
        self._scheduler = scheduler
        self._publish = publish
        self._look_up = look_up
        self._delay = timedelta(seconds=delay)
        self._numbers = count()
        self._queue: list[tuple[datetime, int, _M, Callable[[_M], None]]] = []
        self._timer = SerialDisposable()
        self._watched: dict[str, dict[_M, None]] = {}  # by topic
        self._consumers: dict[str, int] = {}  # of the watched topics, when they were looked up last
        self._grown: set[str] = set()  # the topics that had more consumers then than before
        self._looks: list[datetime] = []  # at which consumers are looked up, the next one first
        self._looking = False

    def request(self, monitor: _M) -> None:
        """Publishes a value for a client that reads the topic already, unless there is a newer one soon."""
        state, now = monitor.repeats, self._scheduler.now
        if state.last is None or now - state.last >= _MERGED:
            self._repeat(monitor)
        elif not state.owed:
            state.owed = True
            self._schedule(state.last + _MERGED, monitor, self._repeat_owed)

    def subscribing(self, monitor: _M) -> None:
        """Publishes a value later, for a client that is about to subscribe to the topic."""
        if not self._delay:
            return
        now = self._scheduler.now
        self._repeat_at(monitor, now + self._delay)
        self._watched.setdefault(monitor.topic, {})[monitor] = None
        looks = [now + timedelta(seconds=seconds) for seconds in _LOOK_UPS]
        if self._looks:
            self._looks = [self._looks[0], *(look for look in looks if look > self._looks[0])]
        else:
            self._looks = looks
            self._schedule_look()

    def forget(self, monitor: _M) -> None:
        """Ends the repeats of a monitor that has ended."""
        monitor.repeats.owed = monitor.repeats.due = False
        monitors = self._watched.get(monitor.topic, {})
        monitors.pop(monitor, None)
        if not monitors:
            self._watched.pop(monitor.topic, None)
            self._consumers.pop(monitor.topic, None)
            self._grown.discard(monitor.topic)

    def consumers(self, number: Mapping[str, int] | None) -> None:
        """Repeats the values of the topics that have more consumers than before, or had at the look before this one."""
        if number is None:
            return
        due = self._scheduler.now + _SETTLING
        before, self._consumers = self._consumers, {topic: number.get(topic, 0) for topic in self._watched}
        had_grown, self._grown = self._grown, set()
        for topic, monitors in self._watched.items():
            if self._consumers[topic] > before.get(topic, 0):
                self._grown.add(topic)
            if topic in self._grown or topic in had_grown:
                for monitor in monitors:
                    self._repeat_at(monitor, due)

    def _repeat_at(self, monitor: _M, due: datetime) -> None:
        if monitor.repeats.due:
            monitor.repeats.due_again = due
        else:
            monitor.repeats.due = True
            self._schedule(due, monitor, self._repeat_due)

    def _repeat(self, monitor: _M) -> None:
        monitor.repeats.owed = False
        if self._publish(monitor):
            monitor.repeats.last = self._scheduler.now

    def _repeat_owed(self, monitor: _M) -> None:
        if monitor.repeats.owed:
            self._repeat(monitor)

    def _repeat_due(self, monitor: _M) -> None:
        state = monitor.repeats
        if not state.due:
            return
        again, state.due, state.due_again = state.due_again, False, None
        if again is not None and again > self._scheduler.now:
            self._repeat_at(monitor, again)
        self._repeat(monitor)

    def _schedule(self, due: datetime, monitor: _M, action: Callable[[_M], None]) -> None:
        heapq.heappush(self._queue, (due, next(self._numbers), monitor, action))
        if self._queue[0][2] is monitor:
            self._schedule_timer()

    def _schedule_timer(self) -> None:
        def run(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            due: list[tuple[datetime, int, _M, Callable[[_M], None]]] = []
            while self._queue and self._queue[0][0] <= self._scheduler.now:
                due.append(heapq.heappop(self._queue))
            in_slices(self._scheduler, due, lambda entry: entry[3](entry[2]))
            if self._queue:
                self._schedule_timer()

        self._timer.disposable = self._scheduler.schedule_absolute(self._queue[0][0], run)

    def _schedule_look(self) -> None:
        def look(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            del self._looks[0]
            if self._watched and not self._looking:
                self._looking = True
                self._look_up(self._on_consumers)
            if self._looks:
                self._schedule_look()

        self._scheduler.schedule_absolute(self._looks[0], look)

    def _on_consumers(self, number: Mapping[str, int] | None) -> None:
        self._looking = False
        self.consumers(number)
