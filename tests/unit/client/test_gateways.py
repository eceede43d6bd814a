"""Reports of gateways: collected for a while, put together from their parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import reactivex as rx
from reactivex import operators as ops
from reactivex.subject import Subject

from k2eg_rx import GatewayReport, K2EGError, MonitorReport, OperationError, OperationTimeout, first
from k2eg_rx.client.gateways import gateway_reports
from k2eg_rx.protocol import Reply, report_fields
from k2eg_rx.testing import ScriptedGateway


class Requests:
    """Gives the replies of a test; the seconds are over when it says so."""

    def __init__(self) -> None:
        self.received: Subject[Reply] = Subject()
        self.over: Subject[None] = Subject()

    def replies(self, command: Any) -> rx.Observable[Reply]:
        return self.received

    def for_seconds(self, seconds: float) -> Any:
        return ops.take_until(self.over)

    def why_no_reply(self) -> str:
        return "Kafka is away"


class Collected:
    def __init__(self) -> None:
        self.requests = Requests()
        self.reports: list[GatewayReport] = []
        self.errors: list[Exception] = []
        self.ends = 0
        reports = gateway_reports(self.requests, 2.0, monitors=True)  # type: ignore[arg-type]
        reports.subscribe(self.reports.append, self.errors.append, self.end)

    def end(self) -> None:
        self.ends += 1

    def receive(self, report: GatewayReport) -> None:
        for fields in report_fields(report):
            self.requests.received.on_next(Reply("id", 0, body=fields))


def test_each_gateway_has_one_report_and_the_stream_ends_with_the_time() -> None:
    collected = Collected()
    for name in ("a", "b", "a"):
        collected.receive(GatewayReport(gateway=name))
    assert [report.gateway for report in collected.reports] == ["a", "b"]
    assert collected.ends == 0
    collected.requests.over.on_next(None)
    assert (collected.ends, collected.errors) == (1, [])


def test_parts_of_a_report_are_put_together() -> None:
    collected = Collected()
    monitors = [MonitorReport(f"pva://x:{number}") for number in range(1500)]
    whole = GatewayReport(gateway="a", monitor_list=monitors)
    fields = list(report_fields(whole))
    collected.requests.received.on_next(Reply("id", 0, body=fields[1]))
    assert collected.reports == []
    collected.requests.received.on_next(Reply("id", 0, body=fields[0]))
    assert collected.reports == [replace(whole, monitor_list=tuple(monitors))]


def refused(collected: Collected) -> None:
    collected.requests.received.on_next(Reply("id", -1))


@pytest.mark.parametrize(
    ("act", "kind", "words"),
    [
        (lambda collected: None, OperationTimeout, "Kafka is away"),
        (refused, OperationError, "it is of another kind, which has no status"),
    ],
)
def test_without_a_report_the_error_says_why(act: Any, kind: type[K2EGError], words: str) -> None:
    collected = Collected()
    act(collected)
    collected.requests.over.on_next(None)
    (error,) = collected.errors
    assert isinstance(error, kind)
    assert words in str(error)


def test_a_gateway_of_another_kind_beside_one_of_this_project_does_not_matter() -> None:
    collected = Collected()
    refused(collected)
    collected.receive(GatewayReport(gateway="a"))
    collected.requests.over.on_next(None)
    assert (len(collected.reports), collected.ends, collected.errors) == (1, 1, [])


def test_the_scripted_gateway_answers() -> None:
    with ScriptedGateway() as gateway, gateway.client() as client:
        gateway.pv("my:x", 1.5)
        first(client.monitor_stream("pva://my:x"))
        report = first(client.gateways_stream(monitors=True))
    assert [monitor.uri for monitor in report.monitor_list] == ["pva://my:x"]
