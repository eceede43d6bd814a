"""Builds the messages of a recurring snapshot's iterations. Pure: times are passed in."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from k2eg_rx.gateway.commands.messages import PVValue
from k2eg_rx.protocol import SnapshotHeader, SnapshotTail
from k2eg_rx.pv import PVAddress

_MAX_NOTES = 10  # in one tail


class UnencodedData(NamedTuple):
    """A data message of an iteration before encoding.

    Attributes:
        timestamp: Unix nanoseconds.
        iter_index: The number of the iteration, from 1.
        value: The PV's value.
        push: The number of the partial push within the iteration, from 1.
        is_last: Whether it is the last one of its partial push.
    """

    timestamp: int
    iter_index: int
    value: PVValue
    push: int
    is_last: bool


Message = SnapshotHeader | UnencodedData | SnapshotTail


class IterationBuilder:
    """Collects PV values and returns the messages of each iteration: header, data, tail.

    A normal snapshot reports the latest value of each PV at the end of the window. A buffered one reports every value
    of the window, and the latest value of PVs without an update in it.

    Args:
        name: The snapshot's name.
        addresses: The PVs, in the order of a normal iteration.
        buffered: Whether the snapshot is buffered.
        max_age: Seconds; older buffered values are discarded. None where windows follow each other.
        limit: The number of values to buffer; beyond it the oldest are discarded.
    """

    def __init__(
        self, name: str, addresses: Sequence[PVAddress], *, buffered: bool, max_age: float | None, limit: int
    ) -> None:
        self._name = name
        self._addresses = tuple(addresses)
        self._buffered = buffered
        self._max_age = max_age
        self._limit = limit
        self._latest: dict[PVAddress, PVValue] = {}
        self._buffer: deque[tuple[float, PVAddress, PVValue]] = deque()
        self._reported: set[PVAddress] = set()  # PVs with data in the current iteration
        self._open = True
        self._held = False
        self._header_sent = False
        self._index = 1
        self._pushes = 0  # of the current iteration
        self._lost = 0
        self._notes: dict[str, str] = {}  # by PV or subject, for the next tail

    def add(self, address: PVAddress, value: PVValue, now: float) -> int:
        """Adds a PV's value; returns the number of values discarded for it (0 or 1)."""
        self._latest[address] = value
        if not self._buffered or not self._open:
            return 0
        self._buffer.append((now, address, value))
        self._discard_old(now)
        if len(self._buffer) <= self._limit:
            return 0
        self._buffer.popleft()
        self._lost += 1
        return 1

    def note(self, subject: str, reason: str, number: int) -> None:
        """Keeps a note about messages that were not published, for the next tail to be encoded.

        Args:
            subject: The PV, or an empty string for messages of several.
            reason: Why.
            number: The number of messages.
        """
        self._notes[subject] = f"{subject or f'{number} messages of earlier iterations'}: {reason}"

    def take_notes(self) -> str:
        """Returns the notes since the last call in one text."""
        text = "; ".join(islice(self._notes.values(), _MAX_NOTES))
        self._notes.clear()
        return text

    def hold(self) -> None:
        """Keeps only the latest value of each PV until `open`, which the first window begins with."""
        self._open, self._held = False, True

    def open(self, now: float) -> None:
        """Opens a window after a pause or `hold`. Without pauses, a window opens where the previous one ends."""
        self._open = True
        for address, value in self._latest.items() if self._held else ():
            self.add(address, value, now)
        self._held = False

    def push(self, timestamp: int) -> list[Message]:
        """Returns the values since the last push, within a window.

        Args:
            timestamp: Unix nanoseconds.
        """
        return self._data(timestamp, self._take_buffer()) if self._buffer else []

    def end(
        self, timestamp: int, now: float, *, pause: bool = False, tags: Mapping[str, str] | None = None
    ) -> list[Message]:
        """Returns the rest of an iteration at the end of its window, or on a trigger.

        Args:
            timestamp: Unix nanoseconds.
            now: Seconds, on the same clock as in `add`.
            pause: Whether to ignore values from now on until `open`.
            tags: Those of the trigger.
        """
        self._discard_old(now)
        self._open = not pause
        if not self._buffered:
            return self._complete(timestamp, self._latest_values(), tags)
        return self._complete(timestamp, [*self._take_buffer(), *self._latest_values(unreported_only=True)], tags)

    @property
    def next_index(self) -> int:
        """The number of the next iteration that begins."""
        return self._index

    def begin_at(self, index: int) -> None:
        """Sets the number of the first iteration."""
        self._index = index

    def stop(self, timestamp: int, now: float, *, only_rest: bool = False) -> list[Message]:
        """Returns the rest of the last iteration, whose window is cut short.

        Args:
            timestamp: Unix nanoseconds.
            now: Seconds, on the same clock as in `add`.
            only_rest: Whether there is none if nothing would be lost without: another gateway goes on.
        """
        self._discard_old(now)
        if only_rest and not self._header_sent and not self._buffer:
            return []
        return self._complete(timestamp, self._take_buffer() if self._buffered else self._latest_values())

    def _discard_old(self, now: float) -> None:
        while self._max_age is not None and self._buffer and self._buffer[0][0] < now - self._max_age:
            self._buffer.popleft()

    def _take_buffer(self) -> list[PVValue]:
        values = [value for _, _, value in self._buffer]
        self._reported.update(address for _, address, _ in self._buffer)
        self._buffer.clear()
        return values

    def _latest_values(self, *, unreported_only: bool = False) -> list[PVValue]:
        return [
            self._latest[address]
            for address in self._addresses
            if address in self._latest and not (unreported_only and address in self._reported)
        ]

    def _data(self, timestamp: int, values: Sequence[PVValue], tags: Mapping[str, str] | None = None) -> list[Message]:
        messages: list[Message] = []
        if not self._header_sent:
            messages.append(SnapshotHeader(self._name, timestamp, self._index, tags or {}))
        self._header_sent = True
        self._pushes += bool(values)
        last = len(values) - 1
        messages.extend(
            UnencodedData(timestamp, self._index, value, self._pushes, n == last) for n, value in enumerate(values)
        )
        return messages

    def _complete(
        self, timestamp: int, values: Sequence[PVValue], tags: Mapping[str, str] | None = None
    ) -> list[Message]:
        messages = self._data(timestamp, values, tags)
        text = f"{self._lost} values are missing: no more than {self._limit} are held back" if self._lost else ""
        messages.append(SnapshotTail(self._name, timestamp, self._index, error_message=text))
        self._index += 1
        self._header_sent = False
        self._pushes = 0
        self._lost = 0
        self._reported.clear()
        return messages
