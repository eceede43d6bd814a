"""What tests of textual applications share: keys, without textual's wait for an idle process.

`Pilot.press`, and `Pilot.pause` without a time, wait for up to a second until the whole process uses no processor time,
which threads of other tests prevent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from textual.app import App
from textual.events import Key
from textual.pilot import Pilot

Act = Callable[[Pilot[None]], Awaitable[None]]

_HOPS = 10  # of messages that a key causes: from the application to a widget and back, a change, layout, and half more
_CHARACTERS = {"space": " ", "colon": ":"}
_TIMEOUT = 120.0


def piloted(app: App[None], act: Act, size: tuple[int, int]) -> None:
    """Runs an application on a terminal of textual's."""

    async def run() -> None:
        async with asyncio.timeout(_TIMEOUT), app.run_test(size=size) as pilot:
            await act(pilot)

    asyncio.run(run())


async def settled(pilot: Pilot[Any]) -> None:
    """Waits until the application and its widgets have handled their messages, and those that these caused."""
    for _ in range(_HOPS):
        await pilot.pause(0.0)  # all that is queued, and the drawing


async def press(pilot: Pilot[Any], *keys: str) -> None:
    """Presses keys; each has done what it does before the next."""
    for key in keys:
        _post(pilot, key)
        await settled(pilot)


async def ended(pilot: Pilot[Any], key: str = "") -> None:
    """Waits until the application ends, by a key or of itself."""
    if key:
        _post(pilot, key)
    while pilot.app.return_code is None:
        await asyncio.sleep(0.001)


def _post(pilot: Pilot[Any], key: str) -> None:
    pilot.app.post_message(Key(key, _CHARACTERS.get(key, key if len(key) == 1 else None)))
