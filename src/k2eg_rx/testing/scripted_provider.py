"""The EPICS provider of a scripted gateway: serves the scripted PVs.

Thread safety: the thread that runs the clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from reactivex import abc

from k2eg_rx.errors import OperationError
from k2eg_rx.gateway import NotSentError, ProviderError, ProviderTimeout, PVReading, Subscriber
from k2eg_rx.protocol import Structure, select_field
from k2eg_rx.pv import Protocol, PVAddress
from k2eg_rx.testing.scripted_pvs import ScriptedPV
from k2eg_rx.testing.virtual_clock import VirtualClock

_Result = TypeVar("_Result")


class ScriptedSubscription:
    """A subscription to a PV, which need not exist yet.

    Args:
        address: The PV.
        on_update: Called with each structure.
        on_connection: Called when the PV connects and disconnects.
        on_close: Called when the subscription is closed.
    """

    def __init__(
        self,
        address: PVAddress,
        on_update: Callable[[Structure], None],
        on_connection: Callable[[bool], None],
        on_close: Callable[[ScriptedSubscription], None],
    ) -> None:
        self.address = address
        self._subscriber = Subscriber(address, on_update, on_connection)
        self._on_close = on_close
        self._connected = False

    def publish(self, pv: ScriptedPV) -> None:
        """Reports the PV's connection and, if connected, its structure."""
        if pv.connected != self._connected:
            self._connected = pv.connected
            self._subscriber.connection(pv.connected)
        if pv.connected:
            self._subscriber.update(pv.structure(self.address.protocol))

    def close(self) -> None:
        """Ends the subscription. Idempotent."""
        self._subscriber.closed = True
        self._on_close(self)


