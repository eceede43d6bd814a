"""What clients find around them, where it is not the real world: another time, other threads, another way to a gateway.

In: a substitute, put up for a while by tests (`k2eg_rx.testing`). Out: it, to whoever is about to start a thread, set a
timer, wait, read an environment or go to Kafka. In production there is none. It is read on any thread, and changed by
one at a time.

It is global because a script that is to be tested makes its own clients, and waits in functions that know no client.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Protocol

from reactivex import abc

from k2eg_rx.concurrency.worker_pool import TaskExecutor
from k2eg_rx.settings import Settings
from k2eg_rx.transport import Transport


class Runtime(Protocol):
    """A substitute for the real world."""

    @property
    def scheduler(self) -> abc.SchedulerBase:
        """What tells the time, and does what is due: timeouts, and the timers of operators."""
        ...

    def settings(self, environment_id: str, app_name: str) -> Settings:
        """Returns an environment by its name.

        Raises:
            ValueError: There is none of that name, or the application's is not possible.
        """
        ...

    def transport(self, settings: Settings) -> Transport:
        """Returns a way to a gateway."""
        ...

    def staff(self) -> TaskExecutor:
        """Returns what runs the subscribers' code of one client."""
        ...

    def wait(self, done: Callable[[], bool]) -> None:
        """Has things happen until `done`, which is asked on the calling thread."""
        ...


_present: list[Runtime] = []


def current_runtime() -> Runtime | None:
    """Returns what stands in for the real world; None if nothing does."""
    return _present[-1] if _present else None


@contextmanager
def use_runtime(substitute: Runtime) -> Generator[None]:
    """Puts a substitute in place of the real world, for all clients that are made meanwhile.

    Raises:
        RuntimeError: There is one already.
    """
    if _present:
        raise RuntimeError("something else stands in for the real world already, such as another scripted gateway")
    _present.append(substitute)
    try:
        yield
    finally:
        _present.remove(substitute)
