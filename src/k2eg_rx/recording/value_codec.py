"""What a recording keeps of values, as bytes: MessagePack that gives back exactly what was put in.

In: what came off the wire, decoded. Out: bytes, and back. Pure; any thread. In distinction to `wire.packing`, strings
that are no Unicode and integers beyond 64 bits, as JSON may carry them, survive.
"""

from __future__ import annotations

from typing import Any, cast

import msgpack

from k2eg_rx.protocol import plain

_msgpack: Any = msgpack

_LONG_INTEGER = 73  # an extension type's code, of those free for applications (0 to 127)


def _extended(value: object) -> object:
    """What MessagePack has no form for: long integers, and numpy's values, which become Python's."""
    if isinstance(value, int):
        return _msgpack.ExtType(_LONG_INTEGER, str(int(value)).encode())
    return plain(value)


def _restored(code: int, data: bytes) -> object:
    return int(data) if code == _LONG_INTEGER else _msgpack.ExtType(code, data)


def pack_exactly(value: object) -> bytes:
    """Returns a value as bytes.

    Raises:
        Exception: There is something in it that is none of the wire's kinds of values; one of `UNPACK_ERRORS`.
    """
    return cast("bytes", _msgpack.packb(value, default=_extended, unicode_errors="surrogatepass"))


def unpack_exactly(packed: bytes) -> Any:
    """Returns the value in the bytes.

    Raises:
        Exception: They are damaged; one of `UNPACK_ERRORS`.
    """
    return _msgpack.unpackb(packed, ext_hook=_restored, unicode_errors="surrogatepass", strict_map_key=False)
