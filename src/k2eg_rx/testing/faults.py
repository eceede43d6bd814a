"""Fault injection for a scripted gateway: failed, lost, garbled and late replies.

Thread safety: the thread that runs the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import reactivex as rx
from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import CompositeDisposable

from k2eg_rx.arguments import callback
from k2eg_rx.gateway import OutgoingRecord, reply
from k2eg_rx.protocol import (
    MONITOR_KEY,
    RECURRING_KEY,
    SNAPSHOT_KEY,
    STATUS_KEY,
    Command,
    GatewayStatusCommand,
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

_UNDECODABLE = b"\xc1"  # the byte that MessagePack never uses; not JSON either

Answer = Observable[OutgoingRecord]


class _Effect(Protocol):
    def __call__(self, command: ParsedCommand, execution: Answer) -> Answer:
        """Returns the records to send for a command; subscribing to `execution` executes it."""
        ...


@dataclass(slots=True)
class _FaultRule:
    operation: str | None
    subject: str | None
    left: int | None
    effect: _Effect

    def matches(self, command: Command) -> bool:
        return self.operation in (None, command.operation) and self.subject in (None, *subjects(command))


def subjects(command: Command) -> tuple[str, ...]:
    """Returns the names of a command's PVs, or the name of its snapshot."""
    match command:
        case GetCommand() | PutCommand() | MonitorCommand():
            names: tuple[str, ...] = (command.pv_name,)
        case MultiMonitorCommand() | SnapshotCommand():
            names = command.pv_name_list
        case GatewayStatusCommand():
            return ()
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
        case GatewayStatusCommand():
            return STATUS_KEY
        case _:
            return RECURRING_KEY


class Faults:
    """Rules that make replies fail. The first rule that matches a command applies.

    All methods take the same arguments: `operation`, the name of a command such as ``get``, ``put``, ``monitor``,
    ``snapshot`` or ``repeating_snapshot_stop``, None for any; `subject`, a PV's name or URI or a snapshot's name, None
    for any; `times`, the number of commands that the rule applies to, None for all.

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
        clock: The clock.
    """

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._rules: list[_FaultRule] = []

    def refuse(
        self,
        operation: str | None = None,
        subject: str | None = None,
        *,
        times: int | None = 1,
        error: int = -2,
        message: str = "",
    ) -> None:
        """Replies with an error instead of executing commands.

        Raises:
            ValueError: The code is not negative.
        """
        if error >= 0:
            raise ValueError(f"error must be negative, got {error}")

        def effect(command: ParsedCommand, execution: Answer) -> Answer:
            del execution
            return rx.of(reply(command.reply_to, _key(command.command), error, message or None))

        self._add(operation, subject, times, effect)

    def ignore(self, operation: str | None = None, subject: str | None = None, *, times: int | None = 1) -> None:
        """Neither executes commands nor replies."""

        def effect(command: ParsedCommand, execution: Answer) -> Answer:
            del command, execution
            return rx.empty()

        self._add(operation, subject, times, effect)

    def lose(self, operation: str | None = None, subject: str | None = None, *, times: int | None = 1) -> None:
        """Executes commands and drops their replies."""

        def effect(command: ParsedCommand, execution: Answer) -> Answer:
            return execution.pipe(ops.filter(lambda record: record.topic != command.reply_to.topic))

        self._add(operation, subject, times, effect)

    def garble(self, operation: str | None = None, subject: str | None = None, *, times: int | None = 1) -> None:
        """Executes commands and replies with undecodable bytes."""

        def effect(command: ParsedCommand, execution: Answer) -> Answer:
            def garbled(record: OutgoingRecord) -> OutgoingRecord:
                return record._replace(value=_UNDECODABLE) if record.topic == command.reply_to.topic else record

            return execution.pipe(ops.map(garbled))

        self._add(operation, subject, times, effect)

    def delay(
        self, seconds: float, operation: str | None = None, subject: str | None = None, *, times: int | None = 1
    ) -> None:
        """Executes commands at once and delays their replies by `seconds`."""

        def effect(command: ParsedCommand, execution: Answer) -> Answer:
            def subscribe(
                observer: abc.ObserverBase[OutgoingRecord], _: abc.SchedulerBase | None = None
            ) -> abc.DisposableBase:
                timers = CompositeDisposable()

                def later(act: Callable[[], None]) -> None:
                    timers.add(self._clock.schedule_relative(seconds, lambda _scheduler, _state=None: act()))

                def on_next(record: OutgoingRecord) -> None:
                    if record.topic == command.reply_to.topic:
                        later(lambda: observer.on_next(record))
                    else:
                        observer.on_next(record)

                def on_completed() -> None:
                    later(observer.on_completed)

                return CompositeDisposable(execution.subscribe(on_next, observer.on_error, on_completed), timers)

            return Observable(subscribe)

        self._add(operation, subject, times, effect)

    def script(
        self,
        answer: Callable[[Command], Iterable[Mapping[str, Any]]],
        operation: str | None = None,
        subject: str | None = None,
        *,
        times: int | None = None,
    ) -> None:
        """Replies with the result of a function instead of executing commands, to simulate other gateways.

        Args:
            answer: Returns the replies to a command as mappings; ``error`` and ``reply_id`` are added.
            operation: As for all faults.
            subject: As for all faults.
            times: As for all faults; by default for all commands.

        Raises:
            ValueError: `answer` cannot be called with one argument.
        """
        callback(answer, "answer", "the command")

        def effect(command: ParsedCommand, execution: Answer) -> Answer:
            del execution
            to = command.reply_to
            common: dict[str, Any] = {"error": 0, "reply_id": to.reply_id}
            key = _key(command.command).encode()
            return rx.of(
                *(
                    OutgoingRecord(
                        to.topic, key, encode_structure(to.serialization, common | dict(body)), to.serialization
                    )
                    for body in answer(command.command)
                )
            )

        self._add(operation, subject, times, effect)

    def clear(self) -> None:
        """Removes all rules."""
        self._rules.clear()

    def answer(self, command: ParsedCommand, execution: Callable[[], Answer]) -> Answer:
        """Returns the records to send for a command, according to the rules.

        Args:
            command: The command.
            execution: Returns the gateway's records for the command, executing it on subscription.
        """
        rule = next((rule for rule in self._rules if rule.matches(command.command)), None)
        if rule is None:
            return execution()
        if rule.left is not None:
            rule.left -= 1
            if rule.left == 0:
                self._rules.remove(rule)
        return rule.effect(command, rx.defer(lambda _: execution()))

    def _add(self, operation: str | None, subject: str | None, times: int | None, effect: _Effect) -> None:
        allowed: set[Any] = {None, *_OPERATIONS}
        if operation not in allowed:
            raise ValueError(f"operation must be one of {', '.join(sorted(_OPERATIONS))}, got {operation!r}")
        if times is not None and times < 1:
            raise ValueError(f"times must be above 0, or None for all commands, got {times}")
        self._rules.append(_FaultRule(operation, None if subject is None else _name(subject), times, effect))


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
        "gateway_status",
    }
)
