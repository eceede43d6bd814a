"""The choice of an operator's scheduler.

Thread safety: any thread.
"""

from __future__ import annotations

from typing import Any

from reactivex import abc
from reactivex.scheduler import ImmediateScheduler, TimeoutScheduler, TrampolineScheduler

from k2eg_rx.arguments import instance
from k2eg_rx.concurrency.runtime import current_runtime

# What reactivex's own operators pass to the streams above them where the user chose no scheduler. They would run timers
# on the thread that subscribes, asleep until the time is up, or start a thread for each.
_DEFAULTS_OF_REACTIVEX = (TrampolineScheduler, ImmediateScheduler, TimeoutScheduler)


# Schedulers of reactivex that only their own thread may use: from another one they lose actions, or wait for ever.
_BOUND_TO_A_THREAD = {
    "EventletScheduler": "a queue that a greenlet reads",
    "GEventScheduler": "a queue that a greenlet reads",
    "QtScheduler": "a signal of Qt",
    "TkinterScheduler": "a queue that `after` of the window reads",
    "TwistedScheduler": "`reactor.callFromThread`",
    "WxScheduler": "`wx.CallAfter`",
}


def chosen_scheduler(subscribed: abc.SchedulerBase | None) -> abc.SchedulerBase | None:
    """Returns the scheduler that was given to `subscribe`; None if it is a default of reactivex's own operators.

    reactivex's scheduler for asyncio, which `await` of an Observable uses too, is replaced by its thread-safe variant.

    Raises:
        ValueError: The scheduler works on its own thread only; the text says what to use instead.
    """
    if subscribed is None or isinstance(subscribed, _DEFAULTS_OF_REACTIVEX):
        return None
    kind = type(subscribed)
    if kind.__module__.startswith("reactivex.scheduler."):
        if kind.__name__ == "AsyncIOScheduler":
            return _thread_safe(subscribed)
        instead = _BOUND_TO_A_THREAD.get(kind.__name__)
        if instead is not None:
            raise ValueError(
                f"the scheduler must accept actions of other threads, got a {kind.__name__}: subscribe without it, and"
                f" pass items on by {instead}"
            )
    return subscribed


def _thread_safe(scheduler: Any) -> abc.SchedulerBase:
    from reactivex.scheduler.eventloop import AsyncIOThreadSafeScheduler  # noqa: PLC0415 - imports asyncio

    return AsyncIOThreadSafeScheduler(scheduler._loop)


def scheduler_or(given: abc.SchedulerBase | None, subscribed: abc.SchedulerBase | None) -> abc.SchedulerBase:
    """Returns the scheduler of an operator's timers. Call it at subscription.

    Pass `subscribed` to the source as it is, not what is returned here: a client runs its subscribers on its own
    threads unless the user asked for others. Timed actions may run on another thread than the source's items, and two
    actions on two threads: what they share needs a lock.

    Args:
        given: The operator's argument. It comes first.
        subscribed: The scheduler given to `subscribe`. It comes next, unless it is a default of reactivex's own
            operators (current thread, trampoline, immediate, timeout). Last comes the runtime's: one that the whole
            process shares, or a test's virtual time.
    """
    return given or chosen_scheduler(subscribed) or current_runtime().scheduler


def check_scheduler(scheduler: object) -> None:
    """Raises ValueError unless the object is a scheduler or None."""
    if scheduler is not None:
        instance(scheduler, "scheduler", abc.SchedulerBase, "a scheduler of reactivex")
