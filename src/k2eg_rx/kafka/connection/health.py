"""Decides how it stands with the broker, from what librdkafka's clients say and from what is answered.

In: answers and errors, from any thread. Out: states, to `StatusEvents`. An error alone proves nothing: one broker of
several may be away, and a client that sits idle loses connections. It raises a suspicion, and `OffsetResolver` asks the
cluster; what comes back, or does not, decides. Rights that are missing are told at once, and asked for again until they
are there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError

from k2eg_rx.kafka.connection.errors import Failures, is_refusal, is_unverified, weight_of_trouble
from k2eg_rx.kafka.connection.status_events import StatusEvents
from k2eg_rx.transport import ConnectionState, TransportStatus

_PATIENCE = 5.0  # seconds without an answer and without an error that are still called slow, not down


@dataclass(frozen=True, slots=True)
class Permission:
    """The right to read a topic, or to be a member of a group."""

    name: str
    is_group: bool = False


class Health:
    """The connection's state.

    Args:
        announcements: Where changes go.
        failures: Puts errors into words.
        clock: Returns seconds.
        verdict: Returns what is wrong with a broker's certificate, for an error's text; may ask the broker.
        vital: The topics without which nothing works.

    Attributes:
        disturbances: How often there was trouble after a time without; for those who look for its consequences.
    """

    def __init__(
        self,
        announcements: StatusEvents,
        failures: Failures,
        clock: Callable[[], float] = time.monotonic,
        verdict: Callable[[str], str] = lambda _: "",
        vital: Collection[str] = (),
    ) -> None:
        self._announcements = announcements
        self._failures = failures
        self._clock = clock
        self._verdict = verdict
        self._vital = frozenset(vital)
        self._lock = threading.Lock()
        self._cause: KafkaError | None = None
        self._status: tuple[KafkaError, TransportStatus] | None = None
        self._missing: dict[Permission, TransportStatus] = {}
        self._answered = clock()
        self._suspicious = True
        self.disturbances = 0
        self.on_suspicion: Callable[[], None] = lambda: None

    @property
    def suspicious(self) -> bool:
        """Whether the cluster has to be asked: until its first answer, and after an error until the next."""
        return self._suspicious

    def answer(self) -> None:
        """Takes note that a broker answered."""
        self._answered = self._clock()
        if not self._suspicious:
            return  # called for each record sent and each batch read: nothing more than that while all is well
        with self._lock:
            self._suspicious, self._cause = bool(self._missing), None
            self._announcements.announce(self._connected())

    def trouble(self, error: KafkaError) -> None:
        """Takes note of an error of a client: its ``error_cb``."""
        weight = weight_of_trouble(error)
        if weight == 0:
            return
        with self._lock:
            if self._cause is None or weight > weight_of_trouble(self._cause):
                self._cause = error
            news, self._suspicious = not self._suspicious, True
            self.disturbances += news
        if news:
            self.on_suspicion()

    @property
    def answered(self) -> float:
        """When a broker answered last; the clock's seconds."""
        return self._answered

    def doubt(self) -> None:
        """Has the cluster asked: a client is without a broker, which need not mean that there is none."""
        with self._lock:
            self._suspicious = True
        self.on_suspicion()

    def silence(self) -> None:
        """Takes note that the cluster was asked and did not answer. On the thread that asks it."""
        with self._lock:
            self._suspicious = True
            if self._cause is None and self._clock() - self._answered < _PATIENCE:
                return
            cause = self._cause or KafkaError(KafkaError._TIMED_OUT)
        status = self._broken(cause)
        with self._lock:
            if self._suspicious:  # else there was an answer meanwhile
                self._announcements.announce(status)

    def _broken(self, cause: KafkaError) -> TransportStatus:
        """The state that an error has brought about; what it takes to find that out is done once."""
        if self._status is None or self._status[0] is not cause:
            reason = self._verdict(cause.str()) if is_unverified(cause) else ""
            reason = reason or self._failures.reason(cause)
            self._status = cause, TransportStatus(ConnectionState.DOWN, reason, refused=is_refusal(cause))
        return self._status[1]

    def forbid(self, right: Permission, reason: str, *, vital: bool = False) -> None:
        """Takes note that a right is missing.

        Args:
            right: Which.
            reason: What to do about it.
            vital: Whether nothing works without it; so it is with the vital topics in any case.
        """
        refused = vital or (right.name in self._vital and not right.is_group)
        with self._lock:
            self._missing[right] = TransportStatus(ConnectionState.UP, reason, refused=refused)
            self._suspicious = True
            self._announcements.announce(self._connected())
        self.on_suspicion()

    def allow(self, right: Permission) -> None:
        """Takes note that a right is there, or does not matter any more."""
        with self._lock:
            self._missing.pop(right, None)

    def missing_rights(self) -> Sequence[Permission]:
        """Returns the rights that were found missing."""
        with self._lock:
            return list(self._missing)

    def _connected(self) -> TransportStatus:
        """The state while the broker answers: the worst of what is missing."""
        statuses = sorted(self._missing.values(), key=lambda status: status.refused)
        return statuses[-1] if statuses else TransportStatus(ConnectionState.UP)
