"""MessagePack, with types: the msgpack package has none.

In: Python values. Out: bytes, and back. Pure; any thread.
"""

from __future__ import annotations

import contextlib
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


def unpack_by_msgpack(packed: bytes) -> object:
    """Returns the one value in the bytes, by the msgpack package: what `unpack` is where msgspec is not installed."""
    # EPICS strings are bytes of no declared encoding; what is not UTF-8 in them is replaced, not refused.
    return _msgpack.unpackb(packed, unicode_errors="replace", strict_map_key=False)


def _quick_unpack() -> Callable[[bytes], object]:
    try:
        import msgspec  # noqa: PLC0415 - the extra "fast"
    except ImportError:
        return unpack_by_msgpack
    return msgspec.msgpack.Decoder().decode


# Returns the one value in the bytes, or raises some exception or other, whereupon `unpack` is to be tried: by msgspec,
# in half of the time, if it is there.
quick_unpack = _quick_unpack()


def unpack(packed: bytes) -> object:
    """Returns the one value in the bytes.

    Raises:
        Exception: One of `UNPACK_ERRORS`.
    """
    with contextlib.suppress(Exception):
        return quick_unpack(packed)
    return unpack_by_msgpack(packed)  # it replaces what is not UTF-8, and says what is wrong in its own words
