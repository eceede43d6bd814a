"""What commands may do: checked before a command is claimed, queued or passed to EPICS.

A denied get, put, monitor or recurring snapshot is refused as a whole. A one-shot snapshot has a negative reply for
each PV that is denied, and goes on with the others.

Thread safety: belongs to the event loop thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import reactivex
from reactivex import Observable

from k2eg_rx.gateway.commands.messages import OutgoingRecord, reply
from k2eg_rx.gateway.commands.requests import CommandRequest, refusal_stream
from k2eg_rx.gateway.epics.access_file import AccessFile
from k2eg_rx.gateway.epics.provider import Provider
from k2eg_rx.gateway.epics.pv_list import ListedProvider, PVDeniedError, PVEntry, PVList
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.gateway.runtime.metrics import RateLimitedWarning, Result
from k2eg_rx.protocol import (
    MONITOR_KEY,
    RECURRING_KEY,
    SNAPSHOT_KEY,
    GetCommand,
    MonitorCommand,
    MultiMonitorCommand,
    PutCommand,
    RepeatingSnapshotCommand,
    SnapshotCommand,
)
from k2eg_rx.pv import Protocol, PVAddress
from k2eg_rx.texts import get_logger, printable

_log = get_logger(__name__)

ACCESS_DENIED = -12  # the code of replies; unknown to the deployed gateway

CarryOut = Callable[[CommandRequest[Any]], Observable[OutgoingRecord]]


class Denial(NamedTuple):
    """Why a PV must not be read or written.

    Attributes:
        option: The option of `[gateway]` that denies it.
        text: The rule, for the reply.
    """

    option: str
    text: str


class AccessRules:
    """The rules of a gateway.

    Args:
        context: Options and metrics.

    Raises:
        ValueError: A file of rules cannot be used.
    """

    def __init__(self, context: GatewayContext) -> None:
        self._options = context.options
        self._pvs = PVList(context.options.pvlist) if context.options.pvlist else None
        self._access = AccessFile(context.options.access) if context.options.access else None
        self._metrics = context.metrics
        self._denied = RateLimitedWarning(_log, "{} denied")

    def applied_to(self, providers: Mapping[Protocol, Provider]) -> Mapping[Protocol, Provider]:
        """Returns providers that ask EPICS for the real PVs of aliases."""
        pvs = self._pvs
        return providers if pvs is None else {name: ListedProvider(each, pvs) for name, each in providers.items()}

    def admit(self, request: CommandRequest[Any], carry_out: CarryOut) -> Observable[OutgoingRecord]:
        """Returns the answer to a command: that of its handler if it may be carried out, else a negative reply.

        Args:
            request: The command.
            carry_out: Its handler.
        """
        command = request.command
        match command:
            case GetCommand() | PutCommand():
                key, names = command.pv_name, (command.pv_name,)
            case MonitorCommand():
                key, names = MONITOR_KEY, (command.pv_name,)
            case MultiMonitorCommand():
                key, names = MONITOR_KEY, command.pv_name_list
            case RepeatingSnapshotCommand():
                key, names = RECURRING_KEY, command.pv_name_list
            case SnapshotCommand():
                return self._snapshot(request, carry_out)
            case _:  # of a snapshot that runs
                return carry_out(request)
        denied = self._denied_of(request, names)
        if not denied:
            return carry_out(request)
        name, text = next(iter(denied.items()))
        text = text if len(denied) == 1 else f"{text} (and {len(denied) - 1} more)"
        if isinstance(command, GetCommand):  # the deployed gateway answers a get even without a reply id
            self._metrics.refused += 1
            self._metrics.count_result(command.operation, Result.REFUSED)
            return reactivex.of(reply(request.reply_to, name, ACCESS_DENIED, text))
        return refusal_stream(self._metrics, request.reply_to, key, ACCESS_DENIED, text)

    def denial_of(self, principals: Collection[str], names: Sequence[str]) -> str:
        """Returns why none of some principals may read all of some PVs; ``""`` if one may."""
        denied = Denial("access", "no principal has requested it")
        for principal in principals:
            denials = (self._denial(name, principal, is_put=False) for name in names)
            first = next(filter(None, denials), None)
            if first is None:
                return ""
            denied = first
        return f"{denied.text} ([gateway] {denied.option})"

    def _snapshot(self, request: CommandRequest[SnapshotCommand], carry_out: CarryOut) -> Observable[OutgoingRecord]:
        names = request.command.pv_name_list
        denied = self._denied_of(request, names)
        if not denied:
            return carry_out(request)
        self._metrics.refused += 1
        rest = replace(request.command, pv_name_list=tuple(name for name in names if name not in denied))
        refusals = [reply(request.reply_to, SNAPSHOT_KEY, ACCESS_DENIED, text) for text in denied.values()]
        answers = reactivex.from_iterable(refusals) if request.reply_to.complete else reactivex.empty()
        return reactivex.concat(answers, carry_out(request._replace(command=rest)))

    def _denied_of(self, request: CommandRequest[Any], names: tuple[str, ...]) -> dict[str, str]:
        """Returns the names that are denied, with the text of the reply; counts and logs them."""
        denied: dict[str, str] = {}
        if len(names) > self._options.max_names:
            return denied  # its handler refuses the command
        operation = request.command.operation
        for name in dict.fromkeys(names):
            denial = self._denial(name, request.principal, is_put=isinstance(request.command, PutCommand))
            if denial is not None:
                text = f"{operation} of {printable(name, 200)!r} denied: {denial.text} ([gateway] {denial.option})"
                denied[name] = text
                self._metrics.count_denied(denial.option)
                self._denied.count(f"principal={request.principal} reply_topic={request.reply_to.topic} reason={text}")
        return denied

    def _denial(self, name: str, principal: str, *, is_put: bool) -> Denial | None:
        if is_put and self._options.read_only:
            return Denial("read_only", "this gateway only reads")
        try:
            address = PVAddress.parse(name)
        except ValueError:
            return None  # its handler says that it is malformed
        try:
            entry = PVEntry(address) if self._pvs is None else self._pvs.entry(address)
        except PVDeniedError as denied:
            return Denial("pvlist", str(denied))
        if self._access is not None:
            text = self._access.denial(principal, entry.group, entry.level, is_put=is_put)
            return Denial("access", text) if text else None
        return None
