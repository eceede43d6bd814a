"""One-shot snapshots: the first value of each PV within a time window.

They share the EPICS subscriptions of monitors on the same PVs and do not affect them.

Thread safety: belongs to the event loop thread.
"""

from __future__ import annotations

from typing import Any

import reactivex
from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import CompositeDisposable, Disposable, SerialDisposable

from k2eg_rx.errors import WireError
from k2eg_rx.gateway.commands.channels import Channels
from k2eg_rx.gateway.commands.limits import OVER_LIMIT, Usage, too_many_names
from k2eg_rx.gateway.commands.messages import OutgoingRecord, PVValue, reply, value_record
from k2eg_rx.gateway.commands.requests import CommandRequest, refusal_stream
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.gateway.runtime.event_loop import SlicedDisposable, in_slices
from k2eg_rx.gateway.runtime.metrics import Result
from k2eg_rx.protocol import SNAPSHOT_KEY, ReplyTo, SnapshotCommand, encode_value
from k2eg_rx.pv import PVAddress
from k2eg_rx.texts import get_logger, printable

_log = get_logger(__name__)

MAX_WINDOW_MSEC = 365 * 24 * 3600 * 1000  # a year; anything longer is a mistake and may overflow dates

_COMPLETE = 1  # reply code: the window has ended


class OneShotSnapshots:
    """Carries out one-shot snapshots.

    Args:
        channels: The PVs.
        context: Scheduler, metrics and options.
        usage: Bounds PVs.
    """

    def __init__(self, channels: Channels, context: GatewayContext, usage: Usage) -> None:
        self._channels = channels
        self._usage = usage
        self._options = context.options
        self._scheduler = context.scheduler
        self._metrics = context.metrics

    def snapshot(self, request: CommandRequest[SnapshotCommand]) -> Observable[OutgoingRecord]:
        """Returns a reply per PV as its value arrives, and the completion reply at the end of the window.

        The window starts when all PVs have been subscribed to.
        """
        reply_to, names = request.reply_to, request.command.pv_name_list
        window = request.command.time_window_msec
        if window is None or not 0 <= window <= MAX_WINDOW_MSEC:
            return self._refusal(reply_to, -4, f"The time window is not valid: {window}")
        if window == 0:
            self._metrics.count_result(reply_to.command, Result.OK)
            return reactivex.of(reply(reply_to, SNAPSHOT_KEY, _COMPLETE))
        refusal = too_many_names(len(names), self._options)
        if refusal:
            return self._refusal(reply_to, OVER_LIMIT, refusal)

        def subscribe(
            observer: abc.ObserverBase[OutgoingRecord], _: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            refusal = self._usage.take(reply_to.topic, pvs=len(names), topics=0)
            if refusal:
                return self._refusal(reply_to, OVER_LIMIT, refusal).subscribe(observer)
            taken = Disposable(lambda: self._usage.give_back(reply_to.topic, pvs=len(names), topics=0))
            subscriptions, window_end = SlicedDisposable(self._scheduler), SerialDisposable()

            def start(pv_name: str) -> None:
                subscriptions.add(self._first_value(reply_to, pv_name).subscribe(observer.on_next, observer.on_error))

            def all_started() -> None:
                window_end.disposable = self._scheduler.schedule_relative(window / 1000, complete)

            def complete(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
                self._metrics.count_result(reply_to.command, Result.OK)
                observer.on_next(reply(reply_to, SNAPSHOT_KEY, _COMPLETE))
                observer.on_completed()

            starts = in_slices(self._scheduler, names, start, all_started, observer.on_error)
            return CompositeDisposable(starts, window_end, subscriptions, taken)

        return reactivex.create(subscribe)

    def _refusal(self, reply_to: ReplyTo, error: int, text: str) -> Observable[OutgoingRecord]:
        """Returns a negative reply, followed by a completion, as clients wait for one."""
        complete = reactivex.of(reply(reply_to, SNAPSHOT_KEY, _COMPLETE))
        return reactivex.concat(refusal_stream(self._metrics, reply_to, SNAPSHOT_KEY, error, text), complete)

    def _first_value(self, reply_to: ReplyTo, pv_name: str) -> Observable[OutgoingRecord]:
        """Returns the reply with a PV's first value, or a negative one."""

        def value_reply(value: PVValue) -> OutgoingRecord:
            fragment = value.fragment(reply_to.serialization)
            body = encode_value(reply_to.serialization, reply_to.reply_id, value.key, fragment)
            return value_record(reply_to, SNAPSHOT_KEY, pv_name, body)

        def error_reply(error: Exception, _: Any) -> Observable[OutgoingRecord]:
            _log.warning("snapshot without a PV: pv=%s error=%s", pv_name, error)
            self._metrics.unencodable += isinstance(error, WireError)
            return reactivex.of(reply(reply_to, SNAPSHOT_KEY, -2, f"{pv_name}: {error}"))

        try:
            address = PVAddress.parse(pv_name)
        except ValueError:
            return reactivex.of(reply(reply_to, SNAPSHOT_KEY, -1, f"PV '{printable(pv_name, 200)}'name malformed"))
        return self._channels.stream(address).pipe(ops.take(1), ops.map(value_reply), ops.catch(error_reply))
