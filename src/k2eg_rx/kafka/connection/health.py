"""Derives the connection state from the answers and errors of all clients of a transport.

An error alone does not mean that the connection is down: one broker of several may be away, and idle connections are
closed. An error makes the state *suspicious*; `OffsetResolver` then probes the cluster, and the result of the probe
decides. A broker that cannot be reached under its advertised address is the reason of a connection that is up: the
cluster's metadata comes from another address. Missing permissions are reported at once and checked again until
they are granted.

Thread safety: all methods may be called from any thread, except `Health.on_no_answer`.
"""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, ThrottleEvent

from k2eg_rx.kafka.connection.errors import (
    ErrorTranslator,
    failed_broker,
    is_refusal,
    is_untrusted_certificate,
    weight_of_trouble,
)
from k2eg_rx.kafka.connection.status_events import StatusEvents
from k2eg_rx.texts import get_logger
from k2eg_rx.transport import ConnectionState, TransportStatus

_log = get_logger(__name__)

_THROTTLED = "Kafka throttles this client, replies and events are late: check the quotas of its user and client.id"
_THROTTLE_END = 30.0  # seconds without a delayed answer after which a quota is no longer the status's reason
_THROTTLE_LINES = 60.0  # seconds between lines about a quota, which delays every answer
_CREATION = (
    5.0  # seconds for the command topic to be created automatically, by the first command, before it is reported
)
_CONNECT_TIMEOUT = 1.0  # seconds for a broker's address to accept a connection
_REST = 5  # pause after an attempt to connect, in multiples of its duration: look-ups wait for it
_SLOW_ANSWER = 5.0  # seconds without an answer and without an error that count as slow, not as down


@dataclass(frozen=True, slots=True)
class Permission:
    """The permission to read a topic, or to join a consumer group."""

    name: str
    is_group: bool = False


