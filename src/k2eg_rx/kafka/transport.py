"""Kafka as a `Transport`: what a client or a gateway gets its sources, its sink and its presence from."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from k2eg_rx.settings import Settings
from k2eg_rx.transport import Presence, Receiver, RecordSink, RecordSource, TransportStatus


class KafkaTransport:
    """A way to Kafka as an environment's settings describe it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def replies(self, receiver: Receiver, topic: str) -> tuple[RecordSource, Future[None]]:
        """Returns a source for a reply topic, and the future of `read(topic)`. Creates the topic if it is missing."""
        raise NotImplementedError

    def events(self, receiver: Receiver, group_name: str | None) -> RecordSource:
        """Returns a source for event topics."""
        raise NotImplementedError

    def sink(self) -> RecordSink:
        """Returns a sink."""
        raise NotImplementedError

    def presence(self, topic: str, app_name: str) -> Presence:
        """Returns a live member of a consumer group of the application."""
        raise NotImplementedError

    def on_status(self, listener: Callable[[TransportStatus], None]) -> None:
        """Has the listener called with each change of the connection's state."""
        raise NotImplementedError

    def close(self, timeout: float) -> None:
        """Closes what the transport itself holds."""
        raise NotImplementedError
