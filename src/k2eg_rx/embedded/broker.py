"""A Kafka broker inside this process: librdkafka's mock cluster, for the demo and for tests.

In: nothing. Out: an address on the loopback interface to which any Kafka client may connect, of this process or
of another. The broker runs on librdkafka's own threads; everything here may be called on any thread.

It has one broker, keeps records in memory (the newest 5 MiB of a partition), makes a topic of four partitions when a
client asks for its metadata, balances consumer groups (the first join of a group takes 3 s, each change after that the
members' ``session.timeout.ms`` less a second) and creates no topics by request. It answers a fetch only when the
client's ``fetch.wait.max.ms`` is over: set that to 5.
"""

from __future__ import annotations

import logging
import threading
from typing import Self

from confluent_kafka import KafkaException, Producer

from k2eg_rx.errors import TransportError

_log = logging.getLogger(__name__)

_START_TIMEOUT = 10.0  # seconds; it is there in about 10 ms, but a loaded machine may take its time
_SYSLOG_WARNING = 4  # nothing below a warning is worth queueing: logs wait in librdkafka until somebody polls


class EmbeddedBroker:
    """A running broker; a context manager.

    Attributes:
        address: Where it listens, ``127.0.0.1:port``.
    """

    def __init__(self) -> None:
        """Starts the broker on a free port.

        Raises:
            TransportError: It did not start.
        """
        self._closing = threading.Lock()
        # The cluster lives as long as this client, whose bootstrap servers librdkafka replaces by the cluster's own.
        self._client: Producer | None = Producer(
            {"test.mock.num.brokers": 1, "bootstrap.servers": "127.0.0.1", "log_level": _SYSLOG_WARNING}, logger=_log
        )
        try:
            (broker,) = self._client.list_topics(timeout=_START_TIMEOUT).brokers.values()
        except (KafkaException, ValueError) as error:
            raise TransportError(f"the embedded Kafka broker did not start within {_START_TIMEOUT:g} s") from error
        self.address: str = f"{broker.host}:{broker.port}"
        _log.info("embedded Kafka broker at %s", self.address)

    def close(self) -> None:
        """Stops the broker; its records are gone and its connections closed. Idempotent."""
        with self._closing:
            client, self._client = self._client, None
            if client is not None:
                client.poll(0)  # hands the last logs over

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
