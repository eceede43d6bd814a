"""Pulse ids with wraps counted, so that they grow for ever.

The wrap of an update follows from its PV's own previous one, in whatever order PVs arrive: the id that is nearest to
where the pulse rate leads in the time between. So PVs may be apart by more than half the time in which ids repeat.

`GivenKeys` has the keys of a user's function in their place.

Thread safety: none; the keys belong to one subscription.
"""

from __future__ import annotations

from collections.abc import Callable

from k2eg_rx.operators.drops import DropReason
from k2eg_rx.protocol import NANOSECONDS, PVUpdate
from k2eg_rx.texts import shown


class GivenKeys:
    """Keys that a user's function gives.

    Args:
        key: Returns the key of an update, or None for an update without one.
    """

    def __init__(self, key: Callable[[PVUpdate], int | None]) -> None:
        self._key = key

    def key_of(self, update: PVUpdate, own_key: int) -> int | DropReason:
        """Returns the key of a PV's update, or the reason to drop it.

        Args:
            update: The update.
            own_key: The key of the PV's previous update.

        Raises:
            ValueError: The function returned anything else than a whole number or None.
        """
        key = self._key(update)
        if key is None:
            return DropReason.NO_PULSE
        if not isinstance(key, int):  # pyright: ignore[reportUnnecessaryIsInstance] - users return anything
            raise ValueError(f"on must return a whole number or None, got {shown(key)} for {shown(update.name)}")
        if key == own_key:
            return DropReason.DUPLICATE
        return DropReason.OUT_OF_ORDER if key < own_key else int(key)


class PulseKeys:
    """Counts the wraps of pulse ids, and learns their rate.

    Args:
        mask: Bits of the pulse id in the nanoseconds.
        pause: Nanoseconds between two updates after which wraps are counted by the rate only.
    """

    def __init__(self, mask: int, pause: int) -> None:
        self._mask = mask
        self._shift = (mask & -mask).bit_length() - 1
        self._top = mask >> self._shift
        self._pause = pause
        self._highest = (self._top + 1) << 20  # far above 0, which stands for no key
        self._highest_time = 0
        self._pulses = self._time = 0  # pulses of single PVs without a pause, and the nanoseconds that they took

    def key_of(self, time: int, own_time: int, own_key: int, newest: int) -> int | DropReason:
        """Returns the key of a PV's update, or the reason to drop it.

        Args:
            time: Its EPICS time in nanoseconds.
            own_time: That of the PV's previous update; long before all times if there is none.
            own_key: The key of the PV's previous update.
            newest: The newest time of a previous update of any PV.
        """
        pulse = (time % NANOSECONDS & self._mask) >> self._shift  # bits of the nanoseconds, not of the whole time
        if pulse == self._top:
            return DropReason.NO_PULSE
        gap = time - own_time
        has_own = own_key > 0
        if has_own and (self._time or gap <= self._pause):
            key = self._nearest(pulse, own_key + self._advance(gap))
            if gap <= self._pause:
                self._learn(key - own_key, gap)
        elif self._time:
            key = self._nearest(pulse, self._highest + self._advance(time - self._highest_time))
        elif time > newest + self._pause:  # all PVs have paused
            key = self._later(pulse)
        else:
            key = self._nearest(pulse, self._highest)
        if key < own_key:  # the ids were reset
            key = self._nearest(pulse, self._highest)
            if key < own_key:
                key = self._later(pulse)
        if key == own_key:
            return DropReason.DUPLICATE
        if key > self._highest:
            self._highest, self._highest_time = key, time
        return key

    def _later(self, pulse: int) -> int:
        """Returns a key of the next wrap."""
        count = self._top + 1
        return self._highest + count + (pulse - self._highest) % count

    def _advance(self, gap: int) -> int:
        return self._pulses * gap // self._time if self._time else 0

    def _learn(self, pulses: int, gap: int) -> None:
        if 0 < pulses <= self._top // 2:
            self._pulses += pulses
            self._time += gap

    def _nearest(self, pulse: int, expected: int) -> int:
        count = self._top + 1
        forward = (pulse - expected) % count
        return expected + forward - (count if forward > count // 2 else 0)