class ScriptedProvider:
    """Serves scripted PVs over one protocol; a `Provider`.

    Args:
        protocol: The protocol.
        clock: The clock.
    """

    def __init__(self, protocol: Protocol, clock: VirtualClock) -> None:
        self._protocol: Protocol = protocol
        self._clock = clock
        self._pvs: dict[str, ScriptedPV] = {}
        self._subscriptions: dict[str, list[ScriptedSubscription]] = {}  # by record name, for speed with many PVs
        self._sent: dict[str, deque[_SentPut]] = {}  # puts that were sent and not written yet, by PV
        self._waiting: list[Callable[[], None]] = []  # attempts of gets and puts of disconnected PVs

    def add(self, pv: ScriptedPV) -> None:
        """Adds a PV."""
        self._pvs[pv.name] = pv
        self.publish(pv)

    def publish(self, pv: ScriptedPV) -> None:
        """Reports a PV's change to its subscriptions and to waiting gets and puts."""
        for subscription in self._subscribed(pv):
            subscription.publish(pv)
        waiting, self._waiting = self._waiting, []
        for attempt in waiting:
            attempt()

    def subscriptions(self, pv: ScriptedPV) -> int:
        """Returns the number of subscriptions to a PV."""
        return len(self._subscribed(pv))

    def get(self, address: PVAddress, timeout: float) -> Future[PVReading]:
        """Reads a PV; see `Provider.get`."""
        return self._run_connected(address, timeout, partial(self._read, address))

    def put(
        self,
        address: PVAddress,
        fields: Mapping[str, Any],
        timeout: float,
        *,
        wait: bool = False,  # noqa: ARG002 - scripted PVs have completed once they are written
        on_written: Callable[[], None] = lambda: None,
        may_send: Callable[[], bool] = lambda: True,
    ) -> Future[None]:
        """Writes fields of a PV; see `Provider.put`.

        A put that was sent is executed even after a timeout, and before puts to the PV that were sent later.
        """
        written: dict[str, Any] = dict(fields)

        def write(pv: ScriptedPV) -> None:
            path = address.field.split(".") if pv.name != address.name else []
            item: Any = written["value"] if path and "value" in written else written
            for step in reversed(path):
                item = {step: item}
            pv.put(item)
            on_written()

        put = _SentPut(write)

        def send(pv: ScriptedPV) -> None:
            if not may_send():
                raise NotSentError
            self._sent.setdefault(pv.name, deque()).append(put)

        def complete(pv: ScriptedPV) -> None:
            sent = self._sent[pv.name]
            while not put.is_written:
                sent.popleft().write(pv)
            if put.error is not None:
                raise put.error

        return self._run_connected(address, timeout, complete, send)

    def subscribe(
        self,
        address: PVAddress,
        on_update: Callable[[Structure], None],
        on_connection: Callable[[bool], None],
        on_unreadable: Callable[[], None] = lambda: None,  # noqa: ARG002 - scripted values can be read
    ) -> ScriptedSubscription:
        """Subscribes to a PV; see `Provider.subscribe`."""
        subscription = ScriptedSubscription(address, on_update, on_connection, self._remove)
        self._subscriptions.setdefault(address.base, []).append(subscription)
        pv = self._find(address)
        if pv is not None:
            subscription.publish(pv)
        return subscription

    def close(self) -> None:
        """Ends all subscriptions. Idempotent."""
        for subscriptions in list(self._subscriptions.values()):
            for subscription in tuple(subscriptions):
                subscription.close()

    def _subscribed(self, pv: ScriptedPV) -> list[ScriptedSubscription]:
        """Returns the subscriptions to a PV or to a field of it."""
        base = PVAddress.parse(f"{self._protocol}://{pv.name}").base
        return [each for each in self._subscriptions.get(base, ()) if self._find(each.address) is pv]

    def _remove(self, subscription: ScriptedSubscription) -> None:
        known = self._subscriptions.get(subscription.address.base, [])
        if subscription in known:
            known.remove(subscription)

    def _find(self, address: PVAddress) -> ScriptedPV | None:
        """Returns the PV of that name; else the PV whose field the address names."""
        pv = self._pvs.get(address.name)
        if pv is None and address.field and not address.is_record_field:
            pv = self._pvs.get(address.base)
        return pv

    def _read(self, address: PVAddress, pv: ScriptedPV) -> PVReading:
        whole = pv.structure(self._protocol)
        if pv.name == address.name:
            return PVReading(whole, dict(pv.types))
        try:
            return PVReading(select_field(whole, address.field, address.uri))
        except OperationError as error:
            raise ProviderError(error.message) from None

    def _run_connected(
        self,
        address: PVAddress,
        timeout: float,
        act: Callable[[ScriptedPV], _Result],
        send: Callable[[ScriptedPV], None] | None = None,
    ) -> Future[_Result]:
        """Runs a function on a PV once it is connected, after its delay; returns the future of the result.

        Args:
            address: The PV.
            timeout: Seconds.
            act: The function. It may raise `ProviderError`.
            send: Called once the PV is connected, before the delay; the function is then called even after the timeout.
                If it raises, the future fails.
        """
        future: Future[_Result] = Future()
        is_sent = send is None

        def attempt() -> None:
            nonlocal is_sent
            pv = self._find(address)
            if pv is not None and pv.connected:
                if send is not None and not is_sent:
                    try:
                        send(pv)
                    except ProviderError as error:
                        if not future.done():
                            future.set_exception(error)
                        return
                    is_sent = True
                self._clock.schedule_relative(pv.delay, partial(finish, pv))
            elif not future.done():
                self._waiting.append(attempt)

        def finish(pv: ScriptedPV, _scheduler: abc.SchedulerBase, _state: object = None) -> None:
            if not pv.connected:
                attempt()
            elif send is not None or not future.done():
                _settle(future, partial(act, pv))

        def time_out(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            if not future.done():
                future.set_exception(ProviderTimeout(f"{address.name}: no answer within {timeout:g} s"))

        self._clock.schedule_relative(timeout, time_out)
        attempt()
        return future


class _SentPut:
    """A put that a PV has received, and that it writes once.

    Attributes:
        is_written: Whether it was written, or has failed.
        error: Why it failed.
    """

    def __init__(self, write: Callable[[ScriptedPV], None]) -> None:
        self._write = write
        self.is_written = False
        self.error: Exception | None = None

    def write(self, pv: ScriptedPV) -> None:
        """Writes the value."""
        self.is_written = True
        try:
            self._write(pv)
        except Exception as error:
            self.error = error


def _settle(future: Future[_Result], act: Callable[[], _Result]) -> None:
    try:
        result = act()
    except Exception as error:
        if not future.done():
            future.set_exception(error)
    else:
        if not future.done():
            future.set_result(result)
