"""The documented client over the kit's scripted gateway: the test says what it answers, and when handlers run."""

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

Answer = Callable[[dict[str, Any]], list[dict[str, Any]]]


class Gateway:
    """Answers commands in the words of the test.

    Attributes:
        scripted: The gateway, with its clock and its broker.
        answers: By the command's name, what makes the bodies of its replies; by default one that says yes.
    """

    def __init__(self, scripted: ScriptedGateway) -> None:
        self.scripted = scripted
        self.answers: dict[str, Answer] = {}
        scripted.faults.script(self._answer)

    def _answer(self, command: Command) -> list[dict[str, Any]]:
        sent = self.commands[len(self.scripted.commands) - 1]
        return self.answers.get(command.operation, lambda _: [{}])(sent)

    @property
    def commands(self) -> list[dict[str, Any]]:
        """What was sent."""
        return [json.loads(record.value or b"") for record in self.scripted.broker.records("commands")]

    def says(self, command: str, *bodies: dict[str, Any]) -> None:
        """Has a command answered by these replies."""
        self.answers[command] = lambda _: list(bodies)

    def knows(self, **structures: Any) -> None:
        """Has gets of these PVs answered; ``__`` in a name stands for a colon."""
        known = {name.replace("__", ":"): structure for name, structure in structures.items()}

        def get(command: dict[str, Any]) -> list[dict[str, Any]]:
            name = command["pv_name"].partition("://")[2]
            return [{name: known[name]}] if name in known else [{"error": -3, "message": "Timeout operation"}]

        self.answers["get"] = get

    def names(self) -> list[str]:
        """The commands' names, in order."""
        return [command["command"] for command in self.commands]

    def event(self, topic: str, name: str, *values: Any) -> None:
        """Publishes values of a PV."""
        self.messages(topic, name, *({name: {"value": value}} for value in values))

    def messages(self, topic: str, key: str, *bodies: dict[str, Any]) -> None:
        """Publishes what a gateway might."""
        for body in bodies:
            self.scripted.broker.append(topic, pack(body), key.encode(), Serialization.MSGPACK.headers)


class Seen:
    """A handler that keeps its calls."""

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
    """Runs the handlers that are due."""
    return gateway.scripted.settle


@pytest.fixture
def new_handler() -> type[Seen]:
    return Seen
