"""Reasons for a rejected broker certificate: librdkafka's texts do not tell them apart, `TLSDiagnosis` does.

If the first test fails with a newer librdkafka, its texts may have become good enough to replace the second handshake:
see decision 0014.
"""

from __future__ import annotations

import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError

from k2eg_rx.kafka.connection.tls import TLSDiagnosis

PATIENCE = 60.0  # seconds until a test fails; a passing test never waits that long
VARYING = re.compile(r"ssl://\S+|\(after \d+ms in state \w+\)|[\w/.]+:\d+:\w+ ")

# the server's certificate, the trusted authority, and words of the diagnosis
REASONS = {
    "expired": ("expired-broker", "site.pem", "has expired: have it renewed"),
    "other host name": ("other-name", "site.pem", "is for another host name"),
    "unknown authority": ("broker", "other.pem", "is not signed by a trusted authority"),
    "self-signed": ("self-signed", "site.pem", "is not signed by a trusted authority"),
}


class Log(logging.Handler):
    """Collects texts."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(str(record.args[-1]) if isinstance(record.args, tuple) and record.args else record.msg)


@pytest.fixture
def servers() -> Iterator[ExitStack]:
    """Closes TLS servers."""
    with ExitStack() as stack:
        yield stack


def serve(servers: ExitStack, certificate: str) -> str:
    """Starts a TLS server that ends each connection after the handshake; returns its address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listener = servers.enter_context(closing(socket.create_server(("127.0.0.1", 0))))

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError), context.wrap_socket(connection, server_side=True):
                    pass

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    servers.callback(thread.join, PATIENCE)
    servers.callback(listener.shutdown, socket.SHUT_RDWR)  # ends `accept`
    return f"127.0.0.1:{listener.getsockname()[1]}"


def librdkafka_says(address: str, authority: str) -> tuple[str, set[str]]:
    """Returns librdkafka's error about a server, and what it logs about the certificate with `debug=security`."""
    errors: list[str] = []
    log, logger = Log(), logging.Logger("librdkafka")
    logger.addHandler(log)
    properties: dict[str, Any] = {
        "bootstrap.servers": address,
        "security.protocol": "SSL",
        "ssl.ca.location": authority,
        "group.id": "unused",
        "debug": "security",
        "error_cb": lambda error: errors.append(error.str()) if error.code() != KafkaError._ALL_BROKERS_DOWN else None,
    }
    consumer = Consumer(properties, logger=logger)
    deadline = time.monotonic() + PATIENCE
    while not errors and time.monotonic() < deadline:
        consumer.poll(0.1)
    consumer.poll(0.1)
    consumer.close()
    return errors[0], {VARYING.sub("", text) for text in log.texts if "certificate verify failed" in text}


@pytest.mark.parametrize("reason", REASONS)
def test_the_diagnosis_names_a_reason_that_librdkafka_does_not(
    reason: str, certificates: Any, servers: ExitStack
) -> None:
    certificate, authority, words = REASONS[reason]
    authority = certificates.path(authority)
    error, log = librdkafka_says(serve(servers, certificates.path(f"{certificate}.pem")), authority)
    assert "certificate verify failed" in error
    for text in (error, *log):
        assert not re.search("expired|host ?name|self.signed|issuer|mismatch", text), text
    assert words in TLSDiagnosis({"ssl.ca.location": authority}).diagnose(error)


def test_a_valid_certificate_has_no_diagnosis(certificates: Any, servers: ExitStack) -> None:
    address = serve(servers, certificates.path("broker.pem"))
    diagnosis = TLSDiagnosis({"ssl.ca.location": certificates.path("site.pem")})
    assert diagnosis.diagnose(f"ssl://{address}/bootstrap: certificate verify failed") == ""


def test_the_host_name_counts_only_where_librdkafka_compares_it(certificates: Any, servers: ExitStack) -> None:
    address = serve(servers, certificates.path("other-name.pem"))
    properties = {"ssl.ca.location": certificates.path("site.pem"), "ssl.endpoint.identification.algorithm": "none"}
    assert TLSDiagnosis(properties).diagnose(f"ssl://{address}/bootstrap: certificate verify failed") == ""


@pytest.mark.parametrize("error", ["certificate verify failed", "ssl://127.0.0.1:1/bootstrap: failed"])
def test_an_unknown_or_unreachable_broker_has_no_diagnosis(error: str) -> None:
    assert TLSDiagnosis({}).diagnose(error) == ""
