"""Operators for streams of process variables, for `.pipe`, beside those of reactivex."""

from k2eg_rx.operators.alarms import AlarmTransition, alarms
from k2eg_rx.operators.alignment import align
from k2eg_rx.operators.changes import changed
from k2eg_rx.operators.fields import MissingFieldError, field, timestamps, value
from k2eg_rx.operators.instants import AlignCounts, Aligned, DropReason
from k2eg_rx.operators.latest import combine_pvs, latest_by_pv
from k2eg_rx.operators.pacing import conflate, rate_limit, throttle
from k2eg_rx.operators.retries import retry_activation
from k2eg_rx.operators.samples import Window, WindowCounts
from k2eg_rx.operators.staleness import Staleness, stale
from k2eg_rx.operators.windows import window
from k2eg_rx.operators.writing import Outcome, Putter, Written, put_to

__all__ = [
    "AlarmTransition",
    "AlignCounts",
    "Aligned",
    "DropReason",
    "MissingFieldError",
    "Outcome",
    "Putter",
    "Staleness",
    "Window",
    "WindowCounts",
    "Written",
    "alarms",
    "align",
    "changed",
    "combine_pvs",
    "conflate",
    "field",
    "latest_by_pv",
    "put_to",
    "rate_limit",
    "retry_activation",
    "stale",
    "throttle",
    "timestamps",
    "value",
    "window",
]
