"""Reports of gateways, to and from the fields of replies."""

from __future__ import annotations

from dataclasses import replace

import pytest

from k2eg_rx.protocol import GatewayReport, MonitorReport, Serialization, decode_body, encode_reply
from k2eg_rx.protocol.gateway_reports import gateway_report, report_fields
from k2eg_rx.protocol.records import Record

REPORT = GatewayReport(
    gateway="host:1",
    version="1.2",
    members=["a", "b"],
    uptime=5.5,
    providers={"pva": "", "ca": "no libca"},
    counts={"commands": 7},
    monitor_list=[MonitorReport("pva://a", "a", "connected", "ioc:5075", ["app-reply"]), MonitorReport("ca://b", "b")],
)


@pytest.mark.parametrize("form", Serialization)
def test_a_report_is_read_as_it_was_written(form: Serialization) -> None:
    (fields,) = report_fields(REPORT)
    body = encode_reply(form, "id", 0, further=fields)
    read = gateway_report(decode_body(Record("t", 0, 0, None, body, form.headers)))
    assert read is not None
    assert list(read.members) == ["a", "b"]
    assert [monitor.uri for monitor in read.monitor_list] == ["pva://a", "ca://b"]
    assert list(read.monitor_list[0].applications) == ["app-reply"]
    assert (read.gateway, read.uptime, read.counts, read.providers["ca"]) == (
        "host:1",
        5.5,
        {"commands": 7},
        "no libca",
    )


def test_many_monitors_are_sent_in_parts() -> None:
    many = replace(REPORT, monitor_list=[MonitorReport(f"pva://x:{number}") for number in range(2500)])
    parts = [gateway_report(fields) for fields in report_fields(many)]
    assert [(part.part, part.parts, len(part.monitor_list)) for part in parts if part] == [
        (1, 3, 1000),
        (2, 3, 1000),
        (3, 3, 500),
    ]


@pytest.mark.parametrize("body", [{}, {"gateway_status": 5}, {"error": -1}])
def test_another_reply_has_no_report(body: dict[str, object]) -> None:
    assert gateway_report(body) is None


def test_unknown_fields_and_those_of_another_type_are_ignored() -> None:
    found = {
        "gateway": "g",
        "uptime": 3,
        "monitors": "many",
        "monitor_list": ["x", {"uri": "pva://a", "new": 1}],
        "new": 1,
    }
    read = gateway_report({"gateway_status": found})
    assert read == GatewayReport(gateway="g", uptime=3, monitor_list=(MonitorReport("pva://a"),))
