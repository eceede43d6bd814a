"""The interface between the gateway and an EPICS client library.

`Provider` is implemented over p4p (PVAccess) and over aioca (Channel Access), and by scripted PVs in tests.

Structures have the form of `k2eg_rx.protocol.structures`. Arrays may be numpy arrays; the encoders accept both.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from k2eg_rx.errors import OperationError
from k2eg_rx.protocol import Structure, select_field
from k2eg_rx.pv import PVAddress
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

# Field types by pvData name (boolean, byte, ubyte, short, ushort, int, uint, long, ulong, float, double, string, with
# [] appended for an array), "enum", "union", "any" or "structure"; a nested map for the columns of a table.
TypeMap = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PVReading:
    """The result of `Provider.get`.

    Attributes:
        structure: The PV's value.
        types: The field types: ``{"value": "short[]"}``; of a table ``{"value": {"column": "double[]"}}``.
    """

    structure: Structure
    types: TypeMap = field(default_factory=dict[str, Any])


class ProviderError(Exception):
    """An EPICS operation failed; the text is the message of the server or the library."""


class NotSentError(ProviderError):
    """A put was not sent because it must not be carried out any more.

    Args:
        text: p4p makes an exception anew from its text when a callback raises it.
    """

    def __init__(self, text: str = "nothing was written") -> None:
        super().__init__(text)


class ProviderTimeout(ProviderError):
    """The PV did not answer in time."""


class Subscription(Protocol):
    """An active EPICS subscription."""

    def close(self) -> None:
        """Ends the subscription. Idempotent; callable on any thread.

        No callback starts after this method returns; one that is running completes.
        """
        ...


def server_of(subscription: Subscription | None) -> str:
    """Returns the address of the server that a subscription was last connected to: ``host:port``.

    Empty before the first connection, and where the EPICS library does not tell it: ``server`` is optional.
    """
    return getattr(subscription, "server", "")


def reason_of(subscription: Subscription | None) -> str:
    """Returns why a subscription has no connection; empty if the library gives no reason: ``reason`` is optional."""
    return getattr(subscription, "reason", "")


def problem_of(provider: Provider) -> str:
    """Returns what is wrong with a provider; empty if nothing is, or if it does not tell: ``problem`` is optional."""
    problem: Callable[[], str] | None = getattr(provider, "problem", None)
    return "" if problem is None else problem()


def real_address(provider: Provider | None, address: PVAddress) -> PVAddress:
    """Returns the PV that a provider asks EPICS for, which differs for an alias: ``real`` is optional."""
    real: Callable[[PVAddress], PVAddress] | None = getattr(provider, "real", None)
    return address if real is None else real(address)


class Provider(Protocol):
    """A client of one EPICS protocol.

    Methods are callable on any thread and never block. Futures fail with `ProviderError`. Callbacks are called on the
    provider's own threads, in order for each subscription; an exception in a callback is logged and ends nothing.
    """

    def get(self, address: PVAddress, timeout: float) -> Future[PVReading]:
        """Reads a PV, or the field that the address names, within `timeout` seconds."""
        ...

    def put(
        self,
        address: PVAddress,
        fields: Mapping[str, Any],
        timeout: float,
        *,
        wait: bool = False,
        on_written: Callable[[], None] = lambda: None,
        may_send: Callable[[], bool] = lambda: True,
    ) -> Future[None]:
        """Writes fields of a PV. A value that would not read back as given is refused before anything is written.

        Args:
            address: The PV.
            fields: The values by field.
            timeout: In seconds.
            wait: Whether the future waits until the record has completed what the put started. Otherwise it is done
                once the server has taken the values.
            on_written: With `wait`, called on any thread once later puts can no longer overtake this one. Not called
                for every put that fails.
            may_send: Called on any thread right before the values are sent, which may be long after the call: when the
                PV has connected. If it returns False, nothing is sent and the future fails.
        """
        ...

    def subscribe(
        self,
        address: PVAddress,
        on_update: Callable[[Structure], None],
        on_connection: Callable[[bool], None],
        on_unreadable: Callable[[], None] = lambda: None,
    ) -> Subscription:
        """Subscribes to a PV: its current value, then each update. Reconnects until it is closed.

        Args:
            address: The PV.
            on_update: Called with each update.
            on_connection: Called when the PV connects and disconnects.
            on_unreadable: Called for each update that could not be read; the subscription goes on.
        """
        ...

    def close(self) -> None:
        """Ends all subscriptions and threads. Idempotent."""
        ...


class Subscriber:
    """Calls the callbacks of one subscription: selects the requested field and contains exceptions.

    Thread safety: methods are called by one thread at a time; `closed` may be set on any thread.

    Attributes:
        closed: Whether the callbacks are no longer called.
    """

    def __init__(
        self,
        address: PVAddress,
        on_update: Callable[[Structure], None],
        on_connection: Callable[[bool], None],
        on_unreadable: Callable[[], None] = lambda: None,
    ) -> None:
        self.closed = False
        self._address = address
        self._selects = bool(address.field) and not address.is_record_field
        self._on_update = on_update
        self._on_connection = on_connection
        self._on_unreadable = on_unreadable
        self._field_missing = False
        self._unreadable_logged = False

    def read(self, read: Callable[..., Structure], *arguments: Any) -> None:
        """Calls `on_update` with what a function reads; if that fails, this update is lost and counted."""
        try:
            structure = read(*arguments)
        except Exception as error:
            if not self._unreadable_logged:
                self._unreadable_logged = True
                text = "update cannot be read, further ones of this PV count only: pv=%s error=%s: %s"
                _log.warning(text, self._address, type(error).__name__, error, exc_info=True)
            if not self.closed:
                self._on_unreadable()
            return
        self.update(structure)

    def update(self, structure: Structure) -> None:
        """Calls `on_update` with the value, or with its selected field; logs once when the field is missing."""
        if self._selects:
            try:
                structure = selected_field(structure, self._address)
            except ProviderError as error:
                if not self._field_missing:
                    self._field_missing = True
                    _log.warning("field missing: pv=%s error=%s", self._address, error)
                return
            self._field_missing = False
        self._call(self._on_update, structure)

    def connection(self, connected: bool) -> None:
        """Calls `on_connection` with the new connection state."""
        self._call(self._on_connection, connected)

    def _call(self, callback: Callable[[Any], None], argument: object) -> None:
        if self.closed:
            return
        try:
            callback(argument)
        except Exception:  # p4p and aioca would end the subscription
            _log.exception("subscriber failed, its subscription continues: pv=%s", self._address)


def channel_name(address: PVAddress) -> str:
    """Returns the name of the channel to open: a record field has its own, a structure field is part of the PV's."""
    return f"{address.pv_name}.{address.field}" if address.is_record_field else address.pv_name


def selected_field(structure: Structure, address: PVAddress) -> Structure:
    """Returns the structure field that the address names, as a structure with ``value``.

    Raises:
        ProviderError: The structure has no such field.
    """
    try:
        return select_field(structure, address.field, address.uri)
    except OperationError as error:
        raise ProviderError(error.message) from None


def no_answer(name: str, timeout: float, sent: threading.Event | None = None, *, wait: bool = False) -> ProviderTimeout:
    """Returns the error of an operation that timed out.

    Args:
        name: The PV.
        timeout: In seconds.
        sent: For a put: set once the value was sent.
        wait: Whether the put waits for its record.
    """
    if wait and sent is not None and sent.is_set():
        return ProviderTimeout(f"{name}: the value was sent, and its record did not complete it within {timeout:g} s")
    text = f"{name}: no answer within {timeout:g} s"
    if sent is not None:
        text += "; it was sent, and may still be carried out" if sent.is_set() else "; nothing was written"
    return ProviderTimeout(text)
