"""MessagePack encoding and decoding with static types, which the msgpack package lacks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import GenericAlias
from typing import Any, Protocol, cast

import msgpack

_msgpack: Any = msgpack

UNPACK_ERRORS: tuple[type[Exception], ...] = (ValueError, TypeError, RecursionError, msgpack.UnpackException)


def pack(value: object, default: Callable[[Any], Any] | None = None) -> bytes:
    """Returns a value as MessagePack.

    Args:
        value: The value to encode.
        default: Converts an object of a type that msgpack does not support to one that it supports.
    """
    return cast("bytes", _msgpack.packb(value, default=default))


_KEPT_BYTES = 1 << 20  # a packer's buffer stays as large as its largest value


class Packer:
    """Encodes values as MessagePack with buffers that are used again, in less than half the time of `pack`.

    Thread safety: any thread; each value has a buffer of its own.

    Args:
        default: See `pack`.
    """

    def __init__(self, default: Callable[[Any], Any]) -> None:
        self._default = default
        self._idle: list[Any] = []  # as many as were in use at a time; `pop` and `append` are atomic

    def pack(self, value: object) -> bytes:
        """Returns a value as MessagePack."""
        try:
            packer = self._idle.pop()
        except IndexError:
            packer = _msgpack.Packer(default=self._default)
        packed = cast("bytes", packer.pack(value))
        if len(packed) <= _KEPT_BYTES:
            self._idle.append(packer)
        return packed


def unpack_by_msgpack(packed: bytes) -> object:
    """Decodes one value with the msgpack package."""
    # EPICS strings are bytes without a declared encoding: bytes that are not UTF-8 are replaced, not refused.
    return _msgpack.unpackb(packed, unicode_errors="replace", strict_map_key=False)


def _quick_unpack() -> Callable[[bytes], object]:
    try:
        import msgspec  # noqa: PLC0415 - the extra "fast"
    except ImportError:
        return unpack_by_msgpack
    return msgspec.msgpack.Decoder().decode


# Decodes one value with msgspec where it is installed, in half the time, and else with msgpack. It may raise any
# exception; call `unpack` then.
quick_unpack = _quick_unpack()


class Head(Protocol):
    """The fields of a PV's structure that most programs read, decoded without the rest."""

    value: Any
    alarm: _AlarmHead
    timeStamp: _TimeHead  # noqa: N815 - the field's name


class _AlarmHead(Protocol):
    severity: int | None
    status: int | None


class _TimeHead(Protocol):
    secondsPastEpoch: int | None  # noqa: N815 - the field's name
    nanoseconds: int | None
    userTag: int | None  # noqa: N815 - the field's name


def _quick_heads() -> Callable[[bytes], dict[str, Head]] | None:
    try:
        from msgspec import Struct, defstruct, msgpack  # noqa: PLC0415 - the extra "fast"
    except ImportError:
        return None

    def struct(name: str, **fields: tuple[Any, Any]) -> type[Struct]:
        # no reference to itself is possible, so that the garbage collector need not look for any
        return defstruct(name, [(field, *rest) for field, rest in fields.items()], gc=False, frozen=True)

    number = (int | None, None)
    alarm = struct("AlarmHead", severity=number, status=number)
    time = struct("TimeHead", secondsPastEpoch=number, nanoseconds=number, userTag=number)
    head = struct("Head", value=(Any, None), alarm=(alarm, alarm()), timeStamp=(time, time()))
    heads: type[dict[str, Any]] = cast("Any", GenericAlias(dict, (str, head)))  # a type that is made here
    return cast("Callable[[bytes], dict[str, Head]]", msgpack.Decoder(heads).decode)


# Decodes a map of structures, only the fields of a `Head`, with msgspec where it is installed; None without. It may
# raise any exception, also for structures that `unpack` decodes; what it decodes is equal to what `unpack` decodes.
quick_heads = _quick_heads()


def unpack(packed: bytes) -> object:
    """Decodes one value.

    Raises:
        Exception: One of `UNPACK_ERRORS`.
    """
    with contextlib.suppress(Exception):
        return quick_unpack(packed)
    return unpack_by_msgpack(packed)  # replaces bytes that are not UTF-8, and raises UNPACK_ERRORS
