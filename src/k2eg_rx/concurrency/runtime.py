"""The runtime: scheduler, executors, settings and transport, which tests replace.

Thread safety: any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from reactivex import abc

from k2eg_rx.concurrency.shared_scheduler import SHARED
from k2eg_rx.concurrency.worker_pool import TaskExecutor, WorkerPool
from k2eg_rx.settings import Settings, load_settings
from k2eg_rx.transport import Transport

_SUBSCRIBER_THREADS = 32  # subscribers of one client that block at the same time; threads start as needed


def _subscriber_pool() -> TaskExecutor:
    return WorkerPool(_SUBSCRIBER_THREADS, "k2eg-subscriber")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Runtime:
    """What clients and operators run on. `Runtime()` is production's: threads, configuration files and Kafka.

    Attributes:
        scheduler: The scheduler of operators that are given none.
        executor: Makes the executor that calls one client's subscribers.
        settings: Returns the settings of an environment for an application, by their names; raises ValueError if the
            environment does not exist or a setting is wrong.
        transport: Makes the transport to an environment's broker; None: Kafka.
        wait: Runs what is due, in virtual time, until its argument returns True. None: time passes and threads run by
            themselves, and a thread may block.
    """

    scheduler: abc.SchedulerBase = SHARED
    executor: Callable[[], TaskExecutor] = _subscriber_pool
    settings: Callable[[str, str], Settings] = load_settings
    transport: Callable[[Settings], Transport] | None = None
    wait: Callable[[Callable[[], bool]], None] | None = None

    @property
    def is_virtual(self) -> bool:
        """Whether one thread runs everything on `scheduler`, in virtual time: no part may block or start a thread."""
        return self.wait is not None


PRODUCTION = Runtime()

_chosen: ContextVar[Runtime | None] = ContextVar("k2eg_runtime", default=None)
_lock = threading.Lock()
_in_use: tuple[Runtime, ...] = ()  # those of all contexts; changed under the lock


def current_runtime() -> Runtime:
    """Returns the runtime of the calling context.

    That is the one of the `use_runtime` block that the code is in. A thread that was started in such a block does not
    inherit it, as `threading.Thread` starts with an empty context; it gets the one that is in use in the process, so
    that a script with threads can be tested as it is. With several in use it must inherit one: start the thread
    with ``Thread(target=contextvars.copy_context().run, args=(function,))``.

    Raises:
        RuntimeError: The calling thread inherited none, and several are in use.
    """
    chosen, in_use = _chosen.get(), _in_use
    if chosen is not None and chosen in in_use:
        return chosen
    if len(in_use) > 1:
        raise RuntimeError(
            f"{len(in_use)} scripted gateways are open and the thread {threading.current_thread().name!r} belongs to"
            " none: start it by Thread(target=contextvars.copy_context().run, args=(function,))"
        )
    return in_use[0] if in_use else PRODUCTION


@contextmanager
def use_runtime(runtime: Runtime) -> Generator[None]:
    """Replaces the runtime in the calling context, for clients that are made and operators subscribed to within.

    Raises:
        RuntimeError: The context has a replacement already.
    """
    global _in_use  # noqa: PLW0603 - the process's other threads look here
    outer = _chosen.get()
    if outer is not None and outer in _in_use:
        raise RuntimeError("the runtime is replaced already, such as by another scripted gateway: close that first")
    with _lock:
        _in_use = (*_in_use, runtime)
    _chosen.set(runtime)
    try:
        yield
    finally:
        with _lock:
            at = _in_use.index(runtime)
            _in_use = _in_use[:at] + _in_use[at + 1 :]
        if _chosen.get() is runtime:  # a fixture may be left in another context than it was entered in
            _chosen.set(None)
