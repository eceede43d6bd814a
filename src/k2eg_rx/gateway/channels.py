"""EPICS PVs as shared Observables: one subscription each, open exactly while somebody needs it.

In: subscriptions, and updates out of the inbox. Out: `Sample`s; a newcomer first gets the last one. Everything here
belongs to the gateway's thread.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import reactivex
from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import Disposable
from reactivex.subject import Subject

from k2eg_rx.gateway.counters import Counters
from k2eg_rx.gateway.inbox import Inbox, Source
from k2eg_rx.gateway.provider import Provider, ProviderError
from k2eg_rx.gateway.samples import Sample
from k2eg_rx.pv import Protocol, PvAddress
from k2eg_rx.wire.structure import Structure

_log = logging.getLogger(__name__)


class _Latest(Subject[Sample]):
    """A subject that a newcomer gets the last sample of, if there is one; whom one observer's exception does not stop.

    reactivex has `replay`, but that repeats old values after the subscription was closed and opened again.
    """

    def __init__(self, counters: Counters) -> None:
        super().__init__()
        self.latest: Sample | None = None
        self._counters = counters

    def _subscribe_core(
        self, observer: abc.ObserverBase[Sample], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        if self.latest is not None:
            observer.on_next(self.latest)
        return super()._subscribe_core(observer, scheduler)

    def _on_next_core(self, value: Sample) -> None:
        self.latest = value
        for observer in self.observers.copy():
            try:
                observer.on_next(value)
            except Exception:
                _log.exception("a value of %s could not be passed on", value.name)
                self._counters.failures += 1

    def forget(self) -> None:
        """Has newcomers wait for the next sample."""
        self.latest = None


def provider_of(providers: Mapping[Protocol, Provider], address: PvAddress) -> Provider:
    """Returns the provider of a PV's protocol.

    Raises:
        ProviderError: This gateway does not speak it.
    """
    provider = providers.get(address.protocol)
    if provider is None:
        raise ProviderError(f"this gateway does not speak {address.protocol}")
    return provider


class Channels:
    """The PVs that are subscribed to."""

    def __init__(self, providers: Mapping[Protocol, Provider], inbox: Inbox, counters: Counters) -> None:
        self._providers = providers
        self._inbox = inbox
        self._counters = counters
        self._open: dict[PvAddress, tuple[_Latest, Observable[Sample]]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def stream(self, address: PvAddress) -> Observable[Sample]:
        """Returns a PV's values: the last one if it is subscribed to and connected, then each that comes.

        It never completes; it fails with what the provider raised when it was asked to subscribe.
        """

        def current(_: abc.SchedulerBase) -> Observable[Sample]:
            known = self._open.get(address)
            return known[1] if known else self._share(address)

        return reactivex.defer(current)

    def latest(self, address: PvAddress) -> Sample | None:
        """Returns a PV's last value, if it is subscribed to, connected, and has one."""
        known = self._open.get(address)
        return known[0].latest if known else None

    def _share(self, address: PvAddress) -> Observable[Sample]:
        subject = _Latest(self._counters)

        def subscribe(observer: abc.ObserverBase[Sample], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            return self._subscribe(address, observer, subject)

        shared: Observable[Sample] = reactivex.create(subscribe).pipe(
            ops.finally_action(lambda: self._forget(address, subject)),
            ops.multicast(subject),
            ops.ref_count(),
        )
        self._open[address] = (subject, shared)
        return shared

    def _forget(self, address: PvAddress, subject: _Latest) -> None:
        if address in self._open and self._open[address][0] is subject:
            del self._open[address]

    def _subscribe(
        self, address: PvAddress, observer: abc.ObserverBase[Sample], subject: _Latest
    ) -> abc.DisposableBase:
        name = address.name

        def take(structure: Structure) -> None:
            observer.on_next(Sample(name, structure))

        source = Source(self._inbox, take, subject.forget)

        def on_connection(connected: bool) -> None:
            if not connected:
                source.disconnected()

        subscription = provider_of(self._providers, address).subscribe(address, source.put, on_connection)

        def close() -> None:
            try:
                subscription.close()
            except Exception:
                _log.exception("the subscription to %s could not be closed", address)
                self._counters.failures += 1

        return Disposable(close)
