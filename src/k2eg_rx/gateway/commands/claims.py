"""Claims: each put and each trigger is carried out by one gateway of a group, at most once.

A claim is open until its command is begun or answered. It can be begun while the command's offset is committed and no
other gateway can have been given its partition (`RecordSource.owns`). When the group moves a partition, commands that
have not begun go to its next owner, except those before a command that was begun or answered: the next owner could only
take them with that command, which would then be carried out twice. They are lost, and have to be refused.

Thread safety: all state belongs to the lock; claims are begun on the event loop thread or on threads of EPICS clients,
partitions are given up on the poll thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from enum import Enum

from k2eg_rx.transport import Offsets, Partition, Record

LOST = "not carried out: it waited while another gateway took over; read the PV, then send it again"
UNCONFIRMED = (
    "not carried out: it waited while Kafka did not confirm that this gateway still has to do it;"
    " read the PV, then send it again"
)


class ClaimState(Enum):
    """What may happen to a command.

    Attributes:
        OPEN: It may be begun, or answered.
        CONFIRM: It may be begun once `RecordSource.confirm` has succeeded.
        TAKEN: It was begun or answered.
        LOST: It must not be begun; nothing else carries it out, so it has to be refused.
        HANDED_OVER: It must be neither begun nor answered: the next owner of its partition does both.
    """

    OPEN = "open"
    CONFIRM = "confirm"
    TAKEN = "taken"
    LOST = "lost"
    HANDED_OVER = "handed over"


class _Tenure:
    """A partition from its assignment to this gateway until it is given up."""

    __slots__ = ("handed_over_from", "is_over", "open", "taken_to")

    def __init__(self) -> None:
        self.open: set[int] = set()  # offsets of open claims
        self.taken_to = -1  # the highest offset of a command that was begun or answered
        self.is_over = False
        self.handed_over_from: int | None = None

    def end(self, undelivered: int | None) -> int | None:
        """Ends it; returns the offset from which the next owner reads on, if that is not the end of what was received.

        Args:
            undelivered: The offset of the first record that was not passed on.
        """
        self.is_over = True
        offsets = [offset for offset in self.open if offset > self.taken_to]
        self.handed_over_from = min([*offsets, *([] if undelivered is None else [undelivered])], default=None)
        return self.handed_over_from


class Claim:
    """The right to carry out one command, once."""

    __slots__ = ("_claims", "_is_begun", "_is_taken", "_offset", "_partition", "_tenure")

    def __init__(self, claims: Claims, tenure: _Tenure, partition: Partition, offset: int) -> None:
        self._claims = claims
        self._tenure = tenure
        self._partition = partition
        self._offset = offset
        self._is_taken = False
        self._is_begun = False

    def open(self) -> Claim:
        """Announces that the command is to be begun later: it may go to the next owner of its partition."""
        with self._claims.lock:
            if not self._tenure.is_over:
                self._tenure.open.add(self._offset)
        return self

    def begin(self) -> bool:
        """Takes the claim, right before the command is carried out; returns False if it must not be. Any thread."""
        with self._claims.lock:
            may_begin = self._state() is ClaimState.OPEN
            if may_begin:
                self._is_begun = True
                self._take()
            return may_begin

    def answer(self) -> bool:
        """Takes the claim for an answer without carrying the command out; returns False if it must not be answered."""
        with self._claims.lock:
            state = self._state()
            if state in (ClaimState.OPEN, ClaimState.CONFIRM):
                self._take()
            return state is not ClaimState.HANDED_OVER

    @property
    def is_begun(self) -> bool:
        """Whether the command was begun; after `answer` it cannot change any more."""
        with self._claims.lock:
            return self._is_begun

    @property
    def state(self) -> ClaimState:
        """What may happen to the command now."""
        with self._claims.lock:
            return self._state()

    def _state(self) -> ClaimState:
        tenure = self._tenure
        if self._is_taken:
            return ClaimState.TAKEN
        if tenure.is_over:
            begin = tenure.handed_over_from
            return ClaimState.LOST if begin is None or self._offset < begin else ClaimState.HANDED_OVER
        return ClaimState.OPEN if self._claims.owns(self._partition, self._offset) else ClaimState.CONFIRM

    def _take(self) -> None:
        self._is_taken = True
        self._tenure.taken_to = max(self._tenure.taken_to, self._offset)
        self._tenure.open.discard(self._offset)


class Claims:
    """The claims of one gateway.

    Attributes:
        lock: Guards the claims; also that of the queue from which commands are passed on.
        owns: `RecordSource.owns`.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.owns: Callable[[Partition, int], bool] = lambda _partition, _offset: True
        self._tenures: dict[Partition, _Tenure] = {}
        self._ended: dict[Partition, _Tenure] = {}  # until `settle`

    def of(self, record: Record) -> Claim:
        """Returns the claim to a record's command. The caller holds the lock."""
        partition = record.topic, record.partition
        tenure = self._tenures.get(partition)
        if tenure is None:
            tenure = self._tenures[partition] = _Tenure()
        return Claim(self, tenure, partition, record.offset)

    def reclaim(self, partitions: Collection[Partition], undelivered: Offsets) -> Offsets:
        """Gives partitions up; returns the offsets from which their next owners read on. The caller holds the lock."""
        offsets: dict[Partition, int] = {}
        for partition in partitions:
            tenure = self._tenures.pop(partition, None)
            if tenure is not None:
                self._ended[partition] = tenure
                begin = tenure.end(undelivered.get(partition))
                if begin is not None:
                    offsets[partition] = begin
        return offsets

    def settle(self, partitions: Collection[Partition], *, handed_over: bool) -> None:
        """Ends the change of owners; without a handover the commands are lost. The caller holds the lock."""
        for partition in partitions:
            tenure = self._ended.pop(partition, None) or self._tenures.pop(partition, None)
            if tenure is not None:
                tenure.is_over = True
                if not handed_over:
                    tenure.handed_over_from = None
