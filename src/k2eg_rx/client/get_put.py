"""Gets and puts of single PVs.

A put of a plain value is converted to the PV's type and checked before it is sent. A gateway that describes types
checks puts itself, against the PV as it is then: its types are kept, and requested anew when a value does not fit or a
put failed. For other gateways the type is requested before each put, since they write wrong values to a PV that has
another type, or other labels, by now. Puts to one record are sent in the order of the calls, whether or not they need
the type; see `k2eg_rx.client.put_order`.
"""

from __future__ import annotations

import inspect
import threading
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from reactivex import Observable, abc
from reactivex import operators as ops

from k2eg_rx.client.put_order import PutOrder, Turn, in_order, in_turn
from k2eg_rx.client.requests import Request, Requests, check_reply
from k2eg_rx.delivery import LabelledObservable, label_of, overflow_of
from k2eg_rx.errors import OperationError, OperationTimeout
from k2eg_rx.protocol import (
    FIELD_IGNORED,
    GetCommand,
    MessagePackSerializable,
    PutCommand,
    PVData,
    Reply,
    Structure,
    pack_fields,
    plain,
    structure_of,
)
from k2eg_rx.pv import PVAddress

BEHIND_HINT = "nothing was written: an earlier put to this record still waits for its PV's type"
# A race in the deployed gateway makes it reply this for a healthy PV, rarely. The spelling is the gateway's.
_SPURIOUS = (-2, "Operaton cancelled")
# The gateway gives up a get, or a put that waits, before the client does, so that its reply says what is known.
_WAIT_MARGIN = 2.0  # seconds, as between the default timeouts of client and gateway
_WAIT_SHARE = 0.8  # of timeouts shorter than 10 s

_T = TypeVar("_T")
PVType = tuple[Structure, Mapping[str, Any] | None]
Conversion = Callable[[PVType], bytes]  # returns the packed fields of a put for a PV's type, or raises ValueError


def is_spurious(reply: Reply) -> bool:
    """Returns whether a reply to a get says nothing about the PV, so that the get has to be repeated."""
    return (reply.error, reply.message) == _SPURIOUS


def data_of(address: PVAddress, reply: Reply) -> PVData:
    """Returns the PV's value in the reply to a get.

    Raises:
        OperationError: The reply is a failure, or lacks the requested field.
        WireError: The reply is not about that PV.
    """
    check_reply(reply, GetCommand.operation, address.uri)
    return PVData(address.name, structure_of(address, reply.body))


def get_request(address: PVAddress, timeout: float) -> Request[PVData]:
    """Returns the request for a PV's value."""
    command = get_command(address, timeout)
    return Request(command, address.uri, timeout, lambda reply: data_of(address, reply), is_spurious=is_spurious)


def get_command(address: PVAddress, timeout: float, *, describe: bool = False) -> GetCommand:
    """Returns the command for a PV's value, and for its type if `describe` is true.

    Args:
        address: The PV.
        timeout: Seconds that the client waits for the reply; the gateway waits a little less long for the PV.
        describe: Whether the PV's type is needed.
    """
    return GetCommand(address.uri, describe, _gateway_limit(timeout))


def _gateway_limit(timeout: float) -> int:
    """Returns for how many milliseconds the gateway waits, given the client's timeout."""
    return max(1, int(max(timeout * _WAIT_SHARE, timeout - _WAIT_MARGIN) * 1000))


def put_command(address: PVAddress, fields: bytes, timeout: float, *, wait: bool) -> PutCommand:
    """Returns the command for a put.

    Args:
        address: The PV.
        fields: The packed fields.
        timeout: Seconds that the client waits for the reply.
        wait: Whether the gateway waits for the record, a little less long than the client.
    """
    return PutCommand(address.uri, fields, wait, _gateway_limit(timeout) if wait else 0)


def conversion_of(address: PVAddress, value: object, *, check: bool) -> bytes | Conversion:
    """Returns the packed fields of a put, or a function that makes them from the PV's type.

    Args:
        address: The PV.
        value: A `MessagePackSerializable`, sent as given, or a plain value.
        check: Whether a plain value is converted to the PV's type and checked.

    Raises:
        ValueError: The value cannot be sent to any PV.
    """
    if isinstance(value, MessagePackSerializable):
        packed = value.to_msgpack()
        # a gateway without support for fields would write the record itself, which the reply to the type tells
        return (lambda _: packed) if check and address.field else packed
    if not check:
        unchecked = plain(value)
        fields = cast("dict[str, Any]", unchecked) if isinstance(unchecked, dict) else {"value": unchecked}
        return pack_fields(fields)

    def convert(pv_type: PVType) -> bytes:
        from k2eg_rx.protocol import fields_for  # noqa: PLC0415 - costs the start of programs that only read

        structure, types = pv_type
        # a gateway that describes types finds the index of a label itself, when it writes
        return pack_fields(fields_for(value, structure, types, address.uri, sends_labels=types is not None))

    return convert