def connection_failure(address: str) -> str:
    """Returns why an address, ``host:port``, accepts no connection; empty if it does."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT).close()
    except OSError as failure:
        return failure.strerror or str(failure)
    return ""


class Health:
    """The connection state of a transport.

    Args:
        status_events: Publishes changes.
        translator: Words errors.
        clock: Returns the time in seconds.
        tls_diagnosis: Returns why a broker's certificate was rejected, given librdkafka's text; empty if unknown. May
            connect to the broker.
        connection_failure: As the function of this module.
        required_topics: Topics that a client cannot work without: without permission, the status is `refused`.

    Attributes:
        disruptions: Number of times that an error made the state suspicious.
        on_suspicion: Called when the cluster has to be probed; must not block.
    """

    def __init__(
        self,
        status_events: StatusEvents,
        translator: ErrorTranslator,
        clock: Callable[[], float] = time.monotonic,
        *,
        tls_diagnosis: Callable[[str], str] = lambda _: "",
        connection_failure: Callable[[str], str] = connection_failure,
        required_topics: Collection[str] = (),
    ) -> None:
        self._status_events = status_events
        self._translator = translator
        self._clock = clock
        self._tls_diagnosis = tls_diagnosis
        self._connection_failure = connection_failure
        self._required_topics = frozenset(required_topics)
        self._lock = threading.Lock()
        self._cause: KafkaError | None = None
        self._status: tuple[KafkaError, TransportStatus] | None = None
        self._missing: dict[Permission, TransportStatus] = {}
        self._next_throttle_line = -math.inf
        self._throttled_until: float | None = None
        self._failed_brokers: dict[str, None] = {}  # addresses that errors have named since they last answered
        self._next_broker_check = -math.inf
        self._unreachable: TransportStatus | None = None
        self._topic_missing_since: float | None = None
        self._topic_missing: TransportStatus | None = None
        self._last_answer = clock()
        self._suspicious = True
        self.disruptions = 0
        self.on_suspicion: Callable[[], None] = lambda: None

    @property
    def suspicious(self) -> bool:
        """Whether the cluster has to be probed: until its first answer, and after an error until the next one."""
        return self._suspicious

    @property
    def needs_probe(self) -> bool:
        """Whether the cluster has to be probed, because the state is suspicious or to see a reason end."""
        return self._suspicious or self._unreachable is not None or self._throttled_until is not None

    @property
    def is_down(self) -> bool:
        """Whether the cluster was found to be unreachable, and has not answered since."""
        return self._status_events.status.connection is ConnectionState.DOWN

    @property
    def reason(self) -> str:
        """What is wrong with the connection; empty while nothing is."""
        return self._status_events.status.reason

    def on_answer(self) -> None:
        """Records that a broker answered."""
        self._last_answer = self._clock()
        if not self.needs_probe:
            return  # called for each record sent: no lock while the connection is up
        with self._lock:
            self._suspicious = bool(self._missing) or self._topic_missing_since is not None
            self._cause = None
            self._status_events.announce(self._up_status())

    def on_brokers(self, brokers: Mapping[str, int]) -> None:
        """Finds out whether brokers that errors named can be reached, before the answer that lists the brokers.

        Blocks while it connects to one that does not respond.

        Args:
            brokers: The numbers of the cluster's brokers, by advertised address.
        """
        start = self._clock()
        if start < self._next_broker_check or not (self._failed_brokers or self._unreachable):
            return
        unreachable = None
        with self._lock:
            failed = list(self._failed_brokers)
        for address in failed:
            failure = self._connection_failure(address) if address in brokers else ""
            if failure:
                text = self._translator.advertised(brokers[address], address, failure)
                unreachable = TransportStatus(ConnectionState.UP, text)
                break
            with self._lock:
                self._failed_brokers.pop(address, None)
        with self._lock:
            self._suspicious = self._suspicious or self._unreachable is not None  # the answer announces its end
            self._unreachable = unreachable
        end = self._clock()
        self._next_broker_check = end + _REST * (end - start)

    def on_command_topic(self, missing: str) -> None:
        """Records whether the command topic exists, before the answer that shows it.

        Args:
            missing: The text for the status; empty if the topic exists.
        """
        with self._lock:
            now = self._clock()
            first = now if self._topic_missing_since is None else self._topic_missing_since
            self._topic_missing_since = first if missing else None
            is_reported = bool(missing) and now - first >= _CREATION
            self._topic_missing = TransportStatus(ConnectionState.UP, missing) if is_reported else None
            self._suspicious = self._suspicious or bool(missing)

    def on_error(self, error: KafkaError) -> None:
        """Records an error of a client: its ``error_cb``."""
        weight = weight_of_trouble(error)
        if weight == 0:
            return
        broker = failed_broker(error)
        with self._lock:
            if broker:
                self._failed_brokers[broker] = None
            if self._cause is None or weight > weight_of_trouble(self._cause):
                self._cause = error
            is_first, self._suspicious = not self._suspicious, True
            self.disruptions += is_first
        if is_first:
            self.on_suspicion()

    def on_throttle(self, event: ThrottleEvent) -> None:
        """Records that a broker delays its answers to a client: its ``throttle_cb``. Logs it once a minute."""
        if event.throttle_time <= 0:
            return
        now = self._clock()
        with self._lock:
            is_first = self._throttled_until is None
            self._throttled_until = now + _THROTTLE_END
            is_line_due = now >= self._next_throttle_line
            if is_line_due:
                self._next_throttle_line = now + _THROTTLE_LINES
        if is_line_due:
            _log.warning("%s: broker=%s delay=%.1f s", _THROTTLED, event.broker_name, event.throttle_time)
        if is_first:
            self.on_suspicion()

    @property
    def last_answer(self) -> float:
        """Time of the latest answer, by the clock."""
        return self._last_answer

    def suspect(self) -> None:
        """Requests a probe of the cluster: a client has no broker, though the cluster may be up."""
        with self._lock:
            self._suspicious = True
        self.on_suspicion()

    def on_no_answer(self) -> None:
        """Records that a probe was not answered. Called on the probing thread, since it may diagnose TLS."""
        with self._lock:
            self._suspicious = True
            if self._cause is None and self._clock() - self._last_answer < _SLOW_ANSWER:
                return
            cause = self._cause or KafkaError(KafkaError._TIMED_OUT)
        status = self._down_status(cause)
        with self._lock:
            if self._suspicious:  # no answer has come meanwhile
                self._status_events.announce(status)

    def _down_status(self, cause: KafkaError) -> TransportStatus:
        """Returns the status for an error. TLS is diagnosed once per error."""
        if self._status is None or self._status[0] is not cause:
            reason = self._tls_diagnosis(cause.str()) if is_untrusted_certificate(cause) else ""
            reason = reason or self._translator.reason(cause)
            self._status = cause, TransportStatus(ConnectionState.DOWN, reason, refused=is_refusal(cause))
        return self._status[1]

    def forbid(self, permission: Permission, reason: str, *, required: bool = False) -> None:
        """Records a missing permission.

        Args:
            permission: The permission.
            reason: The text for the status.
            required: Whether the client cannot work without it; always true for the required topics.
        """
        refused = required or (permission.name in self._required_topics and not permission.is_group)
        with self._lock:
            self._missing[permission] = TransportStatus(ConnectionState.UP, reason, refused=refused)
            self._suspicious = True
            self._status_events.announce(self._up_status())
        self.on_suspicion()

    def allow(self, permission: Permission) -> None:
        """Records that a permission was granted or is no longer needed."""
        with self._lock:
            self._missing.pop(permission, None)

    def missing_permissions(self) -> Sequence[Permission]:
        """Returns the missing permissions."""
        with self._lock:
            return list(self._missing)

    def _up_status(self) -> TransportStatus:
        """Returns the status while a broker answers; a missing required permission comes first."""
        statuses = sorted(self._missing.values(), key=lambda status: status.refused)
        if statuses:
            return statuses[-1]
        if self._throttled_until is not None and self._clock() >= self._throttled_until:
            self._throttled_until = None
        throttled = _THROTTLED if self._throttled_until is not None else ""
        return self._unreachable or self._topic_missing or TransportStatus(ConnectionState.UP, throttled)
