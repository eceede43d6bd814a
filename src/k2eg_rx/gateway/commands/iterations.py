"""The iterations of a recurring snapshot, as a state table: what to say at which moment.

In: samples, and the ends of windows and of pushes. Out: headers, data and tails, in their order. Pure: times are given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from k2eg_rx.gateway.commands.messages import PVValue
from k2eg_rx.protocol import SnapshotHeader, SnapshotTail
from k2eg_rx.pv import PVAddress


@dataclass(frozen=True, slots=True)
class UnencodedData:
    """One PV's sample in an iteration, not encoded yet."""

    timestamp: int
    iter_index: int
    sample: PVValue


Part = SnapshotHeader | UnencodedData | SnapshotTail


class IterationBuilder:
    """What a recurring snapshot says.

    A normal one says the last known value of every PV at the end of each window. A buffered one says every value that
    came within the window, and of a PV that was silent in it the last known value, at the window's end.

    Args:
        name: The snapshot's name, as it was started.
        addresses: The PVs, in the order in which a normal iteration has them.
        buffered: Whether every value counts.
        max_age: Seconds: what is older is not part of an iteration. None where windows follow each other.
        limit: How many values may be held back; the oldest make room.
    """

    def __init__(
        self, name: str, addresses: Sequence[PVAddress], *, buffered: bool, max_age: float | None, limit: int
    ) -> None:
        self._name = name
        self._addresses = tuple(addresses)
        self._buffered = buffered
        self._max_age = max_age
        self._limit = limit
        self._last: dict[PVAddress, PVValue] = {}
        self._buffer: deque[tuple[float, PVAddress, PVValue]] = deque()
        self._heard: set[PVAddress] = set()  # the PVs that have been in this iteration
        self._open = True
        self._begun = False
        self._index = 1
        self._lost = 0

    def take(self, address: PVAddress, sample: PVValue, now: float) -> int:
        """Takes a PV's value; returns how many had to make room for it."""
        self._last[address] = sample
        if not self._buffered or not self._open:
            return 0
        self._buffer.append((now, address, sample))
        self._forget_old(now)
        if len(self._buffer) <= self._limit:
            return 0
        self._buffer.popleft()
        self._lost += 1
        return 1

    def open(self) -> None:
        """Begins a window after a pause; without a pause, a window begins where the last one ended."""
        self._open = True

    def push(self, timestamp: int) -> list[Part]:
        """Returns what a push within a window says: what has come since the last one.

        Args:
            timestamp: Unix milliseconds.
        """
        return self._said(timestamp, self._taken()) if self._buffer else []

    def end(self, timestamp: int, now: float, *, pause: bool = False) -> list[Part]:
        """Returns what the end of a window or a trigger says.

        Args:
            timestamp: Unix milliseconds.
            now: The time that samples have been taken at.
            pause: Whether what comes from now on is not part of the next iteration, until `open`.
        """
        self._forget_old(now)
        self._open = not pause
        if not self._buffered:
            return self._closed(timestamp, self._known())
        return self._closed(timestamp, [*self._taken(), *self._known(silent_only=True)])

    def stop(self, timestamp: int, now: float) -> list[Part]:
        """Returns what the last iteration says, which is cut short."""
        self._forget_old(now)
        return self._closed(timestamp, self._taken() if self._buffered else self._known())

    def _forget_old(self, now: float) -> None:
        while self._max_age is not None and self._buffer and self._buffer[0][0] < now - self._max_age:
            self._buffer.popleft()

    def _taken(self) -> list[PVValue]:
        samples = [sample for _, _, sample in self._buffer]
        self._heard.update(address for _, address, _ in self._buffer)
        self._buffer.clear()
        return samples

    def _known(self, *, silent_only: bool = False) -> list[PVValue]:
        return [
            self._last[address]
            for address in self._addresses
            if address in self._last and not (silent_only and address in self._heard)
        ]

    def _said(self, timestamp: int, samples: Sequence[PVValue]) -> list[Part]:
        parts: list[Part] = [] if self._begun else [SnapshotHeader(self._name, timestamp, self._index)]
        self._begun = True
        parts.extend(UnencodedData(timestamp, self._index, sample) for sample in samples)
        return parts

    def _closed(self, timestamp: int, samples: Sequence[PVValue]) -> list[Part]:
        parts = self._said(timestamp, samples)
        text = f"{self._lost} values are missing: no more than {self._limit} are held back" if self._lost else ""
        parts.append(SnapshotTail(self._name, timestamp, self._index, error_message=text))
        self._index += 1
        self._begun = False
        self._lost = 0
        self._heard.clear()
        return parts
