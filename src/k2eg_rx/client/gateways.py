"""Asks the gateways of the command topic for their status.

Thread safety: replies are collected on the reply poll thread, and the end comes on the timer thread. Reactivex gives
one notification at a time to the subscriber, and none after the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx.client.requests import Requests
from k2eg_rx.errors import K2EGError, OperationError, OperationTimeout
from k2eg_rx.protocol import GatewayStatusCommand, Reply

if TYPE_CHECKING:
    from k2eg_rx.protocol import GatewayReport

DEFAULT_WAIT = 2.0  # seconds; a gateway answers within milliseconds, those of a fleet within a tenth of a second
_SUBJECT = "gateways"


class _Reports:
    """Puts the parts of reports together, and keeps a refusal."""

    def __init__(self, command: GatewayStatusCommand) -> None:
        self._command = command
        self._parts: dict[str, dict[int, GatewayReport]] = {}
        self._complete: set[str] = set()
        self._refusal: K2EGError | None = None

    def feed(self, reply: Reply) -> Sequence[GatewayReport]:
        """Takes a reply; returns the report that it completes, if it does."""
        from k2eg_rx.protocol import gateway_report  # noqa: PLC0415 - costs the start of programs that do not ask

        report = gateway_report(reply.body)
        if report is None:
            text = reply.message or "it is of another kind, which has no status"
            self._refusal = OperationError(reply.error, text, self._command.operation, _SUBJECT)
            return ()
        parts = self._parts.setdefault(report.gateway, {})
        parts[report.part] = report
        if len(parts) < report.parts or report.gateway in self._complete:
            return ()
        self._complete.add(report.gateway)
        monitors = [monitor for _, part in sorted(parts.items()) for monitor in part.monitor_list]
        return (replace(report, monitor_list=tuple(monitors), part=1, parts=1),)

    def error(self, timeout: float, hint: str) -> Exception | None:
        """Returns what is wrong at the end: None if there was a report."""
        if self._complete:
            return None
        return self._refusal or OperationTimeout(self._command.operation, _SUBJECT, timeout, hint)


def gateway_reports(requests: Requests, timeout: float, *, monitors: bool) -> Observable[GatewayReport]:
    """Returns the reports of the gateways that answer in time; each subscription sends the command.

    It fails if no gateway has a report: with `OperationError` if one refuses, else with `OperationTimeout`.

    Args:
        requests: Sends the command.
        timeout: Seconds for which replies are collected.
        monitors: Whether the reports have the gateways' monitors.
    """
    command = GatewayStatusCommand(monitors)

    def start(_: object = None) -> Observable[GatewayReport]:
        reports = _Reports(command)

        def end(_: object = None) -> Observable[GatewayReport]:
            error = reports.error(timeout, requests.why_no_reply())
            return rx.empty() if error is None else rx.throw(error)

        collected = requests.replies(command).pipe(
            requests.for_seconds(timeout), ops.flat_map(lambda reply: rx.from_iterable(reports.feed(reply)))
        )
        return rx.concat(collected, rx.defer(end))

    return rx.defer(start)
