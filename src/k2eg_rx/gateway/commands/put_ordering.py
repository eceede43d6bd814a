"""Keyed FIFO queue: orders the gets and puts of each PV.

Thread safety: belongs to the event loop thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class Ticket:
    """One operation's place in the queue of its key.

    Args:
        start: Called when the operation may start.
        blocking: Whether later operations wait until this one is released. A put blocks, a get does not.
    """

    __slots__ = ("blocking", "cancelled", "start", "started")

    def __init__(self, start: Callable[[], None], *, blocking: bool) -> None:
        self.start = start
        self.blocking = blocking
        self.started = False
        self.cancelled = False


class _Queue:
    __slots__ = ("advancing", "holder", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Ticket] = deque()
        self.holder: Ticket | None = None
        self.advancing = False


class KeyedQueue:
    """One FIFO queue per key; starts each operation once no blocking operation is ahead of it.

    A key without operations takes no memory.
    """

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}

    def __len__(self) -> int:
        return len(self._queues)

    def enter(self, key: str, ticket: Ticket) -> None:
        """Enqueues a ticket; starts it at once if nothing blocks it."""
        queue = self._queues.setdefault(key, _Queue())
        queue.waiting.append(ticket)
        self._advance(key, queue)

    def release(self, key: str, ticket: Ticket) -> None:
        """Ends a ticket: unblocks the ones behind it, or cancels it if it has not started. Idempotent."""
        ticket.cancelled = True
        queue = self._queues.get(key)
        if queue is not None:
            if queue.holder is ticket:
                queue.holder = None
            self._advance(key, queue)

    def _advance(self, key: str, queue: _Queue) -> None:
        if queue.advancing:  # re-entrant call: a ticket was released while starting
            return
        queue.advancing = True
        try:
            while queue.waiting and queue.holder is None:
                ticket = queue.waiting.popleft()
                if not ticket.cancelled:
                    queue.holder = ticket if ticket.blocking else None
                    ticket.started = True
                    ticket.start()
        finally:
            queue.advancing = False
        if not queue.waiting and queue.holder is None:
            self._queues.pop(key, None)
