"""One recurring snapshot of a client: its subscribers and the assembly of its iterations.

Thread safety: belongs to the router's lock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

from reactivex import abc
from reactivex.disposable import Disposable, SerialDisposable

from k2eg_rx.client.hot_streams import HotStream
from k2eg_rx.client.routes import Outgoing
from k2eg_rx.delivery import SubscriberInput
from k2eg_rx.protocol import (
    EpochFilter,
    IterationAssembler,
    RepeatingSnapshotCommand,
    Snapshot,
    SnapshotHeader,
    SnapshotMessage,
    decode_snapshot_message,
)
from k2eg_rx.pv import snapshot_topic
from k2eg_rx.transport import Partition, Record

_KEPT_RECORDS = 16  # before those of iterations that are not open any more are dropped


class RecurringSnapshot(HotStream):
    """One recurring snapshot.

    An iteration of which messages are missing is handed over when it is overdue, unless records wait to be read,
    because a subscriber is slow: the missing ones may be among them.

    Attributes:
        command: The command that starts it.
        snapshot_subscribers: The subscribers to iterations.
        message_subscribers: The subscribers to messages.
        arm: Calls `expire` after a number of seconds; set before the first record.
        timer: The timer that `arm` has made.

    Args:
        command: As above.
        assembler: Assembles the iterations.
        wait: Seconds that the assembler waits for missing messages.
        now: Returns the time in seconds.
    """

    def __init__(
        self,
        command: RepeatingSnapshotCommand,
        assembler: IterationAssembler,
        wait: float,
        now: Callable[[], float],
    ) -> None:
        super().__init__()
        self.command = command
        self.snapshot_subscribers: tuple[SubscriberInput[Snapshot], ...] = ()
        self.message_subscribers: tuple[SubscriberInput[SnapshotMessage], ...] = ()
        self.arm: Callable[[float], abc.DisposableBase] = lambda _: Disposable()
        self.timer = SerialDisposable()
        self._topics = [snapshot_topic(command.snapshot_name)]
        self._heard = False
        self._assembler = assembler
        self._epochs = EpochFilter()
        self._wait = wait
        self._now = now
        self._is_armed = False
        self._was_held_back = False
        self._first: dict[int, Record] = {}  # the first record of each open iteration
        self._triggers = 0  # sent by this client, without those that failed
        self._begun = 0  # iterations
        self._last_header: SnapshotHeader | None = None
        self._stopping = False
        self._unwanted: int | None = None  # the iteration that a gateway adds at a stop

    @property
    def key(self) -> str:
        return self._topics[0]

    @property
    def topics(self) -> Sequence[str]:
        return self._topics

    def add_topic(self, topic: str) -> None:
        """Adds the topic that the gateway publishes to, where it differs from the rule for names."""
        self._topics.append(topic)

    @property
    def heard(self) -> bool:
        return self._heard

    def set_heard(self, *, heard: bool) -> None:
        self._heard = heard

    @property
    def subscribers(self) -> Sequence[SubscriberInput[Any]]:
        return (*self.snapshot_subscribers, *self.message_subscribers)

    def count_triggers(self, number: int) -> None:
        """Adds to the number of triggers that this client has sent."""
        self._triggers += number

    def set_stopping(self, *, stopping: bool) -> None:
        """Sets whether this client has sent a stop that has not failed."""
        self._stopping = stopping
        self._unwanted = None

    def accept(self, record: Record, outgoing: Outgoing) -> None:
        """Adds a record's message, and the iterations that it completes; see `MessageRoute`."""
        self._heard = True
        if not self._epochs.passes(record.headers):
            self._assembler.counts["superseded"] += 1
            return
        message = decode_snapshot_message(record)
        if not self._is_wanted(message):
            return
        for subscriber in self.message_subscribers:
            outgoing.setdefault(subscriber, []).append(message)
        self._hand_over(self._assembler.feed(message, self._now()), outgoing)
        index = message.iter_index
        if index not in self._first and self._assembler.is_open(index):
            if len(self._first) >= _KEPT_RECORDS:
                self._first = self._open_records()
            self._first[index] = record
        self._watch()

    def expire(self, outgoing: Outgoing, *, is_reading: bool) -> None:
        """Adds the iterations that are overdue.

        Args:
            outgoing: The items by subscriber.
            is_reading: Whether records are read; while they are not, and for the first time after that, iterations have
                more time.
        """
        self._is_armed = False
        held_back, self._was_held_back = not is_reading or self._was_held_back, not is_reading
        if not held_back:
            self._hand_over(self._assembler.expire(self._now()), outgoing)
        self._watch(least=self._wait if held_back else 0.0)

    def finish(self, outgoing: Outgoing) -> None:
        """Adds the iterations that still wait for missing messages."""
        self._hand_over(self._assembler.expire(math.inf), outgoing)

    def give_up(self, partitions: Collection[Partition]) -> Record | None:
        """Drops the open iterations and returns their first record; see `MessageRoute`."""
        records = [record for record in self._open_records().values() if record[:2] in partitions]
        if self.message_subscribers or not records:
            return None  # their messages were offered
        self._assembler.discard()
        self._first.clear()
        return min(records, key=lambda record: record.offset)

    def _is_wanted(self, message: SnapshotMessage) -> bool:
        """Returns whether a message is not of the iteration that a gateway adds at the stop of a triggered snapshot."""
        if self._unwanted is not None and message.iter_index >= self._unwanted:
            return False
        if isinstance(message, SnapshotHeader) and message != self._last_header:
            if self._stopping and self.command.triggered and self._begun >= self._triggers:
                self._unwanted = message.iter_index
                return False
            self._last_header = message
            self._begun += 1
        return True

    def _hand_over(self, snapshots: Sequence[Snapshot], outgoing: Outgoing) -> None:
        for snapshot in snapshots:
            self._first.pop(snapshot.iteration, None)
        for subscriber in self.snapshot_subscribers if snapshots else ():
            outgoing.setdefault(subscriber, []).extend(snapshots)

    def _watch(self, least: float = 0.0) -> None:
        """Arms the timer if an iteration is going to be overdue."""
        deadline = self._assembler.deadline
        if deadline is not None and not self._is_armed:
            self._is_armed = True
            self.timer.disposable = self.arm(max(deadline - self._now(), least))

    def _open_records(self) -> dict[int, Record]:
        return {index: record for index, record in self._first.items() if self._assembler.is_open(index)}
