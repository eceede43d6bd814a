"""Fixtures: `dml` connected to a scripted gateway whose replies the test sets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from k2eg.dml import dml
from k2eg_rx.protocol.commands import Command
from k2eg_rx.protocol.encode import Serialization
from k2eg_rx.protocol.msgpack_codec import pack
from k2eg_rx.testing import ScriptedGateway

Replies = Callable[[dict[str, Any]], list[dict[str, Any]]]


class Gateway:
    """Replies to commands as the test says.

    Attributes:
        scripted: The gateway, with its clock and broker.
        replies: By command name, a function that returns the bodies of the replies; by default one success.
    """

    def __init__(self, scripted: ScriptedGateway) -> None:
        self.scripted = scripted
        self.replies: dict[str, Replies] = {}
        scripted.faults.script(self._reply)

    def _reply(self, command: Command) -> list[dict[str, Any]]:
        sent = self.commands[len(self.scripted.commands) - 1]
        return self.replies.get(command.operation, lambda _: [{}])(sent)

    @property
    def commands(self) -> list[dict[str, Any]]:
        """The commands sent so far."""
        return [json.loads(record.value or b"") for record in self.scripted.broker.records("commands")]

    def reply_with(self, command: str, *bodies: dict[str, Any]) -> None:
        """Sets the replies to a command."""
        self.replies[command] = lambda _: list(bodies)

    def set_pvs(self, **structures: Any) -> None:
        """Sets the structures that gets return; ``__`` in a name stands for a colon."""
        known = {name.replace("__", ":"): structure for name, structure in structures.items()}

        def get(command: dict[str, Any]) -> list[dict[str, Any]]:
            name = command["pv_name"].partition("://")[2]
            return [{name: known[name]}] if name in known else [{"error": -3, "message": "Timeout operation"}]

        self.replies["get"] = get

    def names(self) -> list[str]:
        """The names of the commands, in order."""
        return [command["command"] for command in self.commands]

    def event(self, topic: str, name: str, *values: Any) -> None:
        """Publishes values of a PV."""
        self.messages(topic, name, *({name: {"value": value}} for value in values))

    def messages(self, topic: str, key: str, *bodies: dict[str, Any]) -> None:
        """Publishes messages of a gateway."""
        for body in bodies:
            self.scripted.broker.append(topic, pack(body), key.encode(), Serialization.MSGPACK.headers)


class RecordingHandler:
    """A handler that records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def __call__(self, name: str, data: dict[str, Any]) -> None:
        self.calls.append((name, data))

    def values(self) -> list[Any]:
        return [data["value"] for _, data in self.calls]


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with ScriptedGateway() as scripted:
        yield Gateway(scripted)


@pytest.fixture
def k(gateway: Gateway) -> Iterator[dml]:
    with dml("scripted", "test") as client:
        yield client


@pytest.fixture
def handle(gateway: Gateway) -> Callable[[], None]:
    """Returns a function that runs the handlers that are due."""
    return gateway.scripted.settle


@pytest.fixture
def new_handler() -> type[RecordingHandler]:
    return RecordingHandler
