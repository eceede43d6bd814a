"""The epoch of a gateway that shares PVs with others, in a header of each event and of each message of a snapshot.

One gateway of a fleet publishes a PV or a snapshot at a time. When another one takes over, its epoch is greater, so
that a reader drops what the former one has sent late, because it was frozen or cut off. Epochs of different fleets say
nothing about each other. Other clients ignore the header.
"""

from __future__ import annotations

from collections.abc import Sequence

EPOCH_HEADER = "k2eg-epoch"  # its value is that of `epoch_text`


def epoch_text(fleet: str, epoch: int) -> str:
    """Returns the header's value.

    Args:
        fleet: A short text that is the fleet's own.
        epoch: The epoch.
    """
    return f"{fleet}:{epoch}"


class EpochFilter:
    """The greatest epochs that were seen of one PV or one snapshot.

    Thread safety: not thread-safe; it belongs to one reader.

    Attributes:
        dropped: The number of records that were older.
    """

    __slots__ = ("_greatest", "_last", "dropped")

    def __init__(self) -> None:
        self._last: bytes | str | None = None  # the header of the last record, which nearly every one has
        self._greatest: dict[str, int] = {}  # by fleet
        self.dropped = 0

    def is_known(self, headers: Sequence[tuple[str, bytes | str | None]]) -> bool:
        """Returns whether a record has no epoch or that of the last one, so that it passes without being looked at."""
        return len(headers) < 2 or headers[1][0] != EPOCH_HEADER or headers[1][1] == self._last

    def passes(self, headers: Sequence[tuple[str, bytes | str | None]]) -> bool:
        """Returns whether a record is not of a gateway that another one has replaced; counts it if it is."""
        if self.is_known(headers):
            return True
        value = headers[1][1]
        text = value.decode("ascii", "replace") if isinstance(value, bytes) else value or ""
        fleet, _, number = text.rpartition(":")
        if not number.isascii() or not number.isdigit() or len(number) > 20:
            return True  # of a later format
        epoch = int(number)
        if epoch < self._greatest.get(fleet, 0):
            self.dropped += 1
            return False
        if fleet not in self._greatest and len(self._greatest) >= _MAX_FLEETS:
            self._greatest.clear()
        self._greatest[fleet] = epoch
        self._last = value
        return True


_MAX_FLEETS = 16  # that publish one PV; more are none
