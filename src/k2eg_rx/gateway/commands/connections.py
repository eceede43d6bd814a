"""Counts connected PVs, and logs the loss and the return of EPICS servers in one line each.

A lost server disconnects all of its PVs at about the same time: PVs that one server serves, as far as its address is
known, and that disconnect within a second are one loss. Over PVAccess p4p does not tell the server's address.

Thread safety: everything here belongs to the event loop thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from enum import Enum

from reactivex import abc
from reactivex.disposable import Disposable

from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.pv import PVAddress
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

_GATHER = 1.0  # seconds in which PVs that disconnect count as one loss; those of a server take milliseconds
_RETURN = 10.0  # seconds after the first PV's return, after which those that are still missing are named
_MOST_NAMES = 5  # in a line


class _State(Enum):
    NEVER_CONNECTED = "never_connected"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"


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
        context: Scheduler and metrics; the metrics' ``pvs_*`` figures are kept here.
    """

    def __init__(self, context: GatewayContext) -> None:
        self._scheduler = context.scheduler
        self._metrics = context.metrics
        self._states: dict[PVAddress, _State] = {}
        self._listeners: dict[PVAddress, list[Callable[[bool], None]]] = {}
        self._losses: dict[PVAddress, _Loss] = {}  # of each disconnected PV
        self._gathering: dict[tuple[str, str], _Loss] = {}  # by protocol and server

    def opened(self, address: PVAddress) -> None:
        """Adds a PV that has been subscribed to."""
        self._set(address, _State.NEVER_CONNECTED)

    def closed(self, address: PVAddress) -> None:
        """Removes a PV whose subscription has ended."""
        self._set(address, None)
        self._found(address)

    def lost_since(self, address: PVAddress) -> datetime | None:
        """Returns when a PV was lost; None if it is connected or never was."""
        loss = self._losses.get(address)
        return None if loss is None else loss.since

    def listen(self, address: PVAddress, listener: Callable[[bool], None]) -> abc.DisposableBase:
        """Calls a listener with False when a PV is lost, and with True when it is connected again.

        It is not called for the first connection.
        """
        listeners = self._listeners.setdefault(address, [])
        listeners.append(listener)

        def remove() -> None:
            listeners.remove(listener)
            if not listeners and self._listeners.get(address) is listeners:
                del self._listeners[address]

        return Disposable(remove)

    def _notify(self, address: PVAddress, *, connected: bool) -> None:
        for listener in tuple(self._listeners.get(address, ())):
            listener(connected)

    def connected(self, address: PVAddress) -> None:
        """Records the first value of a connection."""
        is_return = self._states.get(address) is _State.DISCONNECTED
        self._set(address, _State.CONNECTED)
        if is_return:
            self._notify(address, connected=True)
        loss = self._found(address)
        if loss is None or not loss.is_logged:
            return
        if not loss.missing:
            self._log_return(loss)
        elif not loss.reporting:
            loss.reporting = True
            self._after(_RETURN, lambda: self._log_return(loss) if loss.missing else None)

    def disconnected(self, address: PVAddress, server: str) -> None:
        """Records the end of a connection.

        Args:
            address: The PV.
            server: The address of the server it was connected to; empty if unknown.
        """
        self._set(address, _State.DISCONNECTED)
        self._metrics.disconnections += 1
        key = address.protocol, server
        loss = self._gathering.get(key)
        if loss is None:
            loss = self._gathering[key] = _Loss(address.protocol, server, self._scheduler.now)
            self._after(_GATHER, lambda: self._log_loss(key))
        loss.lost[address] = None
        loss.missing.add(address)
        self._losses[address] = loss
        self._notify(address, connected=False)

    def _set(self, address: PVAddress, state: _State | None) -> None:
        before = self._states.pop(address, None)
        for changed, step in ((before, -1), (state, 1)):
            if changed is not None:
                name = f"pvs_{changed.value}"
                setattr(self._metrics, name, getattr(self._metrics, name) + step)
        if state is not None:
            self._states[address] = state

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
