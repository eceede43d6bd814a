"""EPICS PVs as shared Observables: one subscription each, open exactly while somebody needs it.

In: subscriptions, and updates out of the inbox. Out: `PVValue`s; a newcomer first gets the last one. Everything here
belongs to the gateway's thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from reactivex import Observable, abc
from reactivex.disposable import Disposable

from k2eg_rx.gateway.commands.messages import PVValue
from k2eg_rx.gateway.commands.update_queue import UpdateQueue, UpdateSource
from k2eg_rx.gateway.epics.provider import Provider, ProviderError, Subscription
from k2eg_rx.gateway.runtime.metrics import Metrics
from k2eg_rx.protocol import Structure
from k2eg_rx.pv import Protocol, PVAddress

_log = logging.getLogger(__name__)


def provider_of(providers: Mapping[Protocol, Provider], address: PVAddress) -> Provider:
    """Returns the provider of a PV's protocol.

    Raises:
        ProviderError: This gateway does not speak it.
    """
    provider = providers.get(address.protocol)
    if provider is None:
        raise ProviderError(f"this gateway does not speak {address.protocol}")
    return provider


class Channel(Observable[PVValue]):
    """A PV's values: the last one if it is connected, then each that comes.

    It is what `publish`, `ref_count` and `replay` of reactivex make together, but for three things: it forgets its
    last value when the PV is disconnected, one observer's exception does not keep the value from the others, and ten
    thousand of them are made in a second.

    Args:
        address: The PV.
        open_: Opens a subscription that calls what it is given with each structure, and when the connection is lost.
        ended: Called when the last observer has gone.
        metrics: Where exceptions of observers are counted.
    """

    def __init__(
        self,
        address: PVAddress,
        open_: Callable[[Callable[[Structure], None], Callable[[], None]], Subscription],
        ended: Callable[[], None],
        metrics: Metrics,
    ) -> None:
        super().__init__()
        self.latest: PVValue | None = None
        self._address = address
        self._name = address.name
        self._open = open_
        self._ended = ended
        self._metrics = metrics
        self._observers: list[abc.ObserverBase[PVValue]] = []
        self._subscription: Subscription | None = None

    def _subscribe_core(
        self,
        observer: abc.ObserverBase[PVValue],
        scheduler: abc.SchedulerBase | None = None,  # noqa: ARG002 - reactivex's signature
    ) -> abc.DisposableBase:
        self._observers.append(observer)
        if len(self._observers) == 1:
            try:
                self._subscription = self._open(self._take, self._forget)
            except Exception:
                self._observers.clear()
                self._ended()
                raise
        elif self.latest is not None:
            observer.on_next(self.latest)
        return Disposable(lambda: self._leave(observer))

    def _take(self, structure: Structure) -> None:
        sample = self.latest = PVValue(self._name, structure)
        for observer in tuple(self._observers):
            try:
                observer.on_next(sample)
            except Exception:
                _log.exception("a value of %s could not be passed on", self._address)
                self._metrics.failures += 1

    def _forget(self) -> None:
        """Has newcomers wait for the next value: this one is not the PV's any more, for all that is known."""
        self.latest = None

    def _leave(self, observer: abc.ObserverBase[PVValue]) -> None:
        self._observers.remove(observer)
        subscription = self._subscription
        if self._observers or subscription is None:
            return
        self._subscription = None
        self._ended()
        try:
            subscription.close()
        except Exception:
            _log.exception("the subscription to %s could not be closed", self._address)
            self._metrics.failures += 1


class Channels:
    """The PVs that are subscribed to."""

    def __init__(self, providers: Mapping[Protocol, Provider], inbox: UpdateQueue, metrics: Metrics) -> None:
        self._providers = providers
        self._inbox = inbox
        self._metrics = metrics
        self._open: dict[PVAddress, Channel] = {}

    def __len__(self) -> int:
        return len(self._open)

    def stream(self, address: PVAddress) -> Observable[PVValue]:
        """Returns a PV's values: the last one if it is subscribed to and connected, then each that comes.

        It never completes; it fails with what the provider raises when it is asked to subscribe.
        """

        def subscribe(
            observer: abc.ObserverBase[PVValue], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            return self._channel(address).subscribe(observer, scheduler=scheduler)

        return Observable(subscribe)

    def _channel(self, address: PVAddress) -> Channel:
        """The PV's channel, a new one if nobody is subscribed to it."""
        channel = self._open.get(address)
        if channel is None:

            def open_(take: Callable[[Structure], None], lost: Callable[[], None]) -> Subscription:
                return self._subscribe(address, UpdateSource(self._inbox, take, lost))

            channel = self._open[address] = Channel(address, open_, lambda: self._close(address), self._metrics)
        return channel

    def latest(self, address: PVAddress) -> PVValue | None:
        """Returns a PV's last value, if it is subscribed to, connected, and has one."""
        channel = self._open.get(address)
        return channel.latest if channel else None

    def _close(self, address: PVAddress) -> None:
        self._open.pop(address, None)

    def _subscribe(self, address: PVAddress, source: UpdateSource) -> Subscription:
        def on_connection(connected: bool) -> None:
            if not connected:
                source.disconnected()

        return provider_of(self._providers, address).subscribe(address, source.put, on_connection)
