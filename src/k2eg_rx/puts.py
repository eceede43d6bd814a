"""Puts: what a plain Python value becomes for a PV, checked against the PV's type before anything is sent.

In: a value and an address. Out: an Observable of the gateway's reply. The table of known types belongs to the lock.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops
from reactivex.scheduler import ImmediateScheduler

from k2eg_rx.conversion import fields_for
from k2eg_rx.errors import OperationError
from k2eg_rx.pv import PvAddress
from k2eg_rx.requests import Requests
from k2eg_rx.wire.commands import GetCommand, PutCommand, pack_fields
from k2eg_rx.wire.messages import Reply
from k2eg_rx.wire.structure import FIELD_IGNORED, Structure, structure_of
from k2eg_rx.wire.values import MessagePackSerializable, plain

LATE = "the command may still be carried out: it waits in Kafka for the gateway"

PvType = tuple[Structure, Mapping[str, Any] | None]

_T = TypeVar("_T")


def _now(item: _T) -> Observable[_T]:
    """Returns a stream of one that emits when it is subscribed to, even in the midst of another one's emission."""
    return rx.return_value(item, scheduler=ImmediateScheduler.singleton())


class Puts:
    """Writes PVs for one client.

    Args:
        requests: What sends the commands.
    """

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._lock = threading.Lock()
        self._types: dict[str, PvType] = {}

    def put(self, address: PvAddress, value: object, timeout: float, *, check: bool) -> Observable[Reply]:
        """Returns the reply to a put; each subscription sends one.

        Args:
            address: The PV.
            value: A `MessagePackSerializable`, sent as given, or a plain value.
            timeout: Seconds for the reply, and as many for the look at the PV's type where that is needed.
            check: Whether a plain value is converted to the PV's type and checked first.
        """
        fields = self.fields(address, value, timeout, check=check)
        return fields.pipe(ops.flat_map(lambda ready: self.send(address, ready, timeout)))

    def fields(self, address: PvAddress, value: object, timeout: float | None, *, check: bool) -> Observable[bytes]:
        """Returns a stream of one: what a put of a value sends. It asks for the PV's type if that is not known.

        Args:
            address: The PV.
            value: As for `put`.
            timeout: Seconds for the PV's type; None leaves that to the caller.
            check: As for `put`.

        Raises:
            ValueError: It is no value that can be sent to any PV. One that does not fit this PV fails the stream.
        """
        if isinstance(value, MessagePackSerializable):
            ready = value.to_msgpack()
            if check and address.field:  # a gateway that knows no fields would write the record itself
                return self._type(address, timeout).pipe(ops.map(lambda _: ready))
            return _now(ready)
        if not check:
            sent = plain(value)
            unchecked = cast("dict[str, Any]", sent) if isinstance(sent, dict) else {"value": sent}
            return _now(pack_fields(unchecked))

        def converted(pv_type: PvType) -> bytes:
            structure, types = pv_type
            return pack_fields(fields_for(value, structure, types, address.uri))

        return self._type(address, timeout).pipe(ops.map(converted))

    def send(self, address: PvAddress, fields: bytes, timeout: float | None) -> Observable[Reply]:
        """Returns the reply to a put of fields; each subscription sends one.

        Args:
            address: The PV.
            fields: As `fields` has made them.
            timeout: Seconds for the reply; None leaves that to the caller.
        """
        put = self._requests.single(PutCommand(address.uri, fields), address.uri, timeout, hint=LATE)
        return put.pipe(ops.do_action(on_error=lambda _: self._forget(address)))

    def _forget(self, address: PvAddress) -> None:
        """The PV may have changed since its type was learned."""
        with self._lock:
            self._types.pop(address.uri, None)

    def _type(self, address: PvAddress, timeout: float | None) -> Observable[PvType]:
        def start(_: object = None) -> Observable[PvType]:
            with self._lock:
                known = self._types.get(address.uri)
            if known is not None:
                return _now(known)
            learned = self._requests.single(GetCommand(address.uri, describe=True), address.uri, timeout)
            return learned.pipe(ops.map(lambda reply: self._learn(address, reply)))

        return rx.defer(start)

    def _learn(self, address: PvAddress, reply: Reply) -> PvType:
        structure = structure_of(address, reply.body)
        if address.name not in reply.body:
            raise OperationError(
                FIELD_IGNORED,
                f"this gateway does not know fields: it would write {address.base} itself, so nothing was sent",
                "put",
                address.uri,
            )
        types = reply.body.get("pv_type")
        pv_type = (structure, cast("dict[str, Any]", types) if isinstance(types, dict) else None)
        with self._lock:
            self._types[address.uri] = pv_type
        return pv_type
