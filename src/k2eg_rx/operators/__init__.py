"""Operators for streams of PV updates, used with `.pipe` like those of reactivex.

- Values: `value`, `field`, `timestamps`, `pulse_ids`
- Without INVALID values: `valid`
- After a change: `fresh`, `settled`
- Changes: `changed`, `alarms`, `stale`
- Several PVs: `latest_by_pv`, `combine_pvs`, `align`, `resample`, `aligned_windows`
- Statistics: `window_statistics`
- Fewer items: `conflate` (newest of each PV), `sample_latest` (newest of the stream), `rate_limit` (all, delayed)
- Behind timed operators of reactivex: `guarded`, `shared_scheduler`
- Gateway: `put_to`, `put_many_to`, `retry_activation`

Operators with timers take a `scheduler`. By default they use the scheduler given to `subscribe`, else one shared by the
process, with threads named ``k2eg-operators``. Bad arguments raise ValueError at the call.

Thread safety: an operator emits one item at a time, and none after `dispose`.
"""

from k2eg_rx.operators.alarm_transition import AlarmTransition
from k2eg_rx.operators.alarms import alarms
from k2eg_rx.operators.align import align
from k2eg_rx.operators.align_join import Aligned
from k2eg_rx.operators.aligned_windows import AlignedWindow, aligned_windows
from k2eg_rx.operators.changed import changed
from k2eg_rx.operators.drops import AlignCounts, DropReason, ResampleCounts, WindowCounts
from k2eg_rx.operators.guarded import guarded, shared_scheduler
from k2eg_rx.operators.latest import combine_pvs, latest_by_pv
from k2eg_rx.operators.pacing import conflate, rate_limit, sample_latest
from k2eg_rx.operators.put_loop import LoopChange, LoopState
from k2eg_rx.operators.put_many_to import put_many_to
from k2eg_rx.operators.put_reports import PutClient, PutManyClient, PutOutcome, PutReport, PutStepReport
from k2eg_rx.operators.put_to import put_to
from k2eg_rx.operators.resample import Resampled, resample
from k2eg_rx.operators.retry_activation import retry_activation
from k2eg_rx.operators.settled import settled
from k2eg_rx.operators.stale import Staleness, stale
from k2eg_rx.operators.statistics import Window
from k2eg_rx.operators.values import MissingFieldError, field, fresh, pulse_ids, timestamps, valid, value
from k2eg_rx.operators.window_statistics import window_statistics

__all__ = [
    "AlarmTransition",
    "AlignCounts",
    "Aligned",
    "AlignedWindow",
    "DropReason",
    "LoopChange",
    "LoopState",
    "MissingFieldError",
    "PutClient",
    "PutManyClient",
    "PutOutcome",
    "PutReport",
    "PutStepReport",
    "ResampleCounts",
    "Resampled",
    "Staleness",
    "Window",
    "WindowCounts",
    "alarms",
    "align",
    "aligned_windows",
    "changed",
    "combine_pvs",
    "conflate",
    "field",
    "fresh",
    "guarded",
    "latest_by_pv",
    "pulse_ids",
    "put_many_to",
    "put_to",
    "rate_limit",
    "resample",
    "retry_activation",
    "sample_latest",
    "settled",
    "shared_scheduler",
    "stale",
    "timestamps",
    "valid",
    "value",
    "window_statistics",
]
