"""A monitor, and the stream of the command that started it.

Thread safety: belongs to the event loop thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from reactivex import abc
from reactivex.disposable import CompositeDisposable

from k2eg_rx.gateway.commands.limits import MonitorShare
from k2eg_rx.gateway.commands.messages import OutgoingRecord, PVValue, notice
from k2eg_rx.gateway.commands.repeats import RepeatState
from k2eg_rx.gateway.commands.topics import ConsumedTopics
from k2eg_rx.gateway.commands.update_queue import size_of
from k2eg_rx.protocol import Serialization
from k2eg_rx.pv import PVAddress

# Of the values of a PV that wait: a handover takes a second or two, and ten more if the owner before is slow.
_MAX_HELD = 5000
_MAX_HELD_BYTES = 100 * 1024 * 1024


def time_of(value: PVValue) -> int:
    """Returns a value's time by EPICS in nanoseconds; 0 if it has none."""
    stamp: Any = value.structure.get("timeStamp")
    try:
        return int(stamp["secondsPastEpoch"]) * 1_000_000_000 + int(stamp["nanoseconds"])
    except (TypeError, KeyError, ValueError):
        return 0


class HeldValues:
    """The values of a PV that wait until another gateway has stopped publishing it: the newest ones."""

    def __init__(self) -> None:
        self._values: deque[PVValue] = deque()
        self._bytes = 0

    def add(self, value: PVValue) -> None:
        """Adds a value; drops the oldest ones if there are too many, or if they are too large together."""
        self._values.append(value)
        self._bytes += size_of(value.structure)
        while len(self._values) > _MAX_HELD or (self._bytes > _MAX_HELD_BYTES and len(self._values) > 1):
            self._bytes -= size_of(self._values.popleft().structure)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def first_time(self) -> int:
        """The time of the first value in nanoseconds; 0 if there is none, or if it has none."""
        return time_of(self._values[0]) if self._values else 0

    def after(self, time: int | None) -> list[PVValue]:
        """Returns the values that are newer than a time in nanoseconds, or that have no time; None: all."""
        return [value for value in self._values if time is None or not (0 < time_of(value) <= time)]


class Monitor:
    """Publication of one PV to one topic.

    Attributes:
        name: The name of its events: Kafka key, and key of the structure. The PV's name, or its URI where the topic
            carries the PV over the other protocol under its name.
        share: What the command that started it has taken of its application's bounds.
        consumed_topics: The topics whose consumers keep the monitor active.
        repeats: What is to be repeated of it.
        end: Ends the monitor.
        publish: Emits a record on the stream of the command that started the monitor.
        epoch: That of its events, where gateways share PVs.
        held: The values that wait until another gateway has stopped publishing the PV; None while it publishes itself.
        latest: The value that it has published last.
        since: The time of the last value that the owner before has published, in nanoseconds; None if unknown.
    """

    def __init__(
        self, address: PVAddress, topic: str, serialization: Serialization, name: str, share: MonitorShare
    ) -> None:
        self.address = address
        self.share = share
        self.topic = topic
        self.name = name
        self.key = name.encode()
        self.serialization = serialization
        self.consumed_topics = ConsumedTopics(topic)
        self.repeats = RepeatState()
        self.logged = False  # that a value cannot be serialized
        self.end: Callable[[], None] = lambda: None
        self.publish: Callable[[OutgoingRecord], None] = lambda _: None
        self.epoch = ""
        self.held: HeldValues | None = None
        self.latest: PVValue | None = None
        self.since: int | None = None

    @property
    def published_until(self) -> int | None:
        """The time of the PV's last published value in nanoseconds; None if it is unknown."""
        return self.since if self.latest is None else time_of(self.latest)

    def notice(self, reason: str, number: int) -> OutgoingRecord:
        """Returns the record that tells clients of updates that are not published."""
        return notice(self.topic, self.name, reason, number)


class CommandStream:
    """A command's stream; completes when the last monitor that the command started has ended.

    Args:
        observer: The subscriber of the stream.
        share: What the command has taken of its application's bounds.
        on_end: Called with each monitor that ends.

    Attributes:
        share: See above.
        publish: Emits a record on the stream.
    """

    def __init__(
        self, observer: abc.ObserverBase[OutgoingRecord], share: MonitorShare, on_end: Callable[[Monitor], None]
    ) -> None:
        self.share = share
        self.publish = observer.on_next
        self._observer = observer
        self._on_end = on_end
        self._running: dict[Monitor, CompositeDisposable] = {}
        self._all_started = False

    def add(self, monitor: Monitor) -> CompositeDisposable:
        """Adds a monitor; returns what is disposed of at its end."""
        monitor.end = partial(self._end, monitor)
        monitor.publish = self.publish
        disposables = self._running[monitor] = CompositeDisposable()
        return disposables

    def _end(self, monitor: Monitor) -> None:
        self._on_end(monitor)
        self._running.pop(monitor, CompositeDisposable()).dispose()
        self._complete_if_done()

    def all_started(self) -> None:
        """Lets the stream complete: no more monitors will be added."""
        self._all_started = True
        self._complete_if_done()

    def _complete_if_done(self) -> None:
        if self._all_started and not self._running:
            self._observer.on_completed()

    def dispose(self) -> None:
        """Ends all monitors."""
        for monitor in list(self._running):
            self._end(monitor)
