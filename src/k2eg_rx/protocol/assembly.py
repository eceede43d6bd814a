"""Assembles iterations of recurring snapshots, by the numbers of their messages or by arrival.

Thread safety: not thread-safe; an assembler belongs to one reader. Times are passed in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from k2eg_rx.protocol.assembly_by_arrival import ArrivalAssembler
from k2eg_rx.protocol.assembly_by_number import NumberAssembler
from k2eg_rx.protocol.messages import SnapshotHeader, SnapshotMessage
from k2eg_rx.protocol.snapshots import MAX_SAMPLES, Snapshot
from k2eg_rx.pv import PVAddress

DEFAULT_WAIT = 1.0  # seconds


class IterationAssembler:
    """Assembles `Snapshot`s from the messages on a recurring snapshot's topic.

    Messages with numbers are assembled by them (`NumberAssembler`), others by arrival (`ArrivalAssembler`). A topic may
    change from one to the other, when its gateway is replaced.

    Attributes:
        counts: What was dropped, by reason: incomplete iterations (``incomplete``; without numbers they are dropped);
            messages without a header (``stray``); repeated messages (``duplicate``), those of an iteration already
            handed over (``old``); samples of a PV that was not requested (``unknown_pv``), without the requested field
            (``unusable``), or beyond `max_samples` (``excess``).

    Args:
        name: The name of the snapshots. Headers may have another spelling, because names that share a topic are one
            snapshot to a gateway.
        addresses: The requested PVs.
        max_samples: The bound on samples of the open iterations. Further ones are dropped, and the snapshot has an
            error.
        counts: A counter shared with other assemblers, for a total; by default one of its own.
        wait: Seconds that missing messages are waited for.
    """

    def __init__(
        self,
        name: str,
        addresses: Iterable[PVAddress],
        max_samples: int = MAX_SAMPLES,
        *,
        counts: Counter[str] | None = None,
        wait: float = DEFAULT_WAIT,
    ) -> None:
        self.counts: Counter[str] = Counter() if counts is None else counts
        requested = tuple(addresses)
        self._by_number = NumberAssembler(name, requested, max_samples, self.counts, wait)
        self._by_arrival = ArrivalAssembler(name, requested, max_samples, counts=self.counts)

    @property
    def deadline(self) -> float | None:
        """The time at which `expire` has to be called; None while nothing is overdue."""
        return self._by_number.deadline

    def is_open(self, index: int) -> bool:
        """Returns whether messages of an iteration are held."""
        return index in self._by_number.open or index == self._by_arrival.open

    def feed(self, message: SnapshotMessage, now: float = 0.0) -> Sequence[Snapshot]:
        """Processes the next message, received at a time in seconds. Returns the snapshots that are handed over.

        Never raises.
        """
        is_header = isinstance(message, SnapshotHeader)
        if message.msg_seq is not None or (not is_header and message.iter_index in self._by_number.open):
            if is_header:
                self._by_arrival.discard()
            return self._by_number.feed(message, now)
        snapshots = self._by_number.flush() if is_header else []
        snapshot = self._by_arrival.feed(message)
        return snapshots if snapshot is None else [*snapshots, snapshot]

    def expire(self, now: float) -> Sequence[Snapshot]:
        """Returns the iterations that are overdue, incomplete, and those that waited for them."""
        return self._by_number.expire(now)

    def discard(self) -> None:
        """Drops the open iterations; another reader continues with them."""
        self._by_number.discard()
        self._by_arrival.discard()
