"""Publishes the start of a gateway, so that clients request their monitors and snapshots again at once.

Thread safety: belongs to the event loop thread; the delivery is reported on the producer's thread.
"""

from __future__ import annotations

from collections.abc import Callable

from k2eg_rx.errors import TransportError
from k2eg_rx.gateway.commands.status import gateway_name, gateway_version
from k2eg_rx.gateway.commands.topics import Topics
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.protocol import START_KEY, Serialization, encode_start
from k2eg_rx.pv import gateway_topic
from k2eg_rx.texts import get_logger
from k2eg_rx.transport import RecordSink

_log = get_logger(__name__)


class StartPublisher:
    """Publishes a gateway's start to a topic that is derived from the command topic, once that exists.

    Replies name the topic when it is known to exist. Nothing depends on it: without it, clients notice a restart by the
    silence of their streams.

    The record has a sink of its own: without permission for the topic, a producer fails with all its records.

    Args:
        make_sink: Makes the sink.
        topics: Creates the topic, where topics are created.
        context: The gateway's clock, options and announcement.
        command_topic: The topic of the gateway's commands.
    """

    def __init__(
        self, make_sink: Callable[[], RecordSink], topics: Topics, context: GatewayContext, command_topic: str
    ) -> None:
        self._make_sink = make_sink
        self._topics = topics
        self._context = context
        self._command_topic = command_topic
        self._topic = gateway_topic(command_topic)
        self._sink: RecordSink | None = None
        self._closed = False

    def publish(self) -> None:
        """Publishes the start."""
        if self._context.options.create_topics:
            self._context.announcement.topics[self._command_topic] = self._topic
        self._topics.ensure(self._topic, 1).subscribe(on_completed=self._send)

    def _send(self) -> None:
        if self._closed:
            return
        body = encode_start(gateway_name(), gateway_version(), int(self._context.clock() * 1000))
        headers = Serialization.JSON.headers
        try:
            self._sink = self._make_sink()
            self._sink.send(self._topic, body, key=START_KEY, headers=headers, on_delivery=self._on_delivery)
        except TransportError as error:
            self._on_delivery(error)

    def _on_delivery(self, error: TransportError | None) -> None:
        if error is None:
            self._context.announcement.topics[self._command_topic] = self._topic
        else:
            _log.info("gateway start not published, clients notice it later: topic=%s error=%s", self._topic, error)
        self.close()

    def close(self) -> None:
        """Closes the sink. Any thread; idempotent."""
        self._closed = True
        if self._sink is not None:
            self._sink.close(0.0)
