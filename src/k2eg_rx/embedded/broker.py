"""A Kafka broker inside this process: librdkafka's mock cluster, for the demo and for tests.

Clients of any process on this machine can connect. The broker keeps the newest 5 MiB of each partition in memory and
creates a topic with four partitions when a client requests its metadata; it does not support CreateTopics. The first
join of a consumer group takes 3 s, each later rebalance ``session.timeout.ms`` less one second. A fetch returns only
after the client's ``fetch.wait.max.ms``: set that to 5.

Thread safety: any thread; the broker runs on librdkafka's threads.
"""

from __future__ import annotations

import threading
from typing import Self

from confluent_kafka import KafkaException, Producer

from k2eg_rx.errors import TransportError
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

_START_TIMEOUT = 60.0  # seconds; it takes about 10 ms, longer on a busy machine
_SYSLOG_WARNING = 4  # log lines stay in librdkafka's queue until polled, so only warnings are requested


class EmbeddedBroker:
    """A running broker; a context manager.

    Attributes:
        address: The broker's address, ``127.0.0.1:port``.
    """

    def __init__(self) -> None:
        """Starts the broker on a free port.

        Raises:
            TransportError: The broker did not start.
        """
        self._closing = threading.Lock()
        # The cluster lives as long as this client; librdkafka replaces its bootstrap servers by the cluster's.
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
        """Stops the broker, closes its connections and discards its records. Idempotent."""
        with self._closing:
            client, self._client = self._client, None
            if client is not None:
                client.poll(0)  # delivers the last log lines

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
