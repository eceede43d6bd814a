"""One Channel Access subscription: joins updates of value, time and alarm with updates of the limits.

Channel Access delivers these in two subscriptions: DBR_TIME for value, time and alarm, DBR_CTRL for limits and units.

Thread safety: belongs to the Channel Access thread, except `close`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aioca

from k2eg_rx.gateway.epics.ca_values import ChannelType, structure_of
from k2eg_rx.gateway.epics.provider import Subscriber
from k2eg_rx.protocol import Structure
from k2eg_rx.pv import PVAddress
from k2eg_rx.texts import get_logger

_aioca: Any = aioca
_log = get_logger(__name__)

_RETRY_SECONDS = 5.0  # after a server refused a subscription, which it may do again at once
_CHECK_SECONDS = 30.0  # aioca does not report that it gave up a subscription, for example for lack of access rights


class CASubscription:
    """A `Subscription` over aioca.

    Args:
        address: The requested PV.
        name: The channel name.
        on_update: See `Provider.subscribe`.
        on_connection: See `Provider.subscribe`.
        on_unreadable: See `Provider.subscribe`.
        connect: Waits until the channel is connected, and returns its type.
        on_close: Called when the subscription is closed.

    Attributes:
        server: The address of the server of the latest connection.
        reason: Why the latest attempt to subscribe failed; empty if it did not.
    """

    def __init__(
        self,
        address: PVAddress,
        name: str,
        on_update: Callable[[Structure], None],
        on_connection: Callable[[bool], None],
        on_unreadable: Callable[[], None] = lambda: None,
        *,
        connect: Callable[[], Awaitable[ChannelType]],
        on_close: Callable[[CASubscription], None],
    ) -> None:
        self._address = address
        self._name = name
        self._subscriber = Subscriber(address, on_update, on_connection, on_unreadable)
        self._connect = connect
        self._on_close = on_close
        self.server = ""
        self.reason = ""

    def close(self) -> None:
        """See `Subscription.close`."""
        if not self._subscriber.closed:
            self._subscriber.closed = True
            self._on_close(self)

    async def run(self) -> None:
        """Subscribes and resubscribes until cancelled."""
        while True:
            try:
                channel = await self._connect()
                await self._receive(channel)
            except Exception as error:
                self.reason = f"the subscription failed: {error}"
                _log.warning("subscription failed: pv=%s retry=%g s error=%s", self._address, _RETRY_SECONDS, error)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _receive(self, channel: ChannelType) -> None:
        """Passes on updates until the channel disconnects.

        Then both subscriptions are created anew, because the channel may have another type after reconnection.
        """
        self.server = (await _aioca.cainfo(self._name, wait=False, timeout=None)).host
        self.reason = ""
        updates = _Updates(channel, self._subscriber.read)
        self._subscriber.connection(True)
        subscriptions = [
            _aioca.camonitor(
                self._name,
                updates.on_value,
                format=aioca.FORMAT_TIME,
                count=channel.count,
                all_updates=True,
                notify_disconnect=True,
            )
        ]
        if channel.has_control:
            subscriptions.append(
                _aioca.camonitor(
                    self._name,
                    updates.on_control,
                    events=aioca.DBE_PROPERTY,
                    format=aioca.FORMAT_CTRL,
                    count=channel.count,
                    all_updates=True,
                )
            )
        try:
            while not updates.disconnected.is_set() and all(each.state != each.CLOSED for each in subscriptions):
                try:
                    async with asyncio.timeout(_CHECK_SECONDS):
                        await updates.disconnected.wait()
                except TimeoutError:
                    continue
        finally:
            for subscription in subscriptions:
                _close(subscription)
            self._subscriber.connection(False)


def _close(subscription: Any) -> None:
    """Closes a subscription of aioca, which raises for one that was opened while the channel disconnected.

    An exception would take the place of the cancellation that ends the task, which would then go on for ever.
    """
    try:
        subscription.close()
    except Exception as error:
        _log.debug("subscription was not open: pv=%s error=%r", subscription.name, error)


class _Updates:
    """Joins the two kinds of updates of one connection; values wait until the first limits have arrived."""

    def __init__(self, channel: ChannelType, read: Callable[..., None]) -> None:
        self.disconnected = asyncio.Event()
        self._channel = channel
        self._read = read
        self._control: Any = None
        self._waiting: list[Any] = []
        self._latest: Any = None

    def on_value(self, value: Any) -> None:
        if not value.ok:
            self.disconnected.set()
        elif self._control is None and self._channel.has_control:
            self._waiting.append(value)
        else:
            self._latest = value
            self._read(structure_of, self._channel, value, self._control)

    def on_control(self, control: Any) -> None:
        self._control = control
        waiting, self._waiting = self._waiting, []
        if not waiting and self._latest is not None:
            waiting = [self._latest]  # a limit, the units or a label changed
        for value in waiting:
            self.on_value(value)
