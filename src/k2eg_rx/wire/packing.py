"""MessagePack, with types: the msgpack package has none.

In: Python values. Out: bytes, and back. Pure; any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import msgpack

_msgpack: Any = msgpack

UNPACK_ERRORS: tuple[type[Exception], ...] = (ValueError, TypeError, RecursionError, msgpack.UnpackException)


def pack(value: object, default: Callable[[Any], Any] | None = None) -> bytes:
    """Returns a value as MessagePack.

    Args:
        value: What to pack.
        default: Called with what msgpack cannot pack; returns what it can.
    """
    return cast("bytes", _msgpack.packb(value, default=default))


def unpack(packed: bytes) -> object:
    """Returns the one value in the bytes.

    EPICS strings are bytes of no declared encoding; what is not UTF-8 in them is replaced, not refused.

    Raises:
        Exception: One of `UNPACK_ERRORS`.
    """
    return _msgpack.unpackb(packed, unicode_errors="replace", strict_map_key=False)
