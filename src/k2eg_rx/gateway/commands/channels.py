"""EPICS PVs as shared Observables: one EPICS subscription per PV, open while the Observable has subscribers.

Thread safety: everything here belongs to the event loop thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from reactivex import Observable, abc
from reactivex.disposable import Disposable

from k2eg_rx.gateway.commands.connections import Connections
from k2eg_rx.gateway.commands.messages import PVValue
from k2eg_rx.gateway.commands.update_queue import UpdateQueue, UpdateSource
from k2eg_rx.gateway.epics.provider import Provider, ProviderError, Subscription
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.gateway.runtime.event_loop import call_soon
from k2eg_rx.gateway.runtime.metrics import EventCounter, Metrics
from k2eg_rx.protocol import Structure
from k2eg_rx.pv import Protocol, PVAddress
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)


def provider_of(providers: Mapping[Protocol, Provider], address: PVAddress) -> Provider:
    """Returns the provider of a PV's protocol.

    Raises:
        ProviderError: The gateway has no provider for this protocol.
    """
    provider = providers.get(address.protocol)
    if provider is None:
        raise ProviderError(f"this gateway does not speak {address.protocol}")
    return provider


def kind_of(structure: Structure) -> str:
    """Returns the kind of a PV, by which its updates are counted; a few words for any number of PVs."""
    value: object = structure.get("value")
    if "dimension" in structure:
        return "image"
    if isinstance(value, dict):
        return "enum" if "choices" in value else "table" if "labels" in structure else "structure"
    if value is None:
        return "structure"
    if isinstance(value, str):
        return "text"
    return "scalar" if isinstance(value, bool | int | float) else "array"


class Channel:
    """A PV's values: the latest one if the PV is connected, then each update.

    Like reactivex's `replay(1)` with `ref_count`, but it forgets the latest value when the PV disconnects, an exception
    in one observer does not affect the others, and creating ten thousand of them takes a second.

    Args:
        address: The PV.
        subscribe: Opens the EPICS subscription, given callbacks for updates and for disconnection.
        on_unused: Called when the last observer is gone.
        metrics: Counts updates, and exceptions of observers.
        connections: Keeps the PV's connection state.

    Attributes:
        latest: The latest value; None while the PV is not connected.
        subscription: The EPICS subscription, while there are observers.
    """

    def __init__(
        self,
        address: PVAddress,
        subscribe: Callable[[Callable[[Structure], None], Callable[[], None]], Subscription],
        on_unused: Callable[[], None],
        metrics: Metrics,
        connections: Connections,
    ) -> None:
        self.latest: PVValue | None = None
        self._address = address
        self._name = address.name
        self._key = address.key
        self._subscribe_pv = subscribe
        self._on_unused = on_unused
        self._metrics = metrics
        self._connections = connections
        self._observers: tuple[abc.ObserverBase[PVValue], ...] = ()
        self.subscription: Subscription | None = None
        self._counter = EventCounter()

    def add(self, observer: abc.ObserverBase[PVValue]) -> abc.DisposableBase:
        """Adds an observer, which gets the latest value at once. Disposing of the result removes it."""
        self._observers = (*self._observers, observer)
        if len(self._observers) == 1:
            self._connections.opened(self._address)
            try:
                self.subscription = self._subscribe_pv(self._on_update, self._on_disconnect)
            except Exception:
                self._observers = ()
                self._connections.closed(self._address)
                self._on_unused()
                raise
        elif self.latest is not None:
            observer.on_next(self.latest)
        return Disposable(lambda: self._remove(observer))

    def _on_update(self, structure: Structure) -> None:
        if not self._observers:
            return  # it was queued when the last one left
        if self.latest is None:
            self._connections.connected(self._address)
            self._counter = self._metrics.events_of(self._address.protocol, kind_of(structure))
        self._counter.count += 1
        value = self.latest = PVValue(self._name, structure, self._key)
        for observer in self._observers:
            try:
                observer.on_next(value)
            except Exception:
                _log.exception("observer failed: pv=%s", self._address)
                self._metrics.failures += 1

    def _on_disconnect(self) -> None:
        """Forgets the latest value, so that new observers wait for the next one."""
        if self._observers and self.latest is not None:
            self._connections.disconnected(self._address)
        self.latest = None

    def _remove(self, observer: abc.ObserverBase[PVValue]) -> None:
        self._observers = tuple(each for each in self._observers if each is not observer)
        subscription = self.subscription
        if self._observers or subscription is None:
            return
        self.subscription = None
        self._connections.closed(self._address)
        self._on_unused()
        try:
            subscription.close()
        except Exception:
            _log.exception("closing a subscription failed: pv=%s", self._address)
            self._metrics.failures += 1


class Channels:
    """The PVs that have an EPICS subscription.

    Attributes:
        connections: Their connection states.
        queue: Their updates on the way to the event loop.
    """

    def __init__(self, providers: Mapping[Protocol, Provider], queue: UpdateQueue, context: GatewayContext) -> None:
        self._providers = providers
        self.queue = queue
        self._metrics = context.metrics
        self._scheduler = context.scheduler
        self.connections = Connections(context, self._subscription_of)
        self._open: dict[PVAddress, Channel] = {}

    def __len__(self) -> int:
        return len(self._open)

    def stream(self, address: PVAddress) -> Observable[PVValue]:
        """Returns a PV's values.

        Emits:
            The latest value, if the PV is subscribed to and connected; then each update. Never completes; fails with
            the exception that the provider raises on subscription.
        """

        def subscribe(
            observer: abc.ObserverBase[PVValue], _scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            return self._channel(address).add(observer)

        return Observable(subscribe)

    def _channel(self, address: PVAddress) -> Channel:
        """Returns the PV's open channel, or a new one."""
        channel = self._open.get(address)
        if channel is None:

            def subscribe(on_update: Callable[[Structure], None], on_disconnect: Callable[[], None]) -> Subscription:
                return self._subscribe(address, UpdateSource(self.queue, on_update, on_disconnect))

            channel = self._open[address] = Channel(
                address, subscribe, lambda: self._remove(address), self._metrics, self.connections
            )
        return channel

    def latest(self, address: PVAddress) -> PVValue | None:
        """Returns a PV's latest value; None if it is not subscribed to, not connected, or has no value yet."""
        channel = self._open.get(address)
        return channel.latest if channel else None

    def _subscription_of(self, address: PVAddress) -> Subscription | None:
        channel = self._open.get(address)
        return channel.subscription if channel else None

    def _remove(self, address: PVAddress) -> None:
        self._open.pop(address, None)

    def _subscribe(self, address: PVAddress, source: UpdateSource) -> Subscription:
        def on_connection(connected: bool) -> None:
            if not connected:
                source.disconnected()

        def count() -> None:
            self._metrics.unreadable += 1

        provider = provider_of(self._providers, address)
        return provider.subscribe(address, source.put, on_connection, partial(call_soon, self._scheduler, count))
