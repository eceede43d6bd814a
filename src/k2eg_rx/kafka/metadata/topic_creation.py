"""Creates a missing reply topic; gateways do not.

First relies on the broker's automatic creation, then requests the creation, and at last fails with the command by which
an administrator creates the topic. After an outage of Kafka it begins again, as the requests may be lost, and the time
of the outage does not count.

Thread safety: used by the thread of `OffsetResolver`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from k2eg_rx.errors import TransportError
from k2eg_rx.transport import TransientError

_AUTOMATIC = 0.5  # seconds that automatic creation takes at most
_LIMIT = 10.0  # seconds in all; a newly elected controller takes some
_OUTAGE = 6.0  # seconds without a step, which comes every 5 s at least while Kafka answers


class Creator(Protocol):
    """What `TopicCreation` needs of `Cluster`."""

    def trigger_auto_creation(self, topic: str) -> None: ...
    def create(self, topic: str) -> Future[None]: ...


class TopicCreation:
    """Creates one topic.

    Args:
        topic: The topic.
        cluster: Creates it.
        command: The shell command that creates it, for the error text.
        clock: Returns the time in seconds.
    """

    def __init__(self, topic: str, cluster: Creator, command: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._topic = topic
        self._cluster = cluster
        self._command = command
        self._clock = clock
        self._since: float | None = None
        self._seen = 0.0  # time of the last step
        self._created: Future[None] | None = None
        self._failure: TransientError | None = None  # of the latest request

    def step(self) -> TransportError | None:
        """Takes the next step, when Kafka says that the topic is missing.

        Returns:
            An error once it is certain that the topic cannot be created.
        """
        now = self._clock()
        if now - self._seen > _OUTAGE:
            self.finish()
        self._seen = now
        if self._since is None:
            self._since = now
            self._cluster.trigger_auto_creation(self._topic)
        elif now - self._since > _LIMIT:
            failure = self._failure
            self.finish()
            return failure or TransportError(
                f"topic {self._topic!r} is missing and was not created within {_LIMIT:g} s;"
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
        if isinstance(error, TransientError):
            self._created, self._failure = None, error
            return None
        self.finish()
        return error if isinstance(error, TransportError) else TransportError(f"topic {self._topic!r}: {error}")

    def finish(self) -> None:
        """Resets the creation."""
        self._since = self._created = self._failure = None
