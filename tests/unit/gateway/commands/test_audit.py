"""Records of puts in the audit topic."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from k2eg_rx.errors import TransportError
from k2eg_rx.gateway.commands.audit import Audit
from k2eg_rx.gateway.epics.provider import ProviderError, ProviderTimeout
from k2eg_rx.protocol.commands import pack_fields

VALUE = base64.b64encode(pack_fields({"value": 5})).decode()


class Sink:
    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.error: TransportError | None = None

    def send(self, topic: str, value: bytes, *, on_delivery: Callable[..., None], **_: Any) -> None:
        self.sent.append({"topic": topic, **json.loads(value)})
        on_delivery(self.error)

    def close(self, timeout: float) -> None:
        pass


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def audited(new_gateway: Callable[..., Any], sink: Any) -> Any:
    gateway = new_gateway(audit_topic="audit", command_topics="ops:operators")
    gateway.handler.get_put.audit = Audit(sink, gateway.context)
    return gateway


def put(gateway: Any, reading: Any) -> None:
    gateway.command("put", topic="ops", pv_name="pva://a", value=VALUE)
    assert gateway.pva.puts == []  # the value before it is read first
    future = gateway.pva.gets[-1][2]
    future.set_exception(reading) if isinstance(reading, Exception) else future.set_result(reading)
    gateway.settle()


def test_a_put_is_recorded_with_its_principal_and_values(audited: Any, sink: Sink, reading: Any) -> None:
    put(audited, reading(4))
    assert sink.sent == []
    audited.pva.puts[0][3].set_result(None)
    audited.settle()
    (record,) = sink.sent
    assert record.pop("time_msec") > 0
    assert record == {
        "topic": "audit",
        "principal": "operators",
        "reply_topic": "replies",
        "reply_id": "id",
        "pv": "pva://a",
        "result": "ok",
        "message": "Successfull operation",
        "old": {"value": 4},
        "new": {"value": 5},
    }
    assert audited.bodies()[0]["error"] == 0


def test_a_put_goes_on_without_the_old_value_and_failures_are_recorded(audited: Any, sink: Sink) -> None:
    put(audited, ProviderTimeout("no answer"))
    audited.pva.puts[0][3].set_exception(ProviderError("refused by the record"))
    audited.settle()
    (record,) = sink.sent
    assert (record["result"], record["message"], "old" in record) == ("failed", "refused by the record", False)


def test_a_put_that_times_out_while_the_old_value_is_read_is_never_sent(audited: Any, sink: Sink, reading: Any) -> None:
    audited.command("put", pv_name="pva://a", value=VALUE)
    audited.advance(20.0)
    audited.pva.gets[-1][2].set_result(reading(4))
    audited.settle()
    assert audited.bodies()[0]["error"] == -3
    assert (audited.pva.puts, sink.sent) == ([], [])


def test_a_record_that_kafka_does_not_take_is_counted_and_stops_no_put(audited: Any, sink: Sink, reading: Any) -> None:
    sink.error = TransportError("no such topic")
    put(audited, reading(4))
    audited.pva.puts[0][3].set_result(None)
    audited.settle()
    assert audited.metrics.unaudited == 1
    assert audited.bodies()[0]["error"] == 0
