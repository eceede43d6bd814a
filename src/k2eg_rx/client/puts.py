"""Puts: what a plain Python value becomes for a PV, checked against the PV's type before anything is sent.

In: a value and an address. Out: an Observable of the gateway's reply. The table of known types belongs to the lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, cast

import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx.client.requests import Requests, check_reply
from k2eg_rx.errors import OperationError
from k2eg_rx.protocol import (
    FIELD_IGNORED,
    GetCommand,
    MessagePackSerializable,
    PutCommand,
    Reply,
    Structure,
    fields_for,
    pack_fields,
    plain,
    structure_of,
)
from k2eg_rx.pv import PVAddress

LATE = "the command may still be carried out: it waits in Kafka for the gateway"

PvType = tuple[Structure, Mapping[str, Any] | None]
Conversion = Callable[[PvType], bytes]  # from a PV's type to what is sent; ValueError if the value does not fit


def type_question(address: PVAddress) -> GetCommand:
    """Returns the command whose reply tells a PV's type."""
    return GetCommand(address.uri, describe=True)


class Puts:
    """Writes PVs for one client.

    Args:
        requests: What sends the commands.
    """

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._lock = threading.Lock()
        self._types: dict[str, PvType] = {}

    def put(self, address: PVAddress, value: object, timeout: float, *, check: bool) -> Observable[Reply]:
        """Returns the reply to a put; each subscription sends one.

        Args:
            address: The PV.
            value: A `MessagePackSerializable`, sent as given, or a plain value.
            timeout: Seconds for the reply, and as many for the look at the PV's type where that is needed.
            check: Whether a plain value is converted to the PV's type and checked first.

        Raises:
            ValueError: As for `conversion`. A value that does not fit this PV fails the stream.
        """
        conversion = self.conversion(address, value, check=check)

        def learned(reply: Reply) -> Observable[Reply]:
            return self._send(address, self.learn(address, reply, conversion), timeout)

        def start(_: object = None) -> Observable[Reply]:
            fields = self.known(address, conversion)
            if fields is not None:
                return self._send(address, fields, timeout)
            question = self._requests.reply(type_question(address), address.uri, timeout)
            return question.pipe(ops.flat_map(learned))

        return rx.defer(start)

    def conversion(self, address: PVAddress, value: object, *, check: bool) -> bytes | Conversion:
        """Returns what a put of a value sends, or if that takes the PV's type, how it follows from that.

        Args:
            address: The PV.
            value: As for `put`.
            check: As for `put`.

        Raises:
            ValueError: It is no value that can be sent to any PV.
        """
        if isinstance(value, MessagePackSerializable):
            ready = value.to_msgpack()
            # a gateway that knows no fields would write the record itself
            return (lambda _: ready) if check and address.field else ready
        if not check:
            sent = plain(value)
            unchecked = cast("dict[str, Any]", sent) if isinstance(sent, dict) else {"value": sent}
            return pack_fields(unchecked)

        def converted(pv_type: PvType) -> bytes:
            structure, types = pv_type
            return pack_fields(fields_for(value, structure, types, address.uri))

        return converted

    def known(self, address: PVAddress, conversion: bytes | Conversion) -> bytes | None:
        """Returns what a put sends; None if the PV's type has to be learned first.

        Raises:
            ValueError: The value does not fit the PV.
        """
        if isinstance(conversion, bytes):
            return conversion
        with self._lock:
            pv_type = self._types.get(address.uri)
        return None if pv_type is None else conversion(pv_type)

    def learn(self, address: PVAddress, reply: Reply, conversion: bytes | Conversion) -> bytes:
        """Learns a PV's type; returns what a put sends.

        Args:
            address: The PV.
            reply: To the question for its type.
            conversion: Of the value.

        Raises:
            OperationError: The gateway cannot read the PV, or does not know fields.
            ValueError: The value does not fit the PV.
        """
        pv_type = self._learned(address, reply)
        return conversion if isinstance(conversion, bytes) else conversion(pv_type)

    def forget(self, address: PVAddress) -> None:
        """A put has failed: the PV may have changed since its type was learned."""
        with self._lock:
            self._types.pop(address.uri, None)

    def _send(self, address: PVAddress, fields: bytes, timeout: float) -> Observable[Reply]:
        put = self._requests.reply(PutCommand(address.uri, fields), address.uri, timeout, hint=LATE)
        return put.pipe(ops.do_action(on_error=lambda _: self.forget(address)))

    def _learned(self, address: PVAddress, reply: Reply) -> PvType:
        check_reply(reply, GetCommand.operation, address.uri)
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
