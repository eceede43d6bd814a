"""The documented client over a transport without threads: the test is the gateway, and says when handlers run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from reactivex import Observable, abc
from reactivex.testing import TestScheduler

from k2eg.dml import dml
from k2eg_rx import PVUpdate, Reply, Settings, Snapshot

Answer = Callable[[dict[str, Any]], list[dict[str, Any]]]

SETTINGS = Settings("scripted", "nowhere:9092", "commands", "test-reply")


class Scripted(dml):
    """The client with its handlers on a virtual scheduler instead of the pool."""

    virtual: TestScheduler

    def monitor_many_stream(self, *arguments: Any, **options: Any) -> Observable[PVUpdate]:
        return self.virtually(super().monitor_many_stream(*arguments, **options))

    def snapshot_recurring_stream(self, *arguments: Any, **options: Any) -> Observable[Snapshot]:
        return self.virtually(super().snapshot_recurring_stream(*arguments, **options))

    def activation_stream(self, *arguments: Any, **options: Any) -> Observable[Reply]:
        self.virtual.start()  # what the pool would do meanwhile: the failure of a stream reaches its subscriber
        return super().activation_stream(*arguments, **options)

    def snapshot_activation_stream(self, *arguments: Any, **options: Any) -> Observable[Reply]:
        self.virtual.start()
        return super().snapshot_activation_stream(*arguments, **options)

    def virtually(self, stream: Observable[Any]) -> Observable[Any]:
        """Has the subscribers of a stream called on the virtual scheduler."""

        def subscribe(observer: abc.ObserverBase[Any], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            return stream.subscribe(observer, scheduler=self.virtual)

        return Observable(subscribe)


class Gateway:
    """Answers commands as soon as they are sent.

    Attributes:
        commands: What was sent.
        answers: By the command's name, what makes the bodies of its replies; by default one that says yes.
    """

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.commands: list[dict[str, Any]] = transport.commands
        self.answers: dict[str, Answer] = {}
        send = transport.out.send

        def send_and_answer(*arguments: Any, **options: Any) -> None:
            send(*arguments, **options)
            command = self.commands[-1]
            for body in self.answers.get(command["command"], lambda _: [{}])(command):
                transport.reply(command, **body)

        transport.out.send = send_and_answer

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


class Seen:
    """A handler that keeps its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def __call__(self, name: str, data: dict[str, Any]) -> None:
        self.calls.append((name, data))

    def values(self) -> list[Any]:
        return [data["value"] for _, data in self.calls]


@pytest.fixture
def gateway(transport: Any) -> Gateway:
    return Gateway(transport)


@pytest.fixture
def k(gateway: Gateway) -> Iterator[Scripted]:
    client = Scripted("scripted", "test", settings=SETTINGS, transport=gateway.transport)
    client.virtual = TestScheduler()
    yield client
    client.close(0.1)


@pytest.fixture
def handle(k: Scripted) -> Callable[[], None]:
    """Runs the handlers that are due."""

    def run() -> None:
        k.virtual.start()

    return run


@pytest.fixture
def new_handler() -> type[Seen]:
    return Seen