class _Unused:
    """Warns when it is collected, unless its stream was subscribed to. Held by the stream, which it does not hold."""

    __slots__ = ("_call", "_file", "_line", "subscribed")

    def __init__(self, call: str) -> None:
        frame = inspect.currentframe()
        for _ in range(3):  # out of this method, of `warns_if_unused` and of the client's method
            frame = None if frame is None else frame.f_back
        self.subscribed = False
        self._call = call
        self._file, self._line = ("", 0) if frame is None else (frame.f_code.co_filename, frame.f_lineno)

    def __del__(self) -> None:
        if not self.subscribed:
            text = f"{self._call} was never subscribed to: nothing was written; use client.put(), or first(stream)"
            warnings.warn_explicit(text, UserWarning, self._file, self._line)


def warns_if_unused(puts: Observable[_T], call: str) -> Observable[_T]:
    """Returns a stream of puts that warns when it is collected and was never subscribed to.

    Must be called by the client's method that the user calls, whose caller the warning names.

    Args:
        puts: The stream.
        call: The user's call, for the warning.
    """
    unused = _Unused(call)

    def subscribe(observer: abc.ObserverBase[_T], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        unused.subscribed = True
        return puts.subscribe(observer, scheduler=scheduler)

    return LabelledObservable(subscribe, label_of(puts), overflow_of(puts))


class Puts:
    """Puts of one client, with a cache of PV types.

    Thread safety: the cache belongs to the lock.

    Attributes:
        order: The order in which puts are sent.

    Args:
        requests: Sends the commands.
        timers: The scheduler of the timeouts.
    """

    def __init__(self, requests: Requests, timers: abc.SchedulerBase) -> None:
        self._requests = requests
        self._timers = timers
        self.order = PutOrder(timers, requests.reply_topic_ready.done)
        self._lock = threading.Lock()
        self._types: dict[str, PVType] = {}

    def put(
        self, address: PVAddress, value: object, timeout: float, *, wait: bool = False, check: bool
    ) -> Observable[Reply]:
        """Returns the reply to a put as a single-item Observable; each subscription sends a command.

        The Observable fails with ValueError if the value does not fit the PV.

        Args:
            address: The PV.
            value: As for `conversion_of`.
            timeout: Seconds for the reply, and as many for the PV's type where it has to be requested, and for earlier
                puts to the PV that wait for it.
            wait: As for `put_command`.
            check: As for `conversion_of`.

        Raises:
            ValueError: The value cannot be sent to any PV.
        """
        conversion = conversion_of(address, value, check=check)

        def send(fields: bytes, turn: Turn) -> Observable[Reply]:
            command = put_command(address, fields, timeout, wait=wait)
            reply = self._requests.reply(command, address.uri, timeout)
            reply = reply.pipe(ops.do_action(on_error=lambda _: self.forget(address)))
            return in_turn(reply, turn, timeout, timed_out, self._timers)

        def timed_out() -> OperationTimeout:
            return OperationTimeout(PutCommand.operation, address.uri, timeout, BEHIND_HINT)

        def put(turn: Turn) -> Observable[Reply]:
            fields = self.known_fields(address, conversion)
            if fields is not None:
                return send(fields, turn)
            types = self._requests.reply(get_command(address, timeout, describe=True), address.uri, timeout)
            return types.pipe(ops.flat_map(lambda reply: send(self.learn(address, reply, conversion), turn)))

        return in_order(self.order, address, put)

    def known_fields(self, address: PVAddress, conversion: bytes | Conversion) -> bytes | None:
        """Returns the packed fields of a put; None if the PV's type has to be requested first.

        That is if it is not known, or if the value does not fit it: the PV may have another type by now.
        """
        if isinstance(conversion, bytes):
            return conversion
        with self._lock:
            pv_type = self._types.get(address.uri)
        try:
            return None if pv_type is None else conversion(pv_type)
        except ValueError:
            return None

    def learn(self, address: PVAddress, reply: Reply, conversion: bytes | Conversion) -> bytes:
        """Keeps a PV's type if the gateway described it; returns the packed fields of a put.

        Args:
            address: The PV.
            reply: The reply to a `get_command` with `describe`.
            conversion: The value's conversion.

        Raises:
            OperationError: The gateway cannot read the PV, or does not support fields.
            ValueError: The value does not fit the PV.
        """
        check_reply(reply, GetCommand.operation, address.uri)
        structure = structure_of(address, reply.body)
        if address.name not in reply.body and address.uri not in reply.body:
            text = f"this gateway does not support fields and would write {address.base} itself; nothing was sent"
            raise OperationError(FIELD_IGNORED, text, PutCommand.operation, address.uri)
        types = reply.body.get("pv_type")
        pv_type = (structure, cast("dict[str, Any]", types) if isinstance(types, dict) else None)
        if pv_type[1] is not None:
            with self._lock:
                self._types[address.uri] = pv_type
        return conversion if isinstance(conversion, bytes) else conversion(pv_type)

    def forget(self, address: PVAddress) -> None:
        """Removes a PV's type from the cache after a failed put: the PV may have changed."""
        with self._lock:
            self._types.pop(address.uri, None)
