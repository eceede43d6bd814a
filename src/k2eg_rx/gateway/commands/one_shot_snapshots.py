"""One-shot snapshots: the first value of each PV within a time window.

They share the EPICS subscriptions of monitors on the same PVs and do not affect them.

Thread safety: belongs to the event loop thread.
"""

from __future__ import annotations

from typing import Any

import reactivex
from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx.errors import WireError
from k2eg_rx.gateway.commands.channels import Channels
from k2eg_rx.gateway.commands.messages import OutgoingRecord, PVValue, reply, value_record
from k2eg_rx.gateway.commands.requests import CommandRequest, refusal_stream, shown
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.protocol import SNAPSHOT_KEY, ReplyTo, SnapshotCommand, encode_value
from k2eg_rx.pv import PVAddress
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

MAX_WINDOW_MSEC = 365 * 24 * 3600 * 1000  # a year; anything longer is a mistake and may overflow dates

_COMPLETE = 1  # reply code: the window has ended


class OneShotSnapshots:
    """Carries out one-shot snapshots.

    Args:
        channels: The PVs.
        context: Scheduler and metrics.
    """

    def __init__(self, channels: Channels, context: GatewayContext) -> None:
        self._channels = channels
        self._scheduler = context.scheduler
        self._metrics = context.metrics

    def snapshot(self, request: CommandRequest[SnapshotCommand]) -> Observable[OutgoingRecord]:
        """Returns a reply per PV as its value arrives, and the completion reply at the end of the window."""
        reply_to = request.reply_to
        window = request.command.time_window_msec
        complete = reactivex.of(reply(reply_to, SNAPSHOT_KEY, _COMPLETE))
        if window is None or not 0 <= window <= MAX_WINDOW_MSEC:
            # followed by a completion, as clients wait for one
            text = f"The time window is not valid: {window}"
            return reactivex.concat(refusal_stream(self._metrics, reply_to, SNAPSHOT_KEY, -4, text), complete)
        if window == 0:
            return complete
        values = [self._first_value(reply_to, pv_name) for pv_name in request.command.pv_name_list]
        end = reactivex.timer(window / 1000, scheduler=self._scheduler)
        return reactivex.concat(reactivex.merge(*values, reactivex.never()).pipe(ops.take_until(end)), complete)

    def _first_value(self, reply_to: ReplyTo, pv_name: str) -> Observable[OutgoingRecord]:
        """Returns the reply with a PV's first value, or a negative one."""

        def value_reply(value: PVValue) -> OutgoingRecord:
            fragment = value.fragment(reply_to.serialization)
            body = encode_value(reply_to.serialization, reply_to.reply_id, value.name, fragment)
            return value_record(reply_to, SNAPSHOT_KEY, pv_name, body)

        def error_reply(error: Exception, _: Any) -> Observable[OutgoingRecord]:
            _log.warning("snapshot without a PV: pv=%s error=%s", pv_name, error)
            self._metrics.unencodable += isinstance(error, WireError)
            return reactivex.of(reply(reply_to, SNAPSHOT_KEY, -2, f"{pv_name}: {error}"))

        try:
            address = PVAddress.parse(pv_name)
        except ValueError:
            return reactivex.of(reply(reply_to, SNAPSHOT_KEY, -1, f"PV '{shown(pv_name)}'name malformed"))
        return self._channels.stream(address).pipe(ops.take(1), ops.map(value_reply), ops.catch(error_reply))
