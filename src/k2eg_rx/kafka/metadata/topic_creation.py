"""Brings a missing reply topic about: by asking for it, then by creating it, and else by saying who has to.

In: the thread of `OffsetResolver`, once in a while. Out: requests to the broker; an error when it is certain that the
topic cannot be had. A gateway never creates reply topics.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from k2eg_rx.errors import TransportError

_AUTOMATIC = 0.5  # seconds in which a broker that creates topics by itself has done so
_LIMIT = 10.0  # seconds for everything; a controller that has only just been elected takes some


class Creator(Protocol):
    """What `TopicCreation` needs of `Cluster`."""

    def trigger_auto_creation(self, topic: str) -> None: ...
    def create(self, topic: str) -> Future[None]: ...


class TopicCreation:
    """The creation of one topic.

    Args:
        topic: Its name.
        cluster: What creates it.
        command: How a person would create it; part of the error.
        clock: Returns seconds.
    """

    def __init__(self, topic: str, cluster: Creator, command: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._topic = topic
        self._cluster = cluster
        self._command = command
        self._clock = clock
        self._since: float | None = None
        self._created: Future[None] | None = None

    def step(self) -> TransportError | None:
        """Does what is next; returns why the topic cannot be had, once that is certain."""
        now = self._clock()
        if self._since is None:
            self._since = now
            self._cluster.trigger_auto_creation(self._topic)
        elif now - self._since > _LIMIT:
            self.finish()
            return TransportError(
                f"topic {self._topic!r} is missing and did not come about within {_LIMIT:g} s;"
                f" to create it: {self._command}"
            )
        elif self._created is None:
            if now - self._since >= _AUTOMATIC:
                self._created = self._cluster.create(self._topic)
        elif self._created.done():
            return self._refusal(self._created)
        return None

    def _refusal(self, created: Future[None]) -> TransportError | None:
        error = created.exception()
        if error is None:
            return None
        self.finish()
        return error if isinstance(error, TransportError) else TransportError(f"topic {self._topic!r}: {error}")

    def finish(self) -> None:
        """Takes note that the topic is there. Should it go missing, all starts again."""
        self._since = self._created = None
