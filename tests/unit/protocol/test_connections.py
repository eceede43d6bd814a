"""Connection records."""

from __future__ import annotations

import pytest

from k2eg_rx.errors import WireError
from k2eg_rx.protocol import CONNECTION_HEADERS, ConnectionEvent, connection_event, decode_body
from k2eg_rx.protocol.records import Record


def record(event: ConnectionEvent, body: bytes | None = None) -> Record:
    return Record("a", 0, 0, event.key, event.body if body is None else body, CONNECTION_HEADERS)


@pytest.mark.parametrize("name", ["a:b", "ca://a:b", "gr\u00f6\u00dfe"])
def test_an_event_is_read_back(name: str) -> None:
    event = ConnectionEvent(name, connected=False, since=1_795_000_000_123_000_000)
    assert connection_event(record(event)) == event


def test_the_record_on_the_wire() -> None:
    event = ConnectionEvent("a:b", connected=True, since=5)
    assert event.key[:-4] == b"\x00connection:a:b"
    assert event.body == b'{"connection": {"connected": true, "since": 5}}'
    assert CONNECTION_HEADERS == (("k2eg-connection", "Json"),)


def test_deployed_clients_cannot_take_it_for_an_event() -> None:
    with pytest.raises(WireError, match="no header"):
        decode_body(record(ConnectionEvent("a", connected=False, since=5)))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"[]",
        b'{"connection": 1}',
        b'{"connection": {"connected": 1}}',
        b'{"connection": {"connected": 1, "since": Infinity}}',
        b"[" * 100_000,
    ],
)
def test_a_malformed_record_is_none(body: bytes) -> None:
    assert connection_event(record(ConnectionEvent("a", connected=False, since=5), body)) is None


@pytest.mark.parametrize("key", [None, b"", b"a:b", b"connection:a", b"\x00connection:abc"])
def test_other_records_are_none(key: bytes | None) -> None:
    event = ConnectionEvent("a", connected=False, since=5)
    assert connection_event(Record("a", 0, 0, key, event.body)) is None
