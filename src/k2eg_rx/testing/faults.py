"""What may go wrong with a gateway's answers, made to go wrong.

In: rules, from the test; commands, from the scripted gateway. Out: answers that are refused, lost, garbled or late.
Everything belongs to the thread that drives the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import reactivex as rx
from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import CompositeDisposable

from k2eg_rx.gateway import OutgoingRecord, reply
from k2eg_rx.protocol import (
    MONITOR_KEY,
    RECURRING_KEY,
    SNAPSHOT_KEY,
    Command,
    GetCommand,
    MonitorCommand,
    MultiMonitorCommand,
    ParsedCommand,
    PutCommand,
    SnapshotCommand,
    encode_structure,
)
from k2eg_rx.pv import pv_name_of
from k2eg_rx.testing.virtual_clock import VirtualClock

_NO_MESSAGEPACK = b"\xc1"  # the one byte that MessagePack never uses; no JSON either

Answer = Observable[OutgoingRecord]


class _Fate(Protocol):
    def __call__(self, asked: ParsedCommand, carried_out: Answer) -> Answer:
        """Returns what is said in place of the answer; the command is carried out when that is subscribed to."""
        ...


@dataclass(slots=True)
class _Rule:
    operation: str | None
    subject: str | None
    left: int | None
    fate: _Fate

    def takes(self, command: Command) -> bool:
        return self.operation in (None, command.operation) and self.subject in (None, *subjects(command))


def subjects(command: Command) -> tuple[str, ...]:
    """Returns what a command is about: the names of its PVs, or that of its snapshot."""
    match command:
        case GetCommand() | PutCommand() | MonitorCommand():
            names: tuple[str, ...] = (command.pv_name,)
        case MultiMonitorCommand() | SnapshotCommand():
            names = command.pv_name_list
        case _:
            return (command.snapshot_name,)
    return tuple(map(_name, names))


def _name(uri: str) -> str:
    try:
        return pv_name_of(uri)
    except ValueError:
        return uri


def _key(command: Command) -> str:
    match command:
        case GetCommand() | PutCommand():
            return command.pv_name
        case MonitorCommand() | MultiMonitorCommand():
            return MONITOR_KEY
        case SnapshotCommand():
            return SNAPSHOT_KEY
        case _:
            return RECURRING_KEY


class Faults:
    """The rules by which answers go wrong. Each command falls under the first that fits it.

    All take the same arguments: the `operation`, such as ``get``, ``put``, ``monitor``, ``snapshot``,
    ``repeating_snapshot_stop``, None for any; the `subject`, a PV's name or URI or a snapshot's name, None for any;
    how many `times`, None for ever.

    Example:
        >>> from k2eg_rx import first
        >>> from k2eg_rx.testing import ScriptedGateway
        >>> with ScriptedGateway() as gateway, gateway.client() as client:
        ...     _ = gateway.pv("demo:current", 1.5)
        ...     gateway.faults.refuse("get", "demo:current", message="no beam")
        ...     try:
        ...         first(client.get_stream("pva://demo:current"))
        ...     except Exception as error:
        ...         print(error)
        ...     print(first(client.get_stream("pva://demo:current")).value)
        get of pva://demo:current: the gateway answered with error -2: no beam
        1.5

    Args:
        clock: The time.
    """

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._rules: list[_Rule] = []

    def refuse(
        self,
        operation: str | None = None,
        subject: str | None = None,
        *,
        times: int | None = 1,
        error: int = -2,
        message: str = "",
    ) -> None:
        """Has commands answered with an error instead of being carried out.

        Raises:
            ValueError: The code is not that of a failure.
        """
        if error >= 0:
            raise ValueError(f"the code of a failure is negative, not {error}")

        def fate(asked: ParsedCommand, carried_out: Answer) -> Answer:
            del carried_out
            return rx.of(reply(asked.reply_to, _key(asked.command), error, message or None))

        self._add(operation, subject, times, fate)

    def ignore(self, operation: str | None = None, subject: str | None = None, *, times: int | None = 1) -> None:
        """Has commands neither carried out nor answered."""

        def fate(asked: ParsedCommand, carried_out: Answer) -> Answer:
            del asked, carried_out
            return rx.empty()

        self._add(operation, subject, times, fate)

    def lose(self, operation: str | None = None, subject: str | None = None, *, times: int | None = 1) -> None:
        """Has commands carried out and their replies lost."""

        def fate(asked: ParsedCommand, carried_out: Answer) -> Answer:
            return carried_out.pipe(ops.filter(lambda said: said.topic != asked.reply_to.topic))

        self._add(operation, subject, times, fate)

    def garble(self, operation: str | None = None, subject: str | None = None, *, times: int | None = 1) -> None:
        """Has commands carried out and answered with bytes that nobody can read."""

        def fate(asked: ParsedCommand, carried_out: Answer) -> Answer:
            def garbled(said: OutgoingRecord) -> OutgoingRecord:
                return said._replace(value=_NO_MESSAGEPACK) if said.topic == asked.reply_to.topic else said

            return carried_out.pipe(ops.map(garbled))

        self._add(operation, subject, times, fate)

    def delay(
        self, seconds: float, operation: str | None = None, subject: str | None = None, *, times: int | None = 1
    ) -> None:
        """Has commands carried out at once and answered late."""

        def fate(asked: ParsedCommand, carried_out: Answer) -> Answer:
            def subscribe(
                observer: abc.ObserverBase[OutgoingRecord], _: abc.SchedulerBase | None = None
            ) -> abc.DisposableBase:
                late = CompositeDisposable()

                def later(act: Callable[[], None]) -> None:
                    late.add(self._clock.schedule_relative(seconds, lambda _scheduler, _state=None: act()))

                def on_next(said: OutgoingRecord) -> None:
                    if said.topic == asked.reply_to.topic:
                        later(lambda: observer.on_next(said))
                    else:
                        observer.on_next(said)

                def on_completed() -> None:
                    later(observer.on_completed)

                return CompositeDisposable(carried_out.subscribe(on_next, observer.on_error, on_completed), late)

            return Observable(subscribe)

        self._add(operation, subject, times, fate)

    def script(
        self,
        answer: Callable[[Command], Iterable[Mapping[str, Any]]],
        operation: str | None = None,
        subject: str | None = None,
        *,
        times: int | None = None,
    ) -> None:
        """Has commands answered by what a function returns instead of being carried out: a gateway of another kind.

        Args:
            answer: Returns the maps of the replies to a command; ``error`` and ``reply_id`` are there without it.
            operation: As for all faults.
            subject: As for all faults.
            times: As for all faults; for ever unless told otherwise.
        """

        def fate(asked: ParsedCommand, carried_out: Answer) -> Answer:
            del carried_out
            to = asked.reply_to
            about: dict[str, Any] = {"error": 0, "reply_id": to.reply_id}
            key = _key(asked.command).encode()
            return rx.of(
                *(
                    OutgoingRecord(
                        to.topic, key, encode_structure(to.serialization, about | dict(body)), to.serialization
                    )
                    for body in answer(asked.command)
                )
            )

        self._add(operation, subject, times, fate)

    def clear(self) -> None:
        """Forgets all rules: from now on nothing goes wrong."""
        self._rules.clear()

    def answer(self, asked: ParsedCommand, carried_out: Callable[[], Answer]) -> Answer:
        """Returns what is said to a command.

        Args:
            asked: The command.
            carried_out: Returns the true answer, which carries the command out when it is subscribed to.
        """
        rule = next((rule for rule in self._rules if rule.takes(asked.command)), None)
        if rule is None:
            return carried_out()
        if rule.left is not None:
            rule.left -= 1
            if rule.left == 0:
                self._rules.remove(rule)
        return rule.fate(asked, rx.defer(lambda _: carried_out()))

    def _add(self, operation: str | None, subject: str | None, times: int | None, fate: _Fate) -> None:
        known: set[Any] = {None, *_OPERATIONS}
        if operation not in known:
            raise ValueError(f"no operation {operation!r}; there is {', '.join(sorted(_OPERATIONS))}")
        if times is not None and times < 1:
            raise ValueError(f"times is a number above 0, or None for ever, not {times}")
        self._rules.append(_Rule(operation, None if subject is None else _name(subject), times, fate))


_OPERATIONS: frozenset[str] = frozenset(
    {
        "get",
        "put",
        "monitor",
        "multi-monitor",
        "snapshot",
        "repeating_snapshot",
        "repeating_snapshot_trigger",
        "repeating_snapshot_stop",
    }
)
