"""Threads, timers and schedulers."""

from k2eg_rx.concurrency.runtime import PRODUCTION, Runtime, current_runtime, use_runtime
from k2eg_rx.concurrency.schedulers import chosen_scheduler, scheduler_or
from k2eg_rx.concurrency.timers import SchedulerClosedError, TimerScheduler
from k2eg_rx.concurrency.worker_pool import Task, TaskExecutor, WorkerPool, held_back
from k2eg_rx.concurrency.yielding import RequestPriority

__all__ = [
    "PRODUCTION",
    "RequestPriority",
    "Runtime",
    "SchedulerClosedError",
    "Task",
    "TaskExecutor",
    "TimerScheduler",
    "WorkerPool",
    "chosen_scheduler",
    "current_runtime",
    "held_back",
    "scheduler_or",
    "use_runtime",
]
