"""From the reply topic's records to those who have asked: a look-up by reply id.

In: batches of records, on the thread of the reply pump. Out: `Reply`s, to their `ReplyHandler`s, all that came together
one asker at once; and the ends of routes, on whatever thread ends them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from k2eg_rx.errors import K2EGError, WireError
from k2eg_rx.protocol import Reply, decode_reply
from k2eg_rx.transport import DecodeErrorCounter, Receiver, Record


class ReplyHandler(Protocol):
    """Who has asked for something, and is told what comes of it, on threads of the library.

    Replies come on one thread, one call at a time; failures may come meanwhile. Must neither raise nor block.
    """

    def take(self, replies: Sequence[Reply]) -> None:
        """Takes replies, in order. Routes stay open; some that was shut at this moment may be among them."""
        ...

    def fail(self, reply_ids: Sequence[str], error: Exception) -> None:
        """Told why replies will not come, of routes that were open till now."""
        ...


class ReplyRouter(Receiver):
    """The open routes by reply id; the receiver of the reply topic's records.

    The dict is changed by subscribers' threads and read by the pump; each access is one atomic operation. A route is
    shut once: whoever does it is told so, and may tell the end.

    Args:
        discards: Where bad records are counted.
        on_traffic: Called when something is asked, and when replies come.
    """

    def __init__(self, discards: DecodeErrorCounter, on_traffic: Callable[[], None] = lambda: None) -> None:
        self._on_traffic = on_traffic
        self._routes: dict[str, ReplyHandler] = {}
        self._discards = discards
        self._closed: K2EGError | None = None

    def open(self, reply_ids: Iterable[str], asker: ReplyHandler) -> None:
        """Opens routes, and fails them if the router was closed."""
        self._on_traffic()
        routes = dict.fromkeys(reply_ids, asker)
        self._routes.update(routes)
        if self._closed is not None:
            self.cut(routes, asker, self._closed)

    def shut(self, reply_ids: Iterable[str]) -> list[str]:
        """Closes routes; returns those that were open. Idempotent."""
        return [reply_id for reply_id in reply_ids if self._routes.pop(reply_id, None) is not None]

    def cut(self, reply_ids: Iterable[str], asker: ReplyHandler, error: Exception) -> None:
        """Closes routes, and tells why those that were open."""
        if cut := self.shut(reply_ids):
            asker.fail(cut, error)

    def is_open(self, reply_id: str) -> bool:
        """Whether somebody waits for that reply."""
        return reply_id in self._routes

    def __len__(self) -> int:
        return len(self._routes)

    def ready(self) -> bool:
        """Always: replies wait for nobody."""
        return True

    def receive(self, records: Sequence[Record]) -> None:
        """Routes replies. Those of unknown id are other instances', or too late."""
        self._on_traffic()
        taken: dict[ReplyHandler, list[Reply]] = {}
        for record in records:
            try:
                reply = decode_reply(record)
            except WireError as error:
                self._discards.add(error, record.topic)
                continue
            asker = self._routes.get(reply.reply_id)
            if asker is not None:
                taken.setdefault(asker, []).append(reply)
        for asker, replies in taken.items():
            asker.take(replies)

    def close(self, error: K2EGError) -> None:
        """Fails all open routes, and those to come."""
        self._closed = error
        self.fail(error)

    def fail(self, error: K2EGError) -> None:
        """Fails all open routes."""
        failed: dict[ReplyHandler, list[str]] = {}
        for reply_id in list(self._routes):
            asker = self._routes.pop(reply_id, None)
            if asker is not None:
                failed.setdefault(asker, []).append(reply_id)
        for asker, reply_ids in failed.items():
            asker.fail(reply_ids, error)
