"""The command topic as an Observable of commands."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import reactivex
from reactivex import Observable, abc
from reactivex.disposable import Disposable

from k2eg_rx.gateway.commands.claims import Claim, Claims
from k2eg_rx.gateway.commands.requests import Written, when_written
from k2eg_rx.gateway.runtime.event_loop import call_soon
from k2eg_rx.transport import Offsets, Partition, Receiver, Record, RecordSource

_BATCH = 100  # commands per turn of the event loop, about 10 ms of work; updates and timers run in between


class ReceivedCommand(NamedTuple):
    """A record of the command topic, the claim to its command, and when it was written."""

    record: Record
    claim: Claim
    written: Written = Written()


class CommandSource(Receiver):
    """Receives batches on the poll thread and emits commands on the event loop thread.

    Thread safety: the lock of the claims guards the queue between the two threads.

    Args:
        scheduler: The event loop.
        capacity: Returns how many more commands the gateway may accept. Called on both threads.
        clock: Returns Unix time in seconds.

    Attributes:
        wake: Called on the event loop thread when the gateway has capacity again, after `ready` returned False.
        on_claims_ended: Called on the event loop thread when commands that have not begun may have been handed over to
            another gateway, or lost.
    """

    judges_age = True

    def __init__(
        self, scheduler: abc.SchedulerBase, capacity: Callable[[], int], clock: Callable[[], float] = time.time
    ) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._capacity = capacity
        self.wake: Callable[[], None] = lambda: None
        self.on_claims_ended: Callable[[], None] = lambda: None
        self._confirm: Callable[[Callable[[], None]], None] = lambda done: done()
        self._is_live: Callable[[Partition, int], bool] = lambda _partition, _offset: False
        self._claims = Claims()
        self._lock = self._claims.lock
        self._waiting: deque[ReceivedCommand] = deque()
        self._returned: list[ReceivedCommand] = []  # not passed on, until another gateway can read them
        self._blocked = False
        self._observer: abc.ObserverBase[ReceivedCommand] | None = None

    def attach(self, source: RecordSource) -> None:
        """Sets the source of the records, before it reads any."""
        self.wake = source.wake
        self._confirm = source.confirm
        self._claims.owns = source.owns
        self._is_live = source.is_live

    def confirm(self, done: Callable[[], None]) -> None:
        """Confirms open claims; calls `done` on the event loop thread after the attempt."""
        self._confirm(lambda: call_soon(self._scheduler, done))

    def ready(self) -> bool:
        """Returns whether another batch may be delivered; further commands stay in Kafka until then."""
        with self._lock:
            self._blocked = self._capacity() <= len(self._waiting)
            return not self._blocked

    def commit_first(self, values: Sequence[bytes | None]) -> bool:
        """Whether there may be puts or triggers among the commands; a claim to another one is confirmed later."""
        return any(value is not None and (b"put" in value or b"trigger" in value) for value in values)

    def receive(self, records: Sequence[Record]) -> None:
        """Enqueues a batch. Called on the poll thread."""
        now = self._clock()
        written = [
            when_written(record, now, is_live=self._is_live((record.topic, record.partition), record.offset))
            for record in records
        ]
        with self._lock:
            self._enqueue(
                [
                    ReceivedCommand(record, self._claims.of(record), time_of)
                    for record, time_of in zip(records, written, strict=True)
                ]
            )

    def _enqueue(self, commands: Sequence[ReceivedCommand]) -> None:
        first = not self._waiting
        self._waiting.extend(commands)
        if first and commands:
            call_soon(self._scheduler, self._drain)

    def reclaim_undelivered(self, partitions: Collection[Partition]) -> Offsets:
        """Takes commands back that have not begun; see `Receiver.reclaim_undelivered`."""
        with self._lock:
            waiting, self._waiting = self._waiting, deque()
            undelivered: dict[Partition, int] = {}
            for command in waiting:
                partition = command.record.topic, command.record.partition
                if partition in partitions:
                    self._returned.append(command)
                    undelivered.setdefault(partition, command.record.offset)
                else:
                    self._waiting.append(command)
            return self._claims.reclaim(partitions, undelivered)

    def on_revoked(self, partitions: Collection[Partition], *, handed_over: bool) -> None:
        """Ends claims; see `Receiver.on_revoked`. Commands that were not handed over are refused."""
        with self._lock:
            self._claims.settle(partitions, handed_over=handed_over)
            returned, self._returned = self._returned, []
            if not handed_over:
                self._enqueue(returned)
        call_soon(self._scheduler, self.on_claims_ended)

    def capacity_available(self) -> None:
        """Calls `wake` if `ready` returned False before and there is capacity now."""
        with self._lock:
            wake = self._blocked and self._capacity() > len(self._waiting)
            if wake:
                self._blocked = False
        if wake:
            self.wake()

    def _drain(self) -> None:
        for _ in range(_BATCH):
            with self._lock:  # each time: commands may be taken back meanwhile
                command = self._waiting.popleft() if self._waiting else None
            if command is None:
                break
            if self._observer is not None:
                self._observer.on_next(command)
        else:
            with self._lock:
                if self._waiting:
                    call_soon(self._scheduler, self._drain)
        self.capacity_available()

    def commands(self) -> Observable[ReceivedCommand]:
        """Returns the commands of the topic, for a single subscriber."""

        def subscribe(
            observer: abc.ObserverBase[ReceivedCommand], _: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            self._observer = observer
            return Disposable(self._unsubscribe)

        return reactivex.create(subscribe)

    def _unsubscribe(self) -> None:
        self._observer = None
