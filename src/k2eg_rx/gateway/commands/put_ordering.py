"""The order of commands to one PV: a write holds up what comes behind it, and nobody overtakes.

In: turns asked for and given back. Out: calls that start them. Belongs to the gateway's thread; knows no I/O.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class Ticket:
    """One command's turn in its PV's lane.

    Args:
        start: Called when it may begin.
        holds: Whether those behind it have to wait until it gives the lane back; else it only passes through.
    """

    __slots__ = ("begun", "holds", "start", "wanted")

    def __init__(self, start: Callable[[], None], *, holds: bool) -> None:
        self.start = start
        self.holds = holds
        self.begun = False
        self.wanted = True


class _Lane:
    __slots__ = ("advancing", "holder", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Ticket] = deque()
        self.holder: Ticket | None = None
        self.advancing = False


class KeyedQueue:
    """The lanes of all PVs that have commands waiting or writes under way."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}

    def __len__(self) -> int:
        return len(self._lanes)

    def enter(self, name: str, turn: Ticket) -> None:
        """Queues a turn in a lane; starts it at once if nobody holds the lane."""
        lane = self._lanes.setdefault(name, _Lane())
        lane.waiting.append(turn)
        self._advance(name, lane)

    def leave(self, name: str, turn: Ticket) -> None:
        """Gives a lane back, or a place in it that is not wanted any more. Idempotent."""
        turn.wanted = False
        lane = self._lanes.get(name)
        if lane is not None:
            if lane.holder is turn:
                lane.holder = None
            self._advance(name, lane)

    def _advance(self, name: str, lane: _Lane) -> None:
        if lane.advancing:  # a turn that ends while it starts comes back here
            return
        lane.advancing = True
        try:
            while lane.waiting and lane.holder is None:
                turn = lane.waiting.popleft()
                if turn.wanted:
                    lane.holder = turn if turn.holds else None
                    turn.begun = True
                    turn.start()
        finally:
            lane.advancing = False
        if not lane.waiting and lane.holder is None:
            self._lanes.pop(name, None)
