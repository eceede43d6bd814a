"""PVs that share a topic of events; the test acts as the gateway."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from reactivex.testing import TestScheduler

from k2eg_rx import Client, Settings

MANY = [f"pva://pv{number}" for number in range(100)]


@pytest.fixture
def client(transport: Any) -> Iterator[Client]:
    settings = Settings("scripted", "nowhere:9092", "commands", "test-reply", events_topic="shared")
    client = Client("scripted", "test", settings=settings, transport=transport)
    yield client
    client.close(0.1)


class Seen:
    """A subscriber that records the names and values of updates."""

    def __init__(self, stream: Any) -> None:
        self._scheduler = TestScheduler()
        self._items: list[Any] = []
        stream.subscribe(self._items.append, scheduler=self._scheduler)

    @property
    def items(self) -> list[tuple[str, Any]]:
        self._scheduler.start()
        return [(item.name, item.value) for item in self._items]


def shared(client: Client, transport: Any) -> Seen:
    """Returns the subscriber of a large stream that the gateway has confirmed."""
    seen = Seen(client.monitor_many_stream(MANY))
    (command,) = transport.commands
    assert (command["pv_name_list"], command["monitor_dest_topic"]) == (MANY, "shared")
    transport.reply(command, uri_keys=[], publishing_topic="shared")
    return seen


def test_a_large_stream_reads_the_shared_topic(client: Client, transport: Any) -> None:
    seen = shared(client, transport)
    assert set(transport.event_source.topics) == {"shared"}
    transport.event("shared", "pv3", 1.5)
    transport.event("shared", "of_another_client", 2.5)
    transport.event("pv3", "pv3", 3.5)
    transport.event("shared", "pv4", 4.5)
    assert seen.items == [("pv3", 1.5), ("pv4", 4.5)]
    assert client.status.decode_errors == {}


def test_the_environment_says_what_a_large_stream_is(transport: Any) -> None:
    settings = Settings(
        "scripted", "nowhere:9092", "commands", "test-reply", events_topic="shared", events_topic_from=2
    )
    with Client("scripted", "test", settings=settings, transport=transport) as client:
        Seen(client.monitor_many_stream(MANY[:2]))
        assert [command["monitor_dest_topic"] for command in transport.commands] == ["shared"]


def test_a_small_stream_reads_the_topics_of_its_pvs(client: Client, transport: Any) -> None:
    Seen(client.monitor_many_stream(MANY[1:]))
    assert "monitor_dest_topic" not in transport.commands[0]
    assert "shared" not in transport.event_source.topics


def test_a_gateway_without_shared_topics_is_read_by_pv(client: Client, transport: Any) -> None:
    seen = Seen(client.monitor_many_stream(MANY))
    transport.reply(transport.commands[0])
    assert set(transport.event_source.topics) == {f"pv{number}" for number in range(100)}
    assert len(transport.commands) == 2
    assert transport.commands[1]["pv_name_list"] == MANY
    assert "monitor_dest_topic" not in transport.commands[1]
    transport.event("pv3", "pv3", 1.5)
    assert seen.items == [("pv3", 1.5)]


def test_after_its_deletion_all_are_asked_for_again_on_the_shared_topic(client: Client, transport: Any) -> None:
    shared(client, transport)
    transport.event_source.on_gone("shared")  # deleted
    deadline = time.monotonic() + 60
    while len(transport.commands) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert (transport.commands[1]["pv_name_list"], transport.commands[1]["monitor_dest_topic"]) == (MANY, "shared")
