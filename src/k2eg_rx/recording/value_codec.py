"""Lossless MessagePack of decoded values for recordings.

Unlike `protocol.msgpack_codec` it keeps integers beyond 64 bits and strings that are no valid Unicode, both of which
JSON messages may contain.
"""

from __future__ import annotations

from typing import Any, cast

import msgpack

from k2eg_rx.protocol import plain

_msgpack: Any = msgpack

_LONG_INTEGER = 73  # code of an extension type; 0 to 127 are free for applications


def _extended(value: object) -> object:
    """Returns an extension type for a long integer, and Python values for numpy's."""
    if isinstance(value, int):
        return _msgpack.ExtType(_LONG_INTEGER, str(int(value)).encode())
    return plain(value)


def _restored(code: int, data: bytes) -> object:
    if code != _LONG_INTEGER:
        raise ValueError(f"value has the unknown extension type {code}")
    return int(data)


def pack_exactly(value: object) -> bytes:
    """Returns a value as bytes.

    Raises:
        Exception: One of `UNPACK_ERRORS`: it contains a type that messages cannot contain.
    """
    return cast("bytes", _msgpack.packb(value, default=_extended, unicode_errors="surrogatepass"))


def unpack_exactly(packed: bytes) -> Any:
    """Returns the value that was packed.

    Raises:
        Exception: One of `UNPACK_ERRORS`: the bytes are damaged.
    """
    return _msgpack.unpackb(packed, ext_hook=_restored, unicode_errors="surrogatepass", strict_map_key=False)
