"""Counts of what a gateway does and loses, and rate-limited warnings about it."""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum

from k2eg_rx.transport import ConnectionState

_LOG_PERIOD = 60.0  # seconds between two lines of one warning, so that a long outage does not flood the log

_LOSSES = ("dropped_updates", "dropped_samples", "dropped_records", "undelivered")

# Seconds. An idle gateway takes 2 ms to the broker's confirmation, a loaded one 100 ms, an outage minutes.
LATENCY_BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
_NOTHING = object()
UNREADABLE = "unreadable"  # the name of commands without a name, in `Metrics.received`


class Result(StrEnum):
    """How a command ended.

    Attributes:
        OK: It was carried out.
        REFUSED: It was not, because it is malformed, too old, or beyond a bound.
        TIMEOUT: EPICS did not answer in time.
        FAILED: EPICS or the gateway failed.
        HANDED_OVER: Another gateway carries it out and answers.
    """

    OK = "ok"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    FAILED = "failed"
    HANDED_OVER = "handed_over"


class EventCounter:
    """A count of EPICS updates."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class LatencyProbe:
    """Measures the time from EPICS to Kafka's confirmation, of one update at a time.

    The next update is followed once the one before is confirmed, refused or dropped. So an update that is not followed
    costs a few comparisons, at any rate, and an outage shows while it lasts, in `age`.

    Thread safety: each state has one owner. An EPICS thread begins (under the update queue's lock), the event loop
    thread goes on, the producer's thread or the event loop thread ends.

    Args:
        clock: Returns seconds.

    Attributes:
        idle: Whether no update is being followed.
        update: The update that is followed.
        passing: Whether the update is being passed on, so that the next record carries it.
        record: The record that carries it.
        counts: The number of measurements by bucket: up to each of `LATENCY_BOUNDS`, and beyond.
        total: Their sum in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = 0.0
        self.idle = True
        self.update: object = _NOTHING
        self.passing = False
        self.record: object = _NOTHING
        self.counts = [0] * (len(LATENCY_BOUNDS) + 1)
        self.total = 0.0

    def begin(self, update: object) -> None:
        """Begins to follow an update."""
        self._begun = self._clock()
        self.update = update
        self.idle = False

    def carry(self, record: object) -> None:
        """Follows the record that carries the update."""
        self.passing = False
        self.record = record

    def passed(self) -> None:
        """Ends the measurement if no record carries the update."""
        if self.passing:
            self.end(confirmed=False)

    def end(self, *, confirmed: bool) -> None:
        """Ends the measurement; counts it if Kafka has confirmed the record."""
        if confirmed:
            seconds = self._clock() - self._begun
            self.counts[bisect_left(LATENCY_BOUNDS, seconds)] += 1
            self.total += seconds
        self.passing = False
        self.update = self.record = _NOTHING
        self.idle = True

    def age(self) -> float:
        """Returns for how many seconds the present update has been followed; 0 if none is. Any thread."""
        return 0.0 if self.idle else max(self._clock() - self._begun, 0.0)


@dataclass(slots=True)
class Metrics:
    """Counts since the gateway was created.

    Thread safety: readable on any thread. The event loop thread writes all figures but `dropped_updates` (under the
    update queue's lock) and `undelivered` (the producers' threads, under a lock of the publisher).

    Attributes:
        commands: Records read from the command topic.
        published: Records passed to the Kafka producer, replies and events alike.
        refused: Commands answered with an error instead of being carried out.
        poison: Commands that cannot be answered: unreadable, too large, or without a reply topic or reply id.
        failures: Unexpected exceptions; each one is logged.
        unencodable: Values that cannot be serialized.
        oversized: Records that are too large for Kafka.
        unreadable: EPICS updates that could not be read; the first one of each PV is logged.
        dropped_updates: EPICS updates discarded because the update queue was full.
        dropped_samples: Values discarded because a recurring snapshot's buffer was full.
        dropped_records: Records discarded because no more may wait for Kafka, or the producer refused them.
        undelivered: Records that Kafka refused, or did not confirm in an outage.
        unaudited: Puts that were carried out and are not in the audit topic.
        merged_records: Those of `dropped_records` that a newer record of the same PV has replaced.
        fenced_records: Those of `dropped_records` whose PV or snapshot another gateway had taken over.
        disconnections: Losses of a connection to a subscribed PV.
        iterations: Iterations of recurring snapshots that were published.
        snapshot_values: Values in them.
        pvs_connected: Subscribed PVs that are connected and have a value; now, as the two below.
        pvs_disconnected: Subscribed PVs that have lost their connection.
        pvs_never_connected: Subscribed PVs that have not had a value since their subscription.
        received: Commands by name; ``unreadable`` ones are those in `poison`.
        results: Commands that have ended, or were accepted, by name and result.
        denied: PVs that commands asked for and must not read or write, by the option that denies them.
        events: EPICS updates by protocol and kind of PV.
        latency: Measures the time from EPICS to Kafka.
    """

    commands: int = 0
    published: int = 0
    refused: int = 0
    poison: int = 0
    failures: int = 0
    unencodable: int = 0
    oversized: int = 0
    unreadable: int = 0
    dropped_updates: int = 0
    dropped_samples: int = 0
    dropped_records: int = 0
    undelivered: int = 0
    unaudited: int = 0
    merged_records: int = 0
    fenced_records: int = 0
    disconnections: int = 0
    iterations: int = 0
    snapshot_values: int = 0
    pvs_connected: int = 0
    pvs_disconnected: int = 0
    pvs_never_connected: int = 0
    received: dict[str, int] = field(default_factory=dict[str, int])
    results: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    denied: dict[str, int] = field(default_factory=dict[str, int])
    events: dict[tuple[str, str], EventCounter] = field(default_factory=dict[tuple[str, str], EventCounter])
    latency: LatencyProbe = field(default_factory=LatencyProbe)

    @property
    def dropped(self) -> int:
        """The sum of all `dropped_*` figures."""
        return self.dropped_updates + self.dropped_samples + self.dropped_records

    def losses(self) -> dict[str, int]:
        """Returns the figures that count what was lost between EPICS and Kafka, by name."""
        return {name: getattr(self, name) for name in _LOSSES}

    def as_dict(self) -> dict[str, int]:
        """Returns the figures that are single numbers, by name."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.default == 0}

    def count_received(self, command: str) -> None:
        """Counts a command that was read."""
        command = command or "unknown"
        self.received[command] = self.received.get(command, 0) + 1

    def count_result(self, command: str, result: Result) -> None:
        """Counts a command that has ended or was accepted."""
        key = command or "unknown", result.value
        self.results[key] = self.results.get(key, 0) + 1

    def count_denied(self, option: str) -> None:
        """Counts a PV that a command must not read or write."""
        self.denied[option] = self.denied.get(option, 0) + 1

    def events_of(self, protocol: str, kind: str) -> EventCounter:
        """Returns the counter of the updates of a kind of PVs."""
        return self.events.setdefault((protocol, kind), EventCounter())


@dataclass(frozen=True, slots=True)
class FleetState:
    """A gateway's part in its fleet at one time.

    Attributes:
        members: Gateways that are owners of partitions, by the log as far as it was read.
        partitions: The partitions that this gateway has, will have or had, by stage of their handover.
        epoch: The newest epoch of its partitions: the Unix time of a takeover, in milliseconds; 0 without one.
        taken_over: Partitions that it has taken over so far.
        handed_over: Partitions that it has handed over so far.
        lag: Entries of the log that it has to read before it knows what is wanted.
        problem: Why it does not publish all that it should; empty if it does.
    """

    members: int = 0
    partitions: Mapping[str, int] = field(default_factory=dict[str, int])
    epoch: int = 0
    taken_over: int = 0
    handed_over: int = 0
    lag: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class GatewayState:
    """The state of a gateway at one time.

    Attributes:
        connection: The state of the connection to Kafka.
        reason: What is wrong with it.
        partitions: The partitions of the command topic that are read; None while that is being settled.
        rebalances: How often partitions were assigned.
        heartbeat_age: Seconds since the event loop's last heartbeat.
        providers: What is wrong with each EPICS client, by protocol; empty texts if nothing is.
        monitors: Active monitors.
        snapshots: Running recurring snapshots.
        operations: Gets and puts that wait or run.
        updates_waiting: EPICS updates that wait for the event loop.
        update_bytes: Their approximate memory.
        records_waiting: Records that wait for Kafka.
        record_bytes: Their approximate memory.
        records_in_flight: Records in the producer that are not confirmed.
        fleet: The gateway's part in a fleet; None if it works alone.
    """

    connection: ConnectionState = ConnectionState.CONNECTING
    reason: str = ""
    partitions: int | None = None
    rebalances: int = 0
    heartbeat_age: float = 0.0
    providers: Mapping[str, str] = field(default_factory=dict[str, str])
    monitors: int = 0
    snapshots: int = 0
    operations: int = 0
    updates_waiting: int = 0
    update_bytes: int = 0
    records_waiting: int = 0
    record_bytes: int = 0
    records_in_flight: int = 0
    fleet: FleetState | None = None


class RateLimitedWarning:
    """Logs the first occurrence of a problem at once, then one line per minute with the number of occurrences.

    Thread safety: not thread-safe; callers hold a lock or use one thread.

    Args:
        log: The logger.
        text: The log line; ``{}`` becomes the number of occurrences since the last line.
        clock: Returns seconds.
    """

    def __init__(self, log: logging.Logger, text: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._text = text
        self._clock = clock
        self._occurrences = 0
        self._next_line = -_LOG_PERIOD

    def count(self, detail: object = "") -> None:
        """Counts an occurrence, and logs a line if one is due."""
        self._occurrences += 1
        now = self._clock()
        if now >= self._next_line:
            self._log.warning("%s%s", self._text.format(self._occurrences), f": {detail}" if str(detail) else "")
            self._occurrences, self._next_line = 0, now + _LOG_PERIOD
