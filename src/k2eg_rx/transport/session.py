"""A client's way to Kafka: the parts of its transport, made together and closed together.

In: the receivers of events and of replies, and the sink's records. Out: what the parts read, on their own threads.
Made and closed on any thread, by the client.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from k2eg_rx.settings import Settings
from k2eg_rx.transport.interfaces import History, Receiver, Transport, TransportStatus

LEAST_CLOSE_TIMEOUT = 0.1  # seconds that every part gets to close, even if those before it took all the time


class ClientTransports:
    """The parts of a transport that one client needs. If one cannot be made, those before it are closed.

    Attributes:
        event_source: Reads monitors' and snapshots' topics.
        sink: The way out.
        ready: Done when the reply topic is being read.

    Args:
        transport: What makes the parts; closed with them.
        settings: The environment.
        app_name: The application, for its presence.
        group_name: The group that shares the events, if any.
        events: Where events go.
        replies: Where replies go.
    """

    def __init__(
        self,
        transport: Transport,
        settings: Settings,
        app_name: str,
        group_name: str | None,
        *,
        events: Receiver,
        replies: Receiver,
    ) -> None:
        self._transport = transport
        with ExitStack() as parts:
            parts.callback(transport.close, LEAST_CLOSE_TIMEOUT)
            self.event_source = transport.events(events, group_name)
            parts.callback(self.event_source.close, LEAST_CLOSE_TIMEOUT)
            self._reply_source, self.ready = transport.replies(replies, settings.reply_topic)
            parts.callback(self._reply_source.close, LEAST_CLOSE_TIMEOUT)
            self.sink = transport.sink()
            parts.callback(self.sink.close, LEAST_CLOSE_TIMEOUT)
            self._presence = transport.presence(settings.reply_topic, app_name)
            parts.pop_all()

    def history(self, topics: Sequence[str]) -> History:
        """Returns what reads the past of topics; its user closes it. See `Transport.history`.

        Raises:
            TransportError: It cannot be made.
        """
        return self._transport.history(topics)

    def on_status(self, listener: Callable[[TransportStatus], None]) -> None:
        """Has the listener called with each change of the connection's state, on a thread of the transport's."""
        self._transport.on_status(listener)

    def close(self, deadline: float) -> None:
        """Closes all but `event_source`, which its user closes earlier, before the subscribers end.

        Args:
            deadline: When it should be done, by the monotonic clock.
        """
        for close in (self._reply_source.close, self._presence.close, self.sink.close, self._transport.close):
            close(time_left(deadline))


def time_left(deadline: float) -> float:
    """Returns how many seconds the next part may take to close."""
    return max(LEAST_CLOSE_TIMEOUT, deadline - time.monotonic())
