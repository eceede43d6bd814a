"""One-shot snapshots: a window over PVs, from each the first value.

In: orders. Out: a reply for each PV as it comes, and one at the end of the window. Belongs to the gateway's thread; it
takes nothing away from monitors of the same PVs, whose subscriptions it shares.
"""

from __future__ import annotations

import logging
from typing import Any

import reactivex
from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx.errors import WireError
from k2eg_rx.gateway.commands.channels import Channels
from k2eg_rx.gateway.commands.messages import OutgoingRecord, PVValue, reply
from k2eg_rx.gateway.commands.requests import CommandRequest, refusal_stream
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.protocol import SNAPSHOT_KEY, ReplyTo, SnapshotCommand, encode_value
from k2eg_rx.pv import PVAddress

_log = logging.getLogger(__name__)

MAX_WINDOW_MSEC = 365 * 24 * 3600 * 1000  # a year: what is above it is a slip, and not to be reckoned with in dates

_COMPLETE = 1  # no failure: the window has ended


class OneShotSnapshots:
    """The one-shot snapshots of a gateway.

    Args:
        channels: The PVs.
        context: The gateway's thread and numbers.
    """

    def __init__(self, channels: Channels, context: GatewayContext) -> None:
        self._channels = channels
        self._scheduler = context.scheduler
        self._metrics = context.metrics

    def snapshot(self, request: CommandRequest[SnapshotCommand]) -> Observable[OutgoingRecord]:
        """Returns the values of the PVs within the window, and the reply that says it is over."""
        reply_to = request.reply_to
        window = request.command.time_window_msec
        complete = reactivex.of(reply(reply_to, SNAPSHOT_KEY, _COMPLETE))
        if window is None or not 0 <= window <= MAX_WINDOW_MSEC:
            # a client that waits for the completion gets one, right behind the refusal
            words = f"The time window is not valid: {window}"
            return reactivex.concat(refusal_stream(self._metrics, reply_to, SNAPSHOT_KEY, -4, words), complete)
        if window == 0:
            return complete
        values = [self._value(reply_to, pv_name) for pv_name in request.command.pv_name_list]
        over = reactivex.timer(window / 1000, scheduler=self._scheduler)
        return reactivex.concat(reactivex.merge(*values, reactivex.never()).pipe(ops.take_until(over)), complete)

    def _value(self, reply_to: ReplyTo, pv_name: str) -> Observable[OutgoingRecord]:
        """A PV's first value as a reply; a negative one if there can be none."""

        def as_reply(sample: PVValue) -> OutgoingRecord:
            fragment = sample.fragment(reply_to.serialization)
            body = encode_value(reply_to.serialization, reply_to.reply_id, sample.name, fragment)
            return OutgoingRecord(reply_to.topic, SNAPSHOT_KEY.encode(), body, reply_to.serialization)

        def failed(error: Exception, _: Any) -> Observable[OutgoingRecord]:
            _log.warning("no value of %s for a snapshot: %s", pv_name, error)
            self._metrics.unencodable += isinstance(error, WireError)
            return reactivex.of(reply(reply_to, SNAPSHOT_KEY, -2, f"{pv_name}: {error}"))

        try:
            address = PVAddress.parse(pv_name)
        except ValueError:
            return reactivex.of(reply(reply_to, SNAPSHOT_KEY, -1, f"PV '{pv_name}'name malformed"))
        return self._channels.stream(address).pipe(ops.take(1), ops.map(as_reply), ops.catch(failed))
