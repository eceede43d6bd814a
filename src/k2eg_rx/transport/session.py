"""The parts of a transport that one client needs, made and closed together.

Thread safety: made and closed by the client, on any thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from k2eg_rx.settings import Settings
from k2eg_rx.transport.interfaces import History, Receiver, Transport, TransportStatus

MIN_CLOSE_TIMEOUT = 0.1  # seconds that every part gets to close, even if those before it have used up the timeout


class ClientTransports:
    """The sources, sink and presence of one client. Immutable; if one cannot be made, those before it are closed.

    Attributes:
        event_source: Reads the topics of monitors and snapshots.
        sink: Sends commands.
        ready: Completes when the reply topic is being read.

    Args:
        transport: Makes the parts; closed with them.
        settings: The environment.
        app_name: The application, for its presence.
        group_name: The group that shares the events, if any.
        events: Takes the event records.
        replies: Takes the reply records.
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
            parts.callback(transport.close, MIN_CLOSE_TIMEOUT)
            self.event_source = transport.events(events, group_name)
            parts.callback(self.event_source.close, MIN_CLOSE_TIMEOUT)
            self._reply_source, self.ready = transport.replies(replies, settings.reply_topic)
            parts.callback(self._reply_source.close, MIN_CLOSE_TIMEOUT)
            self.sink = transport.sink()
            parts.callback(self.sink.close, MIN_CLOSE_TIMEOUT)
            self._presence = transport.presence(settings.reply_topic, app_name)
            parts.pop_all()

    def read_beside_replies(self, topic: str) -> None:
        """Reads another topic with the consumer of the replies, which no group shares."""
        self._reply_source.read(topic)

    def history(self, topics: Sequence[str]) -> History:
        """Returns a reader of what topics still hold; see `Transport.history`."""
        return self._transport.history(topics)

    def on_status(self, listener: Callable[[TransportStatus], None]) -> None:
        """Calls a listener with each change of the connection's state; see `Transport.on_status`."""
        self._transport.on_status(listener)

    def close(self, deadline: float) -> None:
        """Closes all parts but `event_source`, which the client closes earlier, before its streams complete.

        Args:
            deadline: When it should be done, by the monotonic clock.
        """
        for close in (self._reply_source.close, self._presence.close, self.sink.close, self._transport.close):
            close(time_left(deadline))


def time_left(deadline: float) -> float:
    """Returns the seconds that the next part may take to close."""
    return max(MIN_CLOSE_TIMEOUT, deadline - time.monotonic())
