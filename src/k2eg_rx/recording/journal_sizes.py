"""Tells how much memory a message of a journal takes, before it is decompressed.

A message of an Arrow IPC stream has a flatbuffer that lists the buffers of its body; a compressed buffer begins with
its size.

Thread safety: functions may run on any thread.
"""

from __future__ import annotations

import struct
from contextlib import suppress

_HEADER, _BUFFERS, _COMPRESSION = 2, 2, 3  # fields of the table of a message, and of that of a record batch


def decompressed_size(metadata: bytes, body: memoryview) -> int:
    """Returns the bytes that the buffers of a record batch take; of a damaged one, which Arrow refuses, of some."""
    sizes = 0
    with suppress(struct.error):
        batch = _target(metadata, _field(metadata, _target(metadata, 0), _HEADER))
        buffers = _target(metadata, _field(metadata, batch, _BUFFERS))
        count: int = struct.unpack_from("<I", metadata, buffers)[0]
        for place in range(buffers + 4, buffers + 4 + 16 * count, 16):
            offset, length = struct.unpack_from("<qq", metadata, place)
            if length and _field(metadata, batch, _COMPRESSION):
                length = max(length, struct.unpack_from("<q", body, offset)[0])
            sizes += length
    return sizes


def _target(data: bytes, place: int) -> int:
    """Returns the place that a reference refers to."""
    return place + struct.unpack_from("<I", data, place)[0]


def _field(data: bytes, table: int, number: int) -> int:
    """Returns the place of a table's field, 0 if it has none."""
    layout = table - struct.unpack_from("<i", data, table)[0]
    entry = 4 + 2 * number
    if entry >= struct.unpack_from("<H", data, layout)[0]:
        return 0
    offset: int = struct.unpack_from("<H", data, layout + entry)[0]
    return table + offset if offset else 0
