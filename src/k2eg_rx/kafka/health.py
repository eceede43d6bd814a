"""Decides how it stands with the broker, from what librdkafka's clients say and from what is answered.

In: answers and errors, from any thread. Out: states, to `Announcements`. An error alone proves nothing: one broker of
several may be away, and a client that sits idle loses connections. It raises a suspicion, and `Positions` asks the
cluster; what comes back, or does not, decides.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from confluent_kafka import KafkaError

from k2eg_rx.kafka.announcements import Announcements
from k2eg_rx.kafka.failures import Failures, weight_of_trouble
from k2eg_rx.transport import Connection, TransportStatus

_PATIENCE = 5.0  # seconds without an answer and without an error that are still called slow, not down


class Health:
    """The connection's state.

    Args:
        announcements: Where changes go.
        failures: Puts errors into words.
        clock: Returns seconds.
    """

    def __init__(
        self, announcements: Announcements, failures: Failures, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._announcements = announcements
        self._failures = failures
        self._clock = clock
        self._lock = threading.Lock()
        self._weight = 0
        self._reason = ""
        self._answered = clock()
        self._suspicious = True
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
            self._suspicious, self._weight, self._reason = False, 0, ""
            self._announcements.announce(TransportStatus(Connection.UP))

    def trouble(self, error: KafkaError) -> None:
        """Takes note of an error of a client: its ``error_cb``."""
        weight = weight_of_trouble(error)
        if weight == 0:
            return
        with self._lock:
            if weight > self._weight:
                self._weight, self._reason = weight, self._failures.reason(error)
            news, self._suspicious = not self._suspicious, True
        if news:
            self.on_suspicion()

    def silence(self) -> None:
        """Takes note that the cluster was asked and did not answer."""
        with self._lock:
            self._suspicious = True
            if self._weight == 0 and self._clock() - self._answered < _PATIENCE:
                return
            reason = self._reason or self._failures.reason(KafkaError(KafkaError._TIMED_OUT))
            self._announcements.announce(TransportStatus(Connection.DOWN, reason))
