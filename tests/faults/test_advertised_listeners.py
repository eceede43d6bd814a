"""A broker in another network, as in a container: it is reached by the address that it advertises, or not at all."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from apache_kafka import ApacheKafka
from kafka_distribution import Distribution

from k2eg_rx import K2EGError, first
from k2eg_rx.embedded.loopback import HOST, free_ports


class Forwarder:
    """Forwards the connections to a port, as the published port of a container."""

    def __init__(self) -> None:
        self.target = ""
        self.connections = 0
        self._server = socket.create_server((HOST, 0))
        self.address = f"{HOST}:{self._server.getsockname()[1]}"
        self._sockets: list[socket.socket] = [self._server]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                self.connections += 1
                host, _, port = self.target.rpartition(":")
                try:
                    far = socket.create_connection((host, int(port)))
                except OSError:  # the broker has not started
                    near.close()
                    continue
                self._sockets += near, far
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes the port and its connections. Idempotent."""
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@pytest.fixture
def make_forwarder() -> Iterator[Callable[[], Forwarder]]:
    forwarders: list[Forwarder] = []

    def make() -> Forwarder:
        forwarders.append(Forwarder())
        return forwarders[-1]

    yield make
    for forwarder in forwarders:
        forwarder.close()


@pytest.fixture
def start_broker(kafka_distribution: Distribution, tmp_path: Any) -> Iterator[Callable[[str, Forwarder], ApacheKafka]]:
    """Starts a broker that advertises an address; the forwarder leads to it."""
    brokers: list[ApacheKafka] = []

    def start(advertised: str, forwarder: Forwarder) -> ApacheKafka:
        broker = ApacheKafka(kafka_distribution, tmp_path, {"advertised.listeners": f"PLAINTEXT://{advertised}"})
        forwarder.target = broker.address
        brokers.append(broker)
        return broker.start()

    yield start
    for broker in brokers:
        broker.remove_data()


def test_client_and_gateway_work_by_the_advertised_address(
    start_broker: Any, make_forwarder: Any, make_site: Any, collector: Any
) -> None:
    bootstrap, advertised = make_forwarder(), make_forwarder()
    bootstrap.target = start_broker(advertised.address, advertised).address
    site = make_site(bootstrap.address)
    gateway, client, (uri,) = site.gateway(), site.client(), site.uris(1)
    client.monitor_stream(uri).subscribe(collector.on_next, collector.on_end, collector.on_end)
    collector.wait_until(lambda: bool(collector.values), "the PV")
    bootstrap.close()  # what follows takes the advertised address
    collector.wait_for_progress()
    first(client.put_stream(uri, 1, check=False))
    assert advertised.connections > 0
    collector.wait_for_last_values(gateway.pause())
    assert collector.ends == []


def test_an_advertised_address_that_cannot_be_reached_is_named(
    start_broker: Any, make_forwarder: Any, make_site: Any
) -> None:
    forwarder, (port,) = make_forwarder(), free_ports(1)
    broker = start_broker(f"{HOST}:{port}", forwarder)
    client = make_site(broker.address).client()
    text = rf"broker 1 is advertised as {HOST}:{port}, which cannot be reached from here: check advertised\.listeners"
    with pytest.raises(K2EGError, match=text):  # a timeout, or a command that was not confirmed
        first(client.get_stream("pva://x", timeout=10.0))
