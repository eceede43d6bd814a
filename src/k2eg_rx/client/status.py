"""The status of a client: its connection, and counters of what was lost or is pending.

Thread safety: the transport reports changes on its own threads; the counters are read on the timer thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import cast

import reactivex as rx
from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.subject import Subject

from k2eg_rx.protocol import Notice
from k2eg_rx.texts import get_logger, html_table
from k2eg_rx.transport import ConnectionState, TransportStatus

_log = get_logger(__name__)

_INTERVAL = 1.0  # seconds between readings of the counters: often enough for a display, and no measurable load

# Seconds: the deployed gateway reports a timeout of a get or put after 10 s.
REPLY_PATIENCE = 12.0


@dataclass(frozen=True, slots=True)
class Status:
    """The status of a client; the counters count since it was made.

    Attributes:
        connection: The state of the connection to the broker.
        reason: What is wrong and what to do about it; empty while nothing is.
        silent_since: When the first of the commands was sent since which no reply and no event has come from a gateway,
            if that is longer ago than a reply can take; in UTC. None while replies or events come, or none is due.
        lag: Event records in Kafka that have not been read yet, as far as known.
        dropped: Events dropped by subscribers' overflow policies.
        decode_errors: Records skipped because they could not be decoded, by kind of error and topic (or stream).
        snapshot_drops: What recurring snapshots lacked or could not use, by reason: ``incomplete`` iterations, of which
            messages were missing; ``duplicate`` messages; ``stray`` messages without a header; ``old`` messages of an
            iteration that was handed over already; ``superseded`` messages of a gateway that another one had
            replaced; samples of an ``unknown_pv``, ``unusable`` ones without the requested field, and those in
            ``excess`` of the bound.
        monitors: Monitored PVs.
        disconnected: URIs of monitored PVs that the gateway has lost; their last values may be old. The deployed
            gateway does not tell.
        unconfirmed: Monitored PVs and recurring snapshots without data whose activation had to be repeated, as no
            gateway has replied to it.
        pending: Requests that wait for a reply, and puts that wait for earlier ones to their record.
        lost: Updates of monitored PVs that the gateway did not publish, by PV: too large for Kafka, not serializable,
            or beyond what the gateway keeps in an outage. Only gateways of this library say so.
        loss_reasons: The latest reason for each PV in `lost`.
        repeated: Events of monitored PVs that were not handed over because they repeat an older update after newer
            ones. The deployed gateway publishes one when another client activates the PV.
        superseded: Events of monitored PVs that were not handed over because they are of a gateway of a fleet that was
            frozen or cut off, after those of the gateway that replaced it.
    """

    connection: ConnectionState
    _: KW_ONLY
    reason: str = ""
    silent_since: datetime | None = None
    lag: int = 0
    dropped: int = 0
    decode_errors: Mapping[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int], hash=False)
    snapshot_drops: Mapping[str, int] = field(default_factory=dict[str, int], hash=False)
    monitors: int = 0
    disconnected: Sequence[str] = ()
    unconfirmed: int = 0
    pending: int = 0
    lost: Mapping[str, int] = field(default_factory=dict[str, int], hash=False)
    loss_reasons: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    repeated: int = 0
    superseded: int = 0

    @property
    def discarded(self) -> int:
        """The total of `decode_errors`."""
        return sum(self.decode_errors.values())

    def _repr_html_(self) -> str:
        """Returns a table of the connection, the monitors, and what else is not as it should be."""
        figures = {each.name: getattr(self, each.name) for each in fields(self)}
        kept = [name for name, figure in figures.items() if figure or name == "monitors"]
        return html_table([(name, _figure_text(figures[name])) for name in kept], ["client", "status"])


def _figure_text(figure: object) -> str:
    if isinstance(figure, Mapping):
        named = cast("Mapping[object, object]", figure).items()
        return ", ".join(f"{_figure_text(name)}: {_figure_text(count)}" for name, count in named)
    if isinstance(figure, tuple | list):
        return " ".join(map(_figure_text, cast("Sequence[object]", figure)))
    return str(figure.value if isinstance(figure, ConnectionState) else figure)


class LossCounter:
    """Counts the updates that a gateway did not publish; logs the first of each PV.

    Thread safety: written by the event poll thread; each figure is replaced as a whole.
    """

    def __init__(self) -> None:
        self._lost: dict[str, int] = {}
        self._reasons: dict[str, str] = {}

    def add(self, notice: Notice) -> None:
        """Counts the updates of a notice."""
        name = notice.pv_name
        if name not in self._lost:
            _log.warning("updates not published: pv=%s lost=%d reason=%s", name, notice.lost, notice.reason)
        self._lost = {**self._lost, name: self._lost.get(name, 0) + notice.lost}
        self._reasons = {**self._reasons, name: notice.reason}

    def counts(self) -> Mapping[str, int]:
        """Returns the numbers by PV."""
        return self._lost

    def reasons(self) -> Mapping[str, str]:
        """Returns the latest reason by PV."""
        return self._reasons


class GatewayWatch:
    """Notices that nothing comes from a gateway although a reply is due.

    Thread safety: any thread; a time that is set while another thread clears it is one command's too late or too early.

    Args:
        command_topic: The topic that gateways read, for the reason.
        patience: Seconds that a reply may take.
        timers: The scheduler whose time is used.
    """

    def __init__(self, command_topic: str, patience: float, timers: abc.SchedulerBase) -> None:
        self._command_topic = command_topic
        self._patience = timedelta(seconds=patience)
        self._timers = timers
        self._due_since: datetime | None = None

    def sent(self) -> None:
        """Notes that a command was sent which a gateway answers at once."""
        if self._due_since is None:
            self._due_since = self._timers.now

    def received(self) -> None:
        """Notes a reply or an event."""
        self._due_since = None

    def silent_since(self) -> datetime | None:
        """Returns since when a reply is overdue; None if none is."""
        since = self._due_since
        if since is None or self._timers.now - since < self._patience:
            return None
        return since if since.tzinfo else since.replace(tzinfo=UTC)

    def reason(self, since: datetime) -> str:
        """Returns what a silence means and what to do about it."""
        return (
            f"no reply and no event from a gateway since {since:%H:%M:%S} UTC: check that a gateway runs for the"
            f" command topic {self._command_topic!r}"
        )


class StatusBoard:
    """Keeps the transport's last status and makes the stream of `Status`.

    Args:
        measure: Returns the client's status for the transport's.
        timers: The scheduler of the readings.
    """

    def __init__(self, measure: Callable[[TransportStatus], Status], timers: abc.SchedulerBase) -> None:
        self._measure = measure
        self._timers = timers
        self._last = TransportStatus(ConnectionState.CONNECTING)
        self._changes: Subject[object] = Subject()
        self._end: Subject[None] = Subject()

    def update(self, status: TransportStatus) -> None:
        """Sets the transport's status."""
        self._last = status
        self._changes.on_next(status)

    @property
    def reason(self) -> str:
        """What is wrong with the connection; empty while nothing is."""
        return self._last.reason

    def now(self) -> Status:
        """Returns the current status."""
        return self._measure(self._last)

    def stream(self) -> Observable[Status]:
        """Returns the current status and each later change."""
        readings: Observable[object] = rx.interval(_INTERVAL, scheduler=self._timers).pipe(ops.map(lambda count: count))
        return rx.merge(self._changes, readings).pipe(
            ops.start_with(None),
            ops.map(lambda _: self.now()),
            ops.distinct_until_changed(),
            ops.take_until(self._end),
        )

    def close(self) -> None:
        """Completes the streams."""
        self._end.on_next(None)
