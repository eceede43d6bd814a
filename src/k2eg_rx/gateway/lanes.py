"""The order of commands to one PV: reads run together, a write alone, and nobody overtakes.

In: turns asked for and given back. Out: calls that start them. Belongs to the gateway's thread; knows no I/O.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class Turn:
    """One command's turn in its PV's lane.

    Args:
        start: Called when it may run.
        alone: Whether no other command of the PV may run meanwhile.
    """

    __slots__ = ("alone", "running", "start", "wanted")

    def __init__(self, start: Callable[[], None], *, alone: bool) -> None:
        self.start = start
        self.alone = alone
        self.running = False
        self.wanted = True


class _Lane:
    __slots__ = ("advancing", "running", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Turn] = deque()
        self.running: set[Turn] = set()
        self.advancing = False


class Lanes:
    """The lanes of all PVs that have commands under way."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}

    def __len__(self) -> int:
        return len(self._lanes)

    def enter(self, pv_name: str, turn: Turn) -> None:
        """Queues a turn; starts it at once if it may run."""
        lane = self._lanes.setdefault(pv_name, _Lane())
        lane.waiting.append(turn)
        self._advance(pv_name, lane)

    def leave(self, pv_name: str, turn: Turn) -> None:
        """Gives a turn back: it has ended, or is not wanted any more. Idempotent."""
        turn.wanted = False
        lane = self._lanes.get(pv_name)
        if lane is not None:
            lane.running.discard(turn)
            self._advance(pv_name, lane)

    def _advance(self, pv_name: str, lane: _Lane) -> None:
        if lane.advancing:  # a turn that ends while it starts comes back here
            return
        lane.advancing = True
        try:
            while lane.waiting and self._free(lane, lane.waiting[0]):
                turn = lane.waiting.popleft()
                if turn.wanted:
                    lane.running.add(turn)
                    turn.running = True
                    turn.start()
        finally:
            lane.advancing = False
        if not lane.waiting and not lane.running:
            self._lanes.pop(pv_name, None)

    @staticmethod
    def _free(lane: _Lane, turn: Turn) -> bool:
        if not turn.wanted:
            return True
        return not lane.running or not (turn.alone or next(iter(lane.running)).alone)
