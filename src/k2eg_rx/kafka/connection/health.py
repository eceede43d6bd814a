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

from k2eg_rx.kafka.connection.errors import ErrorTranslator, is_refusal, is_untrusted_certificate, weight_of_trouble
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
        status_events: StatusEvents,
        translator: ErrorTranslator,
        clock: Callable[[], float] = time.monotonic,
        tls_diagnosis: Callable[[str], str] = lambda _: "",
        required_topics: Collection[str] = (),
    ) -> None:
        self._status_events = status_events
        self._translator = translator
        self._clock = clock
        self._tls_diagnosis = tls_diagnosis
        self._required_topics = frozenset(required_topics)
        self._lock = threading.Lock()
        self._cause: KafkaError | None = None
        self._status: tuple[KafkaError, TransportStatus] | None = None
        self._missing: dict[Permission, TransportStatus] = {}
        self._last_answer = clock()
        self._suspicious = True
        self.disruptions = 0
        self.on_suspicion: Callable[[], None] = lambda: None

    @property
    def suspicious(self) -> bool:
        """Whether the cluster has to be asked: until its first answer, and after an error until the next."""
        return self._suspicious

    def on_answer(self) -> None:
        """Takes note that a broker answered."""
        self._last_answer = self._clock()
        if not self._suspicious:
            return  # called for each record sent and each batch read: nothing more than that while all is well
        with self._lock:
            self._suspicious, self._cause = bool(self._missing), None
            self._status_events.announce(self._up_status())

    def on_error(self, error: KafkaError) -> None:
        """Takes note of an error of a client: its ``error_cb``."""
        weight = weight_of_trouble(error)
        if weight == 0:
            return
        with self._lock:
            if self._cause is None or weight > weight_of_trouble(self._cause):
                self._cause = error
            news, self._suspicious = not self._suspicious, True
            self.disruptions += news
        if news:
            self.on_suspicion()

    @property
    def last_answer(self) -> float:
        """When a broker answered last; the clock's seconds."""
        return self._last_answer

    def suspect(self) -> None:
        """Has the cluster asked: a client is without a broker, which need not mean that there is none."""
        with self._lock:
            self._suspicious = True
        self.on_suspicion()

    def on_no_answer(self) -> None:
        """Takes note that the cluster was asked and did not answer. On the thread that asks it."""
        with self._lock:
            self._suspicious = True
            if self._cause is None and self._clock() - self._last_answer < _PATIENCE:
                return
            cause = self._cause or KafkaError(KafkaError._TIMED_OUT)
        status = self._down_status(cause)
        with self._lock:
            if self._suspicious:  # else there was an answer meanwhile
                self._status_events.announce(status)

    def _down_status(self, cause: KafkaError) -> TransportStatus:
        """The state that an error has brought about; what it takes to find that out is done once."""
        if self._status is None or self._status[0] is not cause:
            reason = self._tls_diagnosis(cause.str()) if is_untrusted_certificate(cause) else ""
            reason = reason or self._translator.reason(cause)
            self._status = cause, TransportStatus(ConnectionState.DOWN, reason, refused=is_refusal(cause))
        return self._status[1]

    def forbid(self, permission: Permission, reason: str, *, required: bool = False) -> None:
        """Takes note that a right is missing.

        Args:
            right: Which.
            reason: What to do about it.
            vital: Whether nothing works without it; so it is with the vital topics in any case.
        """
        refused = required or (permission.name in self._required_topics and not permission.is_group)
        with self._lock:
            self._missing[permission] = TransportStatus(ConnectionState.UP, reason, refused=refused)
            self._suspicious = True
            self._status_events.announce(self._up_status())
        self.on_suspicion()

    def allow(self, permission: Permission) -> None:
        """Takes note that a right is there, or does not matter any more."""
        with self._lock:
            self._missing.pop(permission, None)

    def missing_permissions(self) -> Sequence[Permission]:
        """Returns the rights that were found missing."""
        with self._lock:
            return list(self._missing)

    def _up_status(self) -> TransportStatus:
        """The state while the broker answers: the worst of what is missing."""
        statuses = sorted(self._missing.values(), key=lambda status: status.refused)
        return statuses[-1] if statuses else TransportStatus(ConnectionState.UP)
