"""The connection states of PVs: counts them, reports changes, and logs a server's loss and return in one line each.

A lost server disconnects all of its PVs at about the same time: PVs that one server serves, as far as its address is
known, and that disconnect within a second are one loss. Over PVAccess p4p does not tell the server's address.

Thread safety: everything here belongs to the event loop thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from reactivex import abc
from reactivex.disposable import Disposable

from k2eg_rx.gateway.epics.provider import Subscription, reason_of, server_of
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.gateway.runtime.event_loop import in_slices
from k2eg_rx.protocol import PVState
from k2eg_rx.pv import PVAddress
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

_GATHER = 1.0  # seconds in which PVs that disconnect count as one loss; those of a server take milliseconds
_RETURN = 10.0  # seconds after the first PV's return, after which those that are still missing are named
_MOST_NAMES = 5  # in a line
_PATIENCE = timedelta(seconds=5)  # both EPICS libraries have searched several times by then; a loaded IOC has answered


class Connection(NamedTuple):
    """The connection of a PV.

    Attributes:
        state: The state.
        since: When it began, in nanoseconds since the Unix epoch.
        host: The address of the server, as far as known.
        reason: Why it is not connected.
        is_certain: False of a PV that has not been searched for long enough to say that it never connected.
    """

    state: PVState
    since: int
    host: str = ""
    reason: str = ""
    is_certain: bool = True


class _Loss:
    """PVs that disconnected together.

    Args:
        protocol: Their protocol.
        server: Their server's address; empty if unknown.
        since: When the first one disconnected.

    Attributes:
        lost: All of them, in order.
        missing: Those that are not connected again.
        is_logged: Whether the loss was logged.
        reporting: Whether the return of the first ones will be logged.
    """

    def __init__(self, protocol: str, server: str, since: datetime) -> None:
        self.where = f"protocol={protocol}" + (f" server={server}" if server else "")
        self.since = since
        self.lost: dict[PVAddress, None] = {}
        self.missing: set[PVAddress] = set()
        self.is_logged = False
        self.reporting = False


def _names(addresses: Iterable[PVAddress]) -> str:
    names = [address.name for address in addresses]
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


class Connections:
    """The connection states of the subscribed PVs.

    Args:
        context: Scheduler, clock and metrics; the metrics' ``pvs_*`` figures are kept here.
        subscription_of: Returns a PV's EPICS subscription.
    """

    def __init__(
        self, context: GatewayContext, subscription_of: Callable[[PVAddress], Subscription | None] = lambda _: None
    ) -> None:
        self._scheduler = context.scheduler
        self._clock = context.clock
        self._metrics = context.metrics
        self._subscription_of = subscription_of
        self._states: dict[PVAddress, Connection] = {}
        self._searched: deque[tuple[datetime, PVAddress, Connection]] = deque()  # PVs without a value yet, as opened
        self._listeners: dict[PVAddress, list[Callable[[Connection], None]]] = {}
        self._losses: dict[PVAddress, _Loss] = {}  # of each disconnected PV
        self._gathering: dict[tuple[str, str], _Loss] = {}  # by protocol and server

    def opened(self, address: PVAddress) -> None:
        """Adds a PV that has been subscribed to."""
        connection = Connection(PVState.NEVER_CONNECTED, self._now(), is_certain=False)
        self._set(address, connection)
        self._searched.append((self._scheduler.now + _PATIENCE, address, connection))
        if len(self._searched) == 1:
            self._after(_PATIENCE.total_seconds(), self._end_search)

    def closed(self, address: PVAddress) -> None:
        """Removes a PV whose subscription has ended."""
        self._set(address, None)
        self._found(address)

    def current(self, address: PVAddress) -> Connection | None:
        """Returns a PV's connection; None if it is not subscribed to, or has been searched for a moment only."""
        connection = self._states.get(address)
        return connection if connection is not None and connection.is_certain else None

    def listen(self, address: PVAddress, listener: Callable[[Connection], None]) -> abc.DisposableBase:
        """Calls a listener with each change of a PV's connection, in order with its values."""
        listeners = self._listeners.setdefault(address, [])
        listeners.append(listener)

        def remove() -> None:
            listeners.remove(listener)
            if not listeners and self._listeners.get(address) is listeners:
                del self._listeners[address]

        return Disposable(remove)

    def _change(self, address: PVAddress, connection: Connection) -> None:
        self._set(address, connection)
        for listener in tuple(self._listeners.get(address, ())):
            listener(connection)

    def _now(self) -> int:
        return round(self._clock() * 1000) * 1_000_000  # to the millisecond: a float has no nanoseconds

    def _end_search(self) -> None:
        """Reports the PVs that have had no value for too long since they were subscribed to."""
        missing: list[tuple[PVAddress, Connection]] = []
        while self._searched and self._searched[0][0] <= self._scheduler.now:
            _, address, connection = self._searched.popleft()
            missing.append((address, connection))
        if self._searched:
            self._after((self._searched[0][0] - self._scheduler.now).total_seconds(), self._end_search)

        def report(item: tuple[PVAddress, Connection]) -> None:
            address, connection = item
            if self._states.get(address) is connection:
                why = reason_of(self._subscription_of(address))
                reason = f"no value since it was searched for first{f': {why}' if why else ''}"
                self._change(address, connection._replace(reason=reason, is_certain=True))

        in_slices(self._scheduler, missing, report)

    def connected(self, address: PVAddress) -> None:
        """Records the first value of a connection."""
        self._change(address, Connection(PVState.CONNECTED, self._now(), server_of(self._subscription_of(address))))
        loss = self._found(address)
        if loss is None or not loss.is_logged:
            return
        if not loss.missing:
            self._log_return(loss)
        elif not loss.reporting:
            loss.reporting = True
            self._after(_RETURN, lambda: self._log_return(loss) if loss.missing else None)

    def disconnected(self, address: PVAddress) -> None:
        """Records the end of a connection."""
        subscription = self._subscription_of(address)
        server, why = server_of(subscription), reason_of(subscription)
        self._change(
            address,
            Connection(PVState.DISCONNECTED, self._now(), server, why or "the connection to the server is lost"),
        )
        self._metrics.disconnections += 1
        key = address.protocol, server
        loss = self._gathering.get(key)
        if loss is None:
            loss = self._gathering[key] = _Loss(address.protocol, server, self._scheduler.now)
            self._after(_GATHER, lambda: self._log_loss(key))
        loss.lost[address] = None
        loss.missing.add(address)
        self._losses[address] = loss

    def _set(self, address: PVAddress, connection: Connection | None) -> None:
        before = self._states.pop(address, None)
        for changed, step in ((before, -1), (connection, 1)):
            if changed is not None:
                name = f"pvs_{changed.state.value}"
                setattr(self._metrics, name, getattr(self._metrics, name) + step)
        if connection is not None:
            self._states[address] = connection

    def _found(self, address: PVAddress) -> _Loss | None:
        """Removes a PV from the loss that it belongs to, if any, and returns the loss."""
        loss = self._losses.pop(address, None)
        if loss is not None:
            loss.missing.discard(address)
        return loss

    def _log_loss(self, key: tuple[str, str]) -> None:
        loss = self._gathering.pop(key)
        loss.is_logged = True
        _log.warning("EPICS server lost: %s pvs=%d names=%s", loss.where, len(loss.lost), _names(loss.lost))
        if not loss.missing:
            self._log_return(loss)

    def _log_return(self, loss: _Loss) -> None:
        """Logs the return of all PVs of a loss, or which ones are still missing."""
        total, missing = len(loss.lost), [address for address in loss.lost if address in loss.missing]
        _log.info(
            "EPICS server is back: %s pvs=%d of %d away=%.1f s%s",
            loss.where,
            total - len(missing),
            total,
            (self._scheduler.now - loss.since).total_seconds(),
            f" missing={_names(missing)}" if missing else "",
        )

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        def run(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            action()

        self._scheduler.schedule_relative(seconds, run)
