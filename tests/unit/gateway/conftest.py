"""A gateway in virtual time with scripted providers, without Kafka, EPICS or threads."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import pytest
from reactivex.testing import TestScheduler

from k2eg_rx.gateway.commands.dispatch import handle_each
from k2eg_rx.gateway.commands.messages import ConnectionRecord, OutgoingRecord
from k2eg_rx.gateway.commands.source import CommandSource
from k2eg_rx.gateway.epics.provider import NotSentError, PVReading, TypeMap
from k2eg_rx.gateway.gateway import CommandHandler
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.gateway.runtime.metrics import Metrics
from k2eg_rx.gateway.runtime.options import GatewayOptions
from k2eg_rx.protocol.decode import decode_body
from k2eg_rx.protocol.structures import Structure
from k2eg_rx.pv import PVAddress
from k2eg_rx.transport.interfaces import Record

UNIX = 1_795_000_000.0  # the Unix time at virtual time 0


class ScriptedSubscription:
    def __init__(
        self, address: PVAddress, on_update: Callable[[Structure], None], on_connection: Callable[[bool], None]
    ):
        self.address = address
        self.on_update = on_update
        self.on_connection = on_connection
        self.open = True

    def close(self) -> None:
        self.open = False


class ScriptedProvider:
    """Records all calls; the test completes them."""

    def __init__(self) -> None:
        self.gets: list[tuple[PVAddress, float, Future[PVReading]]] = []
        self.puts: list[tuple[PVAddress, dict[str, Any], float, Future[None]]] = []
        self.awaited: list[tuple[str, Callable[[], None]]] = []  # puts that wait, with `on_written`
        self.is_connected = True
        self.unsent: list[tuple[Future[None], Callable[[], bool]]] = []  # puts that wait for the connection
        self.subscriptions: list[ScriptedSubscription] = []
        self.on_unreadable: Callable[[], None] = lambda: None  # of the newest subscription
        self.raises: Exception | None = None

    def get(self, address: PVAddress, timeout: float) -> Future[PVReading]:
        self._raise()
        self.gets.append((address, timeout, Future()))
        return self.gets[-1][2]

    def put(
        self,
        address: PVAddress,
        fields: Mapping[str, Any],
        timeout: float,
        *,
        wait: bool = False,
        on_written: Callable[[], None] = lambda: None,
        may_send: Callable[[], bool] = lambda: True,
    ) -> Future[None]:
        self._raise()
        if wait:
            self.awaited.append((address.name, on_written))
        put: Future[None] = Future()

        def send() -> bool:
            if not may_send():
                put.set_exception(NotSentError())
                return False
            self.puts.append((address, dict(fields), timeout, put))
            return True

        if self.is_connected:
            send()
        else:
            self.unsent.append((put, send))
        return put

    def subscribe(
        self,
        address: PVAddress,
        on_update: Callable[[Structure], None],
        on_connection: Callable[[bool], None],
        on_unreadable: Callable[[], None] = lambda: None,
    ) -> ScriptedSubscription:
        self._raise()
        self.subscriptions.append(ScriptedSubscription(address, on_update, on_connection))
        self.on_unreadable = on_unreadable
        return self.subscriptions[-1]

    def close(self) -> None:
        pass

    def _raise(self) -> None:
        if self.raises is not None:
            raise self.raises

    def open(self, name: str) -> list[ScriptedSubscription]:
        return [each for each in self.subscriptions if each.open and each.address.name == name]

    def update(self, name: str, value: Any, **fields: Any) -> None:
        """Passes a new value of a PV to all its open subscriptions."""
        for subscription in self.open(name):
            subscription.on_update({"value": value, **fields})

    def connected(self, name: str, is_connected: bool) -> None:
        for subscription in self.open(name):
            subscription.on_connection(is_connected)


class Sent:
    """A published record, decoded."""

    def __init__(self, outgoing: OutgoingRecord) -> None:
        self.topic = outgoing.topic
        self.key = outgoing.key.decode(errors="replace")
        self.form = outgoing.serialization
        body = outgoing.value
        if outgoing.place is not None:  # as the publisher does
            body = outgoing.place.numbered(outgoing.serialization, body)
            outgoing.place.passed_on()
        self.body = decode_body(Record(outgoing.topic, 0, 0, None, body, outgoing.serialization.headers))

    def __repr__(self) -> str:
        return f"{self.topic} {self.key!r} {self.body}"


class VirtualGateway:
    """CommandSource and CommandHandler in virtual time; collects what they publish."""

    def __init__(self, **options: Any) -> None:
        self.scheduler = TestScheduler()
        self.metrics = Metrics()
        self.pva = ScriptedProvider()
        self.ca = ScriptedProvider()
        self.outgoing: list[OutgoingRecord] = []
        self.context = GatewayContext(
            self.scheduler,
            self.metrics,
            GatewayOptions(**options),
            lambda: UNIX + self.scheduler.now.timestamp(),
            "commands",
        )
        self.commands = CommandSource(self.scheduler, lambda: 1000, self.context.clock)
        self.handler = CommandHandler({"pva": self.pva, "ca": self.ca}, self.context, confirm=self.commands.confirm)
        self.commands.on_claims_ended = self.handler.get_put.end_revoked
        emit = self.outgoing.append
        answer = handle_each(self.handler.handle, lambda command, error: self.handler.on_failure(command, error, emit))
        self.subscription = self.commands.commands().pipe(answer).subscribe(emit)
        self._seen = 0

    def command(self, command: str, *, age: float | None = None, topic: str = "commands", **fields: Any) -> None:
        """Sends a command and runs what is due. A field of `...` is left out."""
        body = {"command": command, "reply_topic": "replies", "reply_id": "id", "serialization": "json"} | fields
        self.raw(json.dumps({name: value for name, value in body.items() if value is not ...}).encode(), age, topic)

    def raw(self, value: bytes | None, age: float | None = None, topic: str = "commands") -> None:
        timestamp = -1 if age is None else int((self.context.clock() - age) * 1000)
        self.commands.receive([Record(topic, 0, 0, None, value, (), timestamp)])
        self.settle()

    def update(self, name: str, value: Any, **fields: Any) -> None:
        self.pva.update(name, value, **fields)
        self.settle()

    def settle(self) -> None:
        """Runs what is due."""
        self.advance(1e-6)

    def advance(self, seconds: float) -> None:
        self.scheduler.advance_by(seconds)

    @property
    def values(self) -> list[OutgoingRecord]:
        """The published records except connection records."""
        return [outgoing for outgoing in self.outgoing if not isinstance(outgoing, ConnectionRecord)]

    def sent(self) -> list[Sent]:
        """Returns the records published since the last call, except connection records."""
        values = self.values
        new = [Sent(outgoing) for outgoing in values[self._seen :]]
        self._seen = len(values)
        return new

    def bodies(self, topic: str | None = None) -> list[dict[str, Any]]:
        return [sent.body for sent in self.sent() if topic in (None, sent.topic)]


@pytest.fixture
def gateway() -> VirtualGateway:
    return VirtualGateway()


@pytest.fixture
def new_gateway() -> Callable[..., VirtualGateway]:
    return VirtualGateway


@pytest.fixture
def reading() -> Callable[..., PVReading]:
    def make(value: Any, types: TypeMap | None = None) -> PVReading:
        return PVReading({"value": value}, types or {})

    return make


@pytest.fixture
def new_provider() -> Callable[[], ScriptedProvider]:
    return ScriptedProvider
