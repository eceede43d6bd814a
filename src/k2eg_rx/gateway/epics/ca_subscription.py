"""One Channel Access subscription: values with time and alarm, joined with the limits, which have an own subscription.

In: aioca's updates. Out: calls of `on_update` and `on_connection`. All on the Channel Access thread, but for `close`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import aioca

from k2eg_rx.gateway.epics.ca_values import ChannelType, structure_of
from k2eg_rx.gateway.epics.provider import Subscriber
from k2eg_rx.protocol import Structure
from k2eg_rx.pv import PVAddress

_aioca: Any = aioca
_log = logging.getLogger(__name__)

_RETRY_SECONDS = 5.0  # after a server has refused a subscription, which it may do as quickly again
_CHECK_SECONDS = 30.0  # aioca does not tell when it has given up a subscription, as after an access right was taken


class CASubscription:
    """A `Subscription` over aioca."""

    def __init__(
        self,
        address: PVAddress,
        name: str,
        on_update: Callable[[Structure], None],
        on_connection: Callable[[bool], None],
        *,
        connect: Callable[[], Awaitable[ChannelType]],
        end: Callable[[CASubscription], None],
    ) -> None:
        """
        Args:
            address: What was asked for.
            name: The channel.
            on_update: See `Provider.subscribe`.
            on_connection: See `Provider.subscribe`.
            connect: Waits until the channel is connected, and returns what it holds.
            end: Called when it is closed.
        """
        self._address = address
        self._name = name
        self._subscriber = Subscriber(address, on_update, on_connection)
        self._connect = connect
        self._end = end

    def close(self) -> None:
        """Ends it; no callback is made after it returns, but for one under way. Idempotent; any thread."""
        if not self._subscriber.closed:
            self._subscriber.closed = True
            self._end(self)

    async def run(self) -> None:
        """Subscribes, again and again, until it is cancelled."""
        while True:
            try:
                layout = await self._connect()
                await self._watch(layout)
            except Exception as error:
                _log.warning("%s: the subscription failed, and is tried again: %s", self._address, error)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _watch(self, layout: ChannelType) -> None:
        """Passes on what comes, until the channel is disconnected.

        Both subscriptions are made anew then: the server that comes back may hold something else under the name.
        """
        watch = _Watch(layout, self._subscriber.update)
        self._subscriber.connection(True)
        subscriptions = [
            _aioca.camonitor(
                self._name, watch.on_value, format=aioca.FORMAT_TIME, all_updates=True, notify_disconnect=True
            )
        ]
        if layout.has_control:
            subscriptions.append(
                _aioca.camonitor(
                    self._name,
                    watch.on_control,
                    events=aioca.DBE_PROPERTY,
                    format=aioca.FORMAT_CTRL,
                    all_updates=True,
                )
            )
        try:
            while not watch.lost.is_set() and all(each.state != each.CLOSED for each in subscriptions):
                try:
                    async with asyncio.timeout(_CHECK_SECONDS):
                        await watch.lost.wait()
                except TimeoutError:
                    continue
        finally:
            for subscription in subscriptions:
                subscription.close()
            self._subscriber.connection(False)


class _Watch:
    """One connection's updates: what the first value has to wait for, and the newest of each half."""

    def __init__(self, layout: ChannelType, emit: Callable[[Structure], None]) -> None:
        self.lost = asyncio.Event()
        self._layout = layout
        self._emit = emit
        self._control: Any = None
        self._waiting: list[Any] = []  # values that came before the limits: one, or as many as are posted meanwhile
        self._last: Any = None

    def on_value(self, value: Any) -> None:
        if not value.ok:
            self.lost.set()
        elif self._control is None and self._layout.has_control:
            self._waiting.append(value)
        else:
            self._last = value
            self._emit(structure_of(self._layout, value, self._control))

    def on_control(self, control: Any) -> None:
        self._control = control
        waiting, self._waiting = self._waiting, []
        if not waiting and self._last is not None:
            waiting = [self._last]  # a limit, the units or a label has changed
        for value in waiting:
            self.on_value(value)
