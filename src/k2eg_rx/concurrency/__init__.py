"""Threads, timers, schedulers and signals."""

from k2eg_rx.concurrency.handoff import Handoff
from k2eg_rx.concurrency.process_exit import await_at_exit, close_at_exit, join
from k2eg_rx.concurrency.runtime import PRODUCTION, Runtime, current_runtime, use_runtime
from k2eg_rx.concurrency.schedulers import check_scheduler, chosen_scheduler, scheduler_or
from k2eg_rx.concurrency.signals import (
    INTERRUPTION_SECONDS,
    TerminationSignals,
    is_main_thread,
    wait_interruptibly,
)
from k2eg_rx.concurrency.timers import SchedulerClosedError, TimerScheduler, elapsed
from k2eg_rx.concurrency.worker_pool import Task, TaskExecutor, WorkerPool, blocking_section
from k2eg_rx.concurrency.yielding import RequestPriority

__all__ = [
    "INTERRUPTION_SECONDS",
    "PRODUCTION",
    "Handoff",
    "RequestPriority",
    "Runtime",
    "SchedulerClosedError",
    "Task",
    "TaskExecutor",
    "TerminationSignals",
    "TimerScheduler",
    "WorkerPool",
    "await_at_exit",
    "blocking_section",
    "check_scheduler",
    "chosen_scheduler",
    "close_at_exit",
    "current_runtime",
    "elapsed",
    "is_main_thread",
    "join",
    "scheduler_or",
    "use_runtime",
    "wait_interruptibly",
]
