"""Life of a Channel Access subscription whose channel disconnects while it is opened."""

from __future__ import annotations

import asyncio
from typing import Any

import aioca
import pytest

from k2eg_rx.gateway.epics import ca_subscription
from k2eg_rx.gateway.epics.ca_subscription import CASubscription
from k2eg_rx.gateway.epics.ca_values import ChannelType
from k2eg_rx.pv import PVAddress

SECONDS = 20.0


class HalfOpen:
    """A subscription as aioca leaves it when the channel disconnects before libca has made it."""

    CLOSED = 2
    state = 1
    name = "x"

    def close(self) -> None:
        raise AttributeError("_as_parameter_")


class Library:
    """The functions of aioca that a subscription uses."""

    def __init__(self) -> None:
        self.subscribed = asyncio.Event()

    async def cainfo(self, *_: Any, **__: Any) -> Any:
        return type("Info", (), {"host": "server"})

    def camonitor(self, *_: Any, **__: Any) -> HalfOpen:
        self.subscribed.set()
        return HalfOpen()


def test_a_subscription_that_is_not_quite_open_ends_when_it_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    connections: list[bool] = []

    async def connect() -> ChannelType:
        return ChannelType.of("x", aioca.DBR_DOUBLE, 1)

    async def run() -> None:
        library = Library()
        monkeypatch.setattr(ca_subscription, "_aioca", library)
        subscription = CASubscription(
            PVAddress.parse("ca://x"),
            "x",
            lambda _: None,
            connections.append,
            connect=connect,
            on_close=lambda _: None,
        )
        task = asyncio.create_task(subscription.run())
        await library.subscribed.wait()
        task.cancel()
        await asyncio.wait([task], timeout=SECONDS)
        assert task.cancelled()

    asyncio.run(run())
    assert connections == [True, False]
