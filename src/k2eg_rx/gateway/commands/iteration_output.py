"""Publishes the iterations of one recurring snapshot, one after the other.

Messages go out in slices, so that a snapshot of many PVs does not delay others. A trigger waits until the iteration
before it is published, and while other commands have their turn.

Thread safety: belongs to the event loop thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence

from reactivex import abc
from reactivex.disposable import SerialDisposable

from k2eg_rx.gateway.commands.iterations import Message
from k2eg_rx.gateway.runtime.event_loop import call_soon, in_slices


class IterationOutput(abc.DisposableBase):
    """The messages of one snapshot on their way to its topic.

    Args:
        scheduler: The event loop.
        publish: Publishes a message; must not raise.
        triggered: Returns the messages of an iteration that was triggered, given the trigger's tags.
        last: Returns the messages of the last iteration.
        ended: Called when the last iteration is published.
        max_triggers: The number of triggers that may wait.
    """

    def __init__(
        self,
        scheduler: abc.SchedulerBase,
        publish: Callable[[Message], None],
        *,
        triggered: Callable[[Mapping[str, str]], Sequence[Message]],
        last: Callable[[], Sequence[Message]],
        ended: Callable[[], None],
        max_triggers: int,
    ) -> None:
        self._scheduler = scheduler
        self._publish = publish
        self._triggered = triggered
        self._last = last
        self._ended = ended
        self._max_triggers = max_triggers
        self._messages: deque[Message] = deque()
        self._slices = SerialDisposable()
        self._triggers: deque[Mapping[str, str]] = deque()  # the tags of each
        self._finishing = False
        self._finished = False
        self._step_scheduled = False
        self._is_open = False
        self.busy = False

    def send(self, messages: Sequence[Message]) -> None:
        """Publishes messages after those that were sent before."""
        self._messages.extend(messages)
        if not self.busy:
            self.busy = True
            self._slices.disposable = in_slices(self._scheduler, self._take(), self._publish, self._on_idle)

    def _take(self) -> Generator[Message]:
        while self._messages:
            yield self._messages.popleft()

    def open(self) -> None:
        """Starts publishing the iterations of triggers, also of those that have waited for this call."""
        self._is_open = True
        self._step()

    def trigger(self, tags: Mapping[str, str]) -> bool:
        """Publishes an iteration, at once for the first trigger in a turn of the event loop; False if too many wait."""
        if len(self._triggers) >= self._max_triggers:
            return False
        self._triggers.append(tags)
        if self._is_open and not self._step_scheduled:
            self._step()
        return True

    def has_triggers(self) -> bool:
        """Returns whether triggers wait."""
        return bool(self._triggers)

    def finish(self) -> None:
        """Publishes the iterations of the triggers that wait, and then the last iteration."""
        self._finishing = True
        if not self._step_scheduled:
            self._step()

    def _step(self) -> None:
        self._step_scheduled = False
        if self.busy:
            return
        if self._triggers:
            tags = self._triggers.popleft()
            self._schedule_step()
            self.send(self._triggered(tags))
        elif self._finishing:
            self._finishing, self._finished = False, True
            self.send(self._last())

    def _schedule_step(self) -> None:
        if not self._step_scheduled:
            self._step_scheduled = True
            call_soon(self._scheduler, self._step)

    def _on_idle(self) -> None:
        self.busy = False
        if self._finished:
            self._ended()
        elif self._triggers or self._finishing:
            self._schedule_step()

    def dispose(self) -> None:
        """Drops what is not published yet. Idempotent."""
        self._slices.dispose()
        self._messages.clear()
        self._triggers.clear()
        self._finishing = False
