"""Connection records."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from k2eg_rx.errors import WireError
from k2eg_rx.protocol import (
    ConnectionEvent,
    PVState,
    connection_body,
    connection_event,
    connection_headers,
    connection_key,
    decode_body,
)
from k2eg_rx.protocol.records import Record

LOST = ConnectionEvent("a", "ca://a", PVState.DISCONNECTED, 1_795_000_000_123_000_000, "ioc:5064", "gone")


def record(event: ConnectionEvent, body: bytes | None = None) -> Record:
    return Record("a", 0, 0, connection_key(event.name), connection_body(event) if body is None else body)


@pytest.mark.parametrize("state", PVState)
@pytest.mark.parametrize("name", ["a:b", "ca://a:b", "gr\u00f6\u00dfe"])
def test_an_event_is_read_back(name: str, state: PVState) -> None:
    event = replace(LOST, name=name, state=state)
    assert connection_event(record(event)) == event


def test_the_record_on_the_wire() -> None:
    assert connection_key("a:b")[:-4] == b"\x00connection:a:b"
    assert connection_body(LOST) == (
        b'{"connection": {"state": "disconnected", "since": 1795000000123000000, "uri": "ca://a", "host": "ioc:5064",'
        b' "reason": "gone"}}'
    )
    assert connection_headers() == (("k2eg-connection", "Json"),)


def test_deployed_clients_cannot_take_it_for_an_event() -> None:
    with pytest.raises(WireError, match="no header"):
        decode_body(record(LOST))


def test_what_an_event_says() -> None:
    assert (LOST.is_connected, LOST.protocol) == (False, "ca")
    assert LOST.time == datetime(2026, 11, 18, 11, 6, 40, 123_000, tzinfo=UTC)
    assert replace(LOST, state=PVState.CONNECTED).is_connected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"[]",
        b'{"connection": 1}',
        b'{"connection": {"state": "connected"}}',
        b'{"connection": {"state": "gone", "since": 5}}',
        b'{"connection": {"state": "connected", "since": Infinity}}',
        b'{"connection": {"state": "connected", "since": 1000000000000000000000000000}}',
        b"[" * 100_000,
    ],
)
def test_a_malformed_record_is_none(body: bytes) -> None:
    assert connection_event(record(LOST, body)) is None


@pytest.mark.parametrize("key", [None, b"", b"a:b", b"connection:a", b"\x00connection:abc"])
def test_other_records_are_none(key: bytes | None) -> None:
    assert connection_event(Record("a", 0, 0, key, connection_body(LOST))) is None
