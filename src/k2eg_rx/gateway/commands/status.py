"""Answers what a gateway does and how it is.

Thread safety: belongs to the event loop thread.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

import reactivex
from reactivex import Observable, abc

from k2eg_rx.gateway.commands.messages import OutgoingRecord, reply
from k2eg_rx.gateway.commands.monitors import Monitors
from k2eg_rx.gateway.commands.requests import CommandRequest
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.gateway.runtime.metrics import GatewayState, Result
from k2eg_rx.protocol import STATUS_KEY, GatewayReport, GatewayStatusCommand, ReplyTo, report_fields

_SAMPLE = 1.0  # seconds between samples of the counts that rates are made of
_SAMPLES = 10  # so that rates are those of the last ten seconds


def gateway_name() -> str:
    """Returns the name of this process, for people."""
    return f"{socket.gethostname()}:{os.getpid()}"


def gateway_version() -> str:
    """Returns the version of this package; empty if it is not installed, as in a source tree."""
    try:
        return version("k2eg")
    except PackageNotFoundError:
        return ""


class _Sample(NamedTuple):
    time: float
    updates: int
    records: int


class StatusHandler:
    """Handles `GatewayStatusCommand`.

    Args:
        monitors: The monitors.
        context: Scheduler, options, metrics and clock.

    Attributes:
        state: Returns the gateway's state.
        membership: Returns the gateway's name among those that share what they publish, and the names of all.
    """

    def __init__(self, monitors: Monitors, context: GatewayContext) -> None:
        self._monitors = monitors
        self._context = context
        self._started = context.scheduler.now
        self._samples: deque[_Sample] = deque([self._sample()], _SAMPLES)
        self.state: Callable[[], GatewayState] = GatewayState
        self.membership: Callable[[], tuple[str, Sequence[str]]] = lambda: ("", ())

    def start(self) -> None:
        """Starts to measure rates."""
        self._context.scheduler.schedule_relative(_SAMPLE, self._measure)

    def _measure(self, _scheduler: abc.SchedulerBase, _state: object = None) -> None:
        self._samples.append(self._sample())
        self.start()

    def _sample(self) -> _Sample:
        metrics = self._context.metrics
        updates = sum(counter.count for counter in metrics.events.values())
        return _Sample(self._context.scheduler.now.timestamp(), updates, metrics.published)

    def status(self, request: CommandRequest[GatewayStatusCommand]) -> Observable[OutgoingRecord]:
        """Returns the replies of this gateway."""
        self._context.metrics.count_result(request.reply_to.command, Result.OK)
        return reactivex.from_iterable(self.replies(request.command, request.reply_to))

    def replies(self, command: GatewayStatusCommand, reply_to: ReplyTo) -> list[OutgoingRecord]:
        """Returns the replies of this gateway to a command, whichever gateway has received it."""
        report = self.report()
        if command.monitors:
            report = replace(report, monitor_list=self._monitors.reports())
        return [reply(reply_to, STATUS_KEY, 0, further=part) for part in report_fields(report)]

    def report(self) -> GatewayReport:
        """Returns what this gateway says of itself, without its monitors."""
        context, state, metrics = self._context, self.state(), self._context.metrics
        before, now = self._samples[0], self._sample()
        seconds = max(now.time - before.time, 1e-3)
        member, members = self.membership()
        return GatewayReport(
            gateway=gateway_name(),
            version=gateway_version(),
            group=context.options.group,
            member=member,
            members=tuple(members),
            problem=state.fleet.problem if state.fleet is not None else "",
            time_ms=int(context.clock() * 1000),
            uptime=round((context.scheduler.now - self._started).total_seconds(), 3),
            kafka=state.connection.value,
            reason=state.reason,
            partitions=-1 if state.partitions is None else state.partitions,
            providers=dict(state.providers),
            connected=metrics.pvs_connected,
            disconnected=metrics.pvs_disconnected,
            never_connected=metrics.pvs_never_connected,
            monitors=len(self._monitors),
            snapshots=state.snapshots,
            operations=state.operations,
            update_rate=round((now.updates - before.updates) / seconds, 2),
            record_rate=round((now.records - before.records) / seconds, 2),
            waiting={"updates": state.updates_waiting, "records": state.records_waiting},
            counts=metrics.as_dict(),
            lost=metrics.losses(),
        )
