"""Whether the characters of a record are signed numbers, which Channel Access does not carry.

The record's FTVL field tells. It is monitored, since a record may come back with another one when its server restarts.

Thread safety: belongs to the Channel Access thread.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import aioca

from k2eg_rx.gateway.epics.provider import ProviderError

_aioca: Any = aioca

_FIRST_SECONDS = 1.0  # a record answers within a round trip; a channel that is not a record never does
_AGAIN_SECONDS = 5.0  # for a record whose server has just come back
_VALUE = re.compile(r"([^.]+)(?:\.(?:VAL)?(?:[\[{].*)?)?")  # a record's value, perhaps with a filter such as .[0:3]


class _Sign:
    def __init__(self, record: str) -> None:
        self.is_signed = False
        self.known = asyncio.Event()
        self.is_record = False
        self.awaited = True
        self.subscription = _aioca.camonitor(
            f"{record}.FTVL", self._on_value, datatype=aioca.DBR_ENUM_STR, notify_disconnect=True
        )

    def _on_value(self, value: Any) -> None:
        if value.ok:
            self.is_signed = value == "CHAR"
            self.is_record = True
            self.known.set()
        else:
            self.known.clear()
            self.awaited = True


class RecordSigns:
    """The signs of the records whose characters were read."""

    def __init__(self) -> None:
        self._signs: dict[str, _Sign] = {}

    async def is_signed(self, name: str) -> bool:
        """Returns whether a connected channel of characters has signed ones.

        Raises:
            ProviderError: It is that of a record, which does not tell at the moment.
        """
        value = _VALUE.fullmatch(name)
        if value is None:
            return False  # a field, or a long string
        record = value[1]
        sign = self._signs.get(record)
        if sign is None:
            sign = self._signs[record] = _Sign(record)
        if sign.awaited and not sign.known.is_set():
            try:
                async with asyncio.timeout(_AGAIN_SECONDS if sign.is_record else _FIRST_SECONDS):
                    await sign.known.wait()
            except TimeoutError:
                if sign.is_record:
                    text = f"{record}.FTVL, which says whether its characters are signed, did not answer"
                    raise ProviderError(f"{name}: {text}; try again") from None
                sign.awaited = False  # there is no such field
        return sign.known.is_set() and sign.is_signed

    def close(self) -> None:
        """Ends the monitors."""
        for sign in self._signs.values():
            sign.subscription.close()
        self._signs.clear()
