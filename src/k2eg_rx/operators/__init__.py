"""Operators for streams of process variables, for `.pipe`, beside those of reactivex.

In: what a client's streams emit, mostly `PVUpdate`s of one PV or of several. Out: fewer, plainer or other items.

- plain values: `value`, `field`, `timestamps`
- what is news: `changed`, `alarms`, `stale`
- several PVs: `latest_by_pv`, `combine_pvs`, `align`
- statistics over time: `window_statistics`
- slower: `conflate` (each PV's newest), `sample_latest` (the newest of all), `rate_limit` (all, later)
- to and from the gateway: `put_to`, `retry_activation`

Those that need time take a `scheduler`; without it the one that was given to `subscribe` counts, else one that the
whole process shares, which calls subscribers on threads named ``k2eg-operators``. An operator hands on one item at a
time, whichever thread it comes on, and none after `dispose`. Arguments that make no sense raise ValueError at the call.
"""

from k2eg_rx.operators.alarms import AlarmTransition, alarms
from k2eg_rx.operators.align import align
from k2eg_rx.operators.align_join import Aligned
from k2eg_rx.operators.changed import changed
from k2eg_rx.operators.drops import AlignCounts, DropReason, WindowCounts
from k2eg_rx.operators.latest import combine_pvs, latest_by_pv
from k2eg_rx.operators.pacing import conflate, rate_limit, sample_latest
from k2eg_rx.operators.put_to import PutClient, PutOutcome, PutReport, put_to
from k2eg_rx.operators.retry_activation import retry_activation
from k2eg_rx.operators.stale import Staleness, stale
from k2eg_rx.operators.statistics import Window
from k2eg_rx.operators.values import MissingFieldError, field, timestamps, value
from k2eg_rx.operators.window_statistics import window_statistics

__all__ = [
    "AlarmTransition",
    "AlignCounts",
    "Aligned",
    "DropReason",
    "MissingFieldError",
    "PutClient",
    "PutOutcome",
    "PutReport",
    "Staleness",
    "Window",
    "WindowCounts",
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
    "sample_latest",
    "stale",
    "timestamps",
    "value",
    "window_statistics",
]
