"""Kafka keys of a gateway's records about a PV that are not its events.

Such a key is no PV's name, so that clients that route by key skip the record. It has the CRC-32 of the name: librdkafka
chooses the partition by that, so the record lies in the partition of the PV's events, between them, however many
partitions the topic has. With another `partitioner` in the gateway's `[kafka]` it may lie elsewhere.
"""

from __future__ import annotations

import zlib
from functools import lru_cache

_MASK = 0xFFFFFFFF
_POLYNOMIAL = 0xEDB88320
_SUFFIX = 4  # bytes at a key's end, which make its CRC-32
_CACHED_NAMES = 65_536  # more PVs than one gateway serves


def _table_entry(number: int) -> int:
    for _ in range(8):
        number = number >> 1 ^ (_POLYNOMIAL if number & 1 else 0)
    return number


_TABLE = [_table_entry(number) for number in range(256)]
_BY_HIGH_BYTE = {entry >> 24: number for number, entry in enumerate(_TABLE)}


def _suffix(data: bytes, checksum: int) -> bytes:
    """Returns the four bytes after which the data has a given CRC-32."""
    register = checksum ^ _MASK
    for _ in range(_SUFFIX):  # undoes one byte of the CRC
        number = _BY_HIGH_BYTE[register >> 24]
        register = ((register ^ _TABLE[number]) << 8 | number) & _MASK
    return (register ^ zlib.crc32(data) ^ _MASK).to_bytes(_SUFFIX, "little")


@lru_cache(_CACHED_NAMES)
def key_about(kind: bytes, name: str) -> bytes:
    """Returns the key of a kind of records about a PV.

    Args:
        kind: The kind, with a first byte that no PV's name has.
        name: The name of the PV's events.
    """
    encoded = name.encode(errors="replace")
    return kind + encoded + _suffix(kind + encoded, zlib.crc32(encoded))


def name_in(kind: bytes, key: bytes | None) -> str | None:
    """Returns the name in a key of that kind; None if it is another key."""
    if key is None or not key.startswith(kind) or len(key) < len(kind) + _SUFFIX:
        return None
    return key[len(kind) : -_SUFFIX].decode(errors="replace")
