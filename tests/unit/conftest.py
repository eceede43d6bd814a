"""A transport without threads: the test acts as the gateway, and all calls are on its thread."""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from k2eg_rx import Client
from k2eg_rx.protocol.msgpack_codec import pack
from k2eg_rx.settings import Settings
from k2eg_rx.transport.interfaces import (
    Assignment,
    ConnectionState,
    Headers,
    History,
    Offsets,
    Receiver,
    Record,
    TransportError,
    TransportStatus,
)

HEADERS: Headers = [("k2eg-ser-type", b"Msgpack")]


def done() -> Future[None]:
    future: Future[None] = Future()
    future.set_result(None)
    return future


class ScriptedSource:
    """A source of the test's records. With `hold`, the test completes the futures of positions."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.on_gone: Callable[[str], None] = lambda _: None
        self.topics: list[str] = []
        self.held: list[Future[None]] = []
        self.hold = False
        self.failure: Exception | None = None
        self.woken = 0
        self.closed = False

    def read(self, topic: str) -> Future[None]:
        if self.failure is not None:
            raise self.failure
        if topic not in self.topics:
            self.topics.append(topic)
        if not self.hold:
            return done()
        self.held.append(Future())
        return self.held[-1]

    def release(self, topic: str) -> None:
        if topic in self.topics:
            self.topics.remove(topic)

    def release_for_rebalance(self, topics: Collection[str], unused: Callable[[], Offsets]) -> None:
        raise NotImplementedError

    def wake(self) -> None:
        self.woken += 1

    def lag(self) -> int:
        return 0

    def is_behind(self) -> bool:
        return False

    def assignment(self) -> Assignment | None:
        return None

    def owns(self, partition: tuple[str, int], offset: int) -> bool:
        return True

    def in_session(self) -> bool:
        return True

    def is_live(self, partition: tuple[str, int], offset: int) -> bool:
        return False

    def confirm(self, done: Callable[[], None]) -> None:
        done()

    def close(self, timeout: float) -> None:
        self.closed = True


class ScriptedSink:
    def __init__(self) -> None:
        self.commands: list[dict[str, Any]] = []
        self.topics: list[str] = []
        self.reports: list[Any] = []
        self.failure: TransportError | None = None
        self.is_reachable = True
        self.closed = False

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        on_delivery: Callable[[TransportError | None], None] | None = None,
        timestamp_ms: int | None = None,
        still_wanted: Callable[[], bool] | None = None,
        partition: int | None = None,
    ) -> None:
        assert value is not None
        if self.failure is not None:
            raise self.failure
        if not self.is_reachable:
            return
        assert still_wanted is None or still_wanted()
        self.topics.append(topic)
        self.commands.append(json.loads(value or b""))
        self.reports.append(on_delivery)

    def close(self, timeout: float) -> None:
        self.closed = True


class Present:
    def __init__(self) -> None:
        self.closed = False

    def close(self, timeout: float) -> None:
        self.closed = True


class ScriptedTransport:
    """A transport of scripted parts. With `hold_replies`, the test completes the reply topic's future."""

    def __init__(self) -> None:
        self.hold_replies = False
        self.out = ScriptedSink()
        self.present = Present()
        self.closed = False
        self.listeners: list[Callable[[TransportStatus], None]] = []
        self.group_name: str | None = None

    def replies(self, receiver: Receiver, topic: str) -> tuple[ScriptedSource, Future[None]]:
        self.reply_source = ScriptedSource(receiver)
        self.reply_source.hold = self.hold_replies
        return self.reply_source, self.reply_source.read(topic)

    def events(self, receiver: Receiver, group_name: str | None) -> ScriptedSource:
        self.group_name = group_name
        self.event_source = ScriptedSource(receiver)
        return self.event_source

    def history(self, topics: Sequence[str]) -> History:
        raise NotImplementedError

    def sink(self, *, linger: float = 0.0) -> ScriptedSink:
        return self.out

    def presence(self, topic: str, app_name: str) -> Present:
        return self.present

    def on_status(self, listener: Callable[[TransportStatus], None]) -> None:
        self.listeners.append(listener)
        listener(TransportStatus(ConnectionState.UP))

    def close(self, timeout: float) -> None:
        self.closed = True

    # the gateway's part, played by the test

    @property
    def commands(self) -> list[dict[str, Any]]:
        return self.out.commands

    def reply(self, command: dict[str, Any], **fields: Any) -> None:
        self.replies_together((command, fields))

    def replies_together(self, *replies: tuple[dict[str, Any], dict[str, Any]]) -> None:
        """Sends one batch of replies, given as commands and the replies' further fields."""
        bodies = [
            (command["reply_topic"], pack({"error": 0, "reply_id": command["reply_id"]} | fields))
            for command, fields in replies
        ]
        records = [Record(topic, 0, offset, b"k", body, HEADERS) for offset, (topic, body) in enumerate(bodies)]
        self.reply_source.receiver.receive(records)

    def event(self, topic: str, name: str, *values: Any) -> None:
        self.messages(topic, name, *({name: {"value": value}} for value in values))

    def messages(self, topic: str, key: str, *bodies: dict[str, Any]) -> None:
        records: Sequence[Record] = [
            Record(topic, 0, offset, key.encode(), pack(body), HEADERS) for offset, body in enumerate(bodies)
        ]
        self.event_source.receiver.receive(records)


@pytest.fixture
def transport() -> ScriptedTransport:
    return ScriptedTransport()


@pytest.fixture
def client(transport: ScriptedTransport) -> Iterator[Client]:
    settings = Settings("scripted", "nowhere:9092", "commands", "test-reply")
    client = Client("scripted", "test", settings=settings, transport=transport)
    yield client
    client.close(0.1)
