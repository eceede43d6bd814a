"""Records of the puts that were carried out, in the topic of the option `audit_topic`.

Puts never wait for the topic: what Kafka does not take is counted and logged. The records have a sink of their own:
without permission for the topic, a producer fails with all its records.

Thread safety: `record` belongs to the event loop thread, to which reports of the producer's thread are moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from k2eg_rx.errors import TransportError, WireError
from k2eg_rx.gateway.commands.requests import CommandRequest
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.gateway.runtime.event_loop import call_soon
from k2eg_rx.gateway.runtime.metrics import RateLimitedWarning, Result
from k2eg_rx.protocol import PutCommand, Serialization, encode_structure
from k2eg_rx.texts import get_logger
from k2eg_rx.transport import RecordSink

_log = get_logger(__name__)

_MAX_BYTES = 500_000  # of a record; brokers accept 1 MB by default. Values of larger ones are left out


class Audit:
    """Writes the records.

    Args:
        sink: Where they are sent; closed with it.
        context: Scheduler, metrics, clock and topic.
    """

    def __init__(self, sink: RecordSink, context: GatewayContext) -> None:
        self._sink = sink
        self._context = context
        self._failed = RateLimitedWarning(_log, "{} puts are missing from the audit topic")

    def record(
        self,
        request: CommandRequest[PutCommand],
        old: Mapping[str, Any] | None,
        new: Mapping[str, Any],
        end: Result,
        text: str,
    ) -> None:
        """Writes the record of a put that was sent to EPICS and has ended.

        Args:
            request: The put.
            old: The fields before it; None if they could not be read.
            new: The fields that it wrote.
            end: How it ended.
            text: The text of its reply.
        """
        pv = request.command.pv_name
        fields: dict[str, Any] = {
            "time_msec": int(self._context.clock() * 1000),
            "principal": request.principal,
            "reply_topic": request.reply_to.topic,
            "reply_id": request.reply_to.reply_id,
            "pv": pv,
            "result": end.value,
            "message": text,
        }
        values = {"new": dict(new)} if old is None else {"old": dict(old), "new": dict(new)}
        try:
            body = encode_structure(Serialization.JSON, {**fields, **values})
        except WireError:
            body = b""
        if not 0 < len(body) <= _MAX_BYTES:
            body = encode_structure(Serialization.JSON, {**fields, "values_omitted": True})
        topic = self._context.options.audit_topic
        try:
            headers = Serialization.JSON.headers
            self._sink.send(topic, body, key=pv.encode(), headers=headers, on_delivery=self._on_delivery)
        except TransportError as error:
            self._count(error)

    def _on_delivery(self, error: TransportError | None) -> None:
        if error is not None:
            call_soon(self._context.scheduler, partial(self._count, error))

    def _count(self, error: TransportError) -> None:
        self._context.metrics.unaudited += 1
        self._failed.count(error)

    def close(self, timeout: float) -> None:
        """Sends what waits, for at most `timeout` seconds. Any thread."""
        self._sink.close(timeout)
