"""Puts over Channel Access: plain ones, and ones that wait until the record has completed.

Channel Access answers a plain put only if it failed, and the error names the channel, not the put. So a read of the
channel follows each put: a server carries out the requests of a connection in order, so the error comes first.

A server that holds a put with completion back, because the record is busy, carries out no later request of that
connection meanwhile. So each one has a channel of its own, on a connection that only such puts use: libca opens one
connection per server and priority.

Thread safety: functions run on the Channel Access thread; the callbacks of libca only hand over to it.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import aioca
from epicscorelibs.ca import dbr as _epics_dbr

from k2eg_rx.gateway.epics.ca_loop import cadef, failed_puts
from k2eg_rx.gateway.epics.provider import ProviderError

_aioca: Any = aioca
_dbr: Any = _epics_dbr

_PRIORITY = 1  # of channels for puts that wait; those of aioca have 0
_PUT_FAILED = 160  # ECA_PUTFAIL of caerr.h
_LOST = "the connection was lost before the server answered; the value was sent, and may have been written"


def _failure(name: str, status: int) -> Exception:
    """Returns the error of a put that a server answered with a status."""
    error = aioca.CANothing(name, status)
    if status == cadef.ECA_DISCONN:
        return ProviderError(f"{name}: {_LOST}")
    if status == _PUT_FAILED:
        return ProviderError(f"{error}; its record does not take it, as one with DISP=1")
    return error


class PlainPuts:
    """Puts that return once the server has taken or refused the value, without waiting for its record."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def put(self, name: str, value: Any, datatype: int | None, send: Callable[[], None]) -> None:
        """Writes a value to a connected channel; `send` is called right before, and may raise to prevent it.

        Raises:
            CANothing: The server refused the value.
            ProviderError: Likewise, or the connection was lost meanwhile.
        """
        lock = self._locks.setdefault(name, asyncio.Lock())
        async with lock:  # one at a time for each channel, as errors name the channel only
            failed_puts.pop(name, None)
            send()
            await _aioca.caput(name, value, datatype=datatype, wait=False, timeout=None)
            try:
                await _aioca.caget(name, datatype=bytes, count=1, timeout=None)  # bytes are converted without an error
            except aioca.CANothing as error:
                if error.errorcode == cadef.ECA_DISCONN:
                    raise _failure(name, cadef.ECA_DISCONN) from None
            status = failed_puts.pop(name, None)
            if status is not None:
                raise _failure(name, status)


class _CompletedPut:
    """One put that waits, with a channel of its own.

    Args:
        name: The channel's name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._loop = asyncio.get_running_loop()
        self.connected: asyncio.Future[int] = self._loop.create_future()
        self.read: asyncio.Future[int] = self._loop.create_future()
        self.completed: asyncio.Future[int] = self._loop.create_future()
        self._self = ctypes.py_object(self)
        chid = ctypes.c_void_p()
        cadef.ca_create_channel(name, self._on_connection, self._self, _PRIORITY, ctypes.byref(chid))
        self._as_parameter_ = chid.value  # what libca's functions get for this object
        cadef.ca_flush_io()

    @staticmethod
    @cadef.connection_handler
    def _on_connection(arguments: Any) -> None:
        put: _CompletedPut = cadef.ca_puser(arguments.chid)
        if arguments.op == cadef.CA_OP_CONN_UP:
            put.settle(put.connected, cadef.ECA_NORMAL)

    @staticmethod
    @cadef.event_handler
    def _on_value(arguments: Any) -> None:
        put: _CompletedPut = arguments.usr
        put.settle(put.read, arguments.status)

    @staticmethod
    @cadef.event_handler
    def _on_completion(arguments: Any) -> None:
        put: _CompletedPut = arguments.usr
        put.settle(put.completed, arguments.status)

    def settle(self, future: asyncio.Future[int], status: int) -> None:
        """Sets a future's status, on the Channel Access thread."""
        self._loop.call_soon_threadsafe(lambda: None if future.done() else future.set_result(status))

    def start(self, value: Any, datatype: int | None) -> None:
        """Sends the value, and a read whose answer shows that the server has seen it."""
        kind, count, array, _kept = _dbr.value_to_dbr(self, datatype, value)
        cadef.ca_array_put_callback(kind, count, self, array, self._on_completion, self._self)
        cadef.ca_array_get_callback(aioca.DBR_STRING, 1, self, self._on_value, self._self)
        cadef.ca_flush_io()

    def close(self) -> None:
        """Closes the channel; the server gives up a put that it still holds back. No callback runs after it."""
        cadef.ca_clear_channel(self)
        cadef.ca_flush_io()


async def put_and_wait(
    name: str, value: Any, datatype: int | None, send: Callable[[], None], written: Callable[[], None]
) -> None:
    """Writes a value and waits until the record has completed.

    Args:
        name: The channel's name.
        value: The value, for aioca.
        datatype: The type to put it as.
        send: Called right before the value is sent; may raise to prevent it.
        written: Called once later puts cannot overtake it any more.

    Raises:
        CANothing: The server refused the value.
        ProviderError: Likewise, or the connection was lost meanwhile.
    """
    put = _CompletedPut(name)
    try:
        await put.connected
        send()
        put.start(value, datatype)
        put.read.add_done_callback(lambda _: written())
        status = await put.completed
    finally:
        put.read.cancel()
        put.close()
    if status != cadef.ECA_NORMAL:
        raise _failure(name, status)
