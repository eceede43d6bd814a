"""Operators for streams of process variables, for `.pipe`, beside those of reactivex."""

from k2eg_rx.operators.alarms import AlarmTransition, alarms
from k2eg_rx.operators.alignment import align
from k2eg_rx.operators.changes import changed
from k2eg_rx.operators.fields import MissingFieldError, field, timestamps, value
from k2eg_rx.operators.instants import AlignCounts, Aligned, DropReason
from k2eg_rx.operators.latest import combine_pvs, latest_by_pv
from k2eg_rx.operators.pacing import conflate, rate_limit, throttle
from k2eg_rx.operators.staleness import Staleness, stale

__all__ = [
    "AlarmTransition",
    "AlignCounts",
    "Aligned",
    "DropReason",
    "MissingFieldError",
    "Staleness",
    "alarms",
    "align",
    "changed",
    "combine_pvs",
    "conflate",
    "field",
    "latest_by_pv",
    "rate_limit",
    "stale",
    "throttle",
    "timestamps",
    "value",
]
