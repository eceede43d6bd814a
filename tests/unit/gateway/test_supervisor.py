"""The metrics of several gateways on one page, and which of them are killed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from k2eg_rx.gateway import supervisor
from k2eg_rx.gateway.supervisor import merged
from k2eg_rx.metrics import Buckets, Family, Reading
from k2eg_rx.metrics.exposition import metrics_page
from k2eg_rx.settings import Settings

COMMANDS = Family("k2eg_commands_total", "counter", "Commands", ("command", "result"))
CONNECTED = Family("k2eg_connected", "gauge", "1 while connected")
LATENCY = Family("k2eg_latency_seconds", "histogram", "Latency")


def test_each_series_has_the_member_that_it_is_of() -> None:
    members = {
        "1": [
            Reading(COMMANDS, {("get", "ok"): 3.0, ("get",): 4.0}),
            Reading(CONNECTED, 1.0),
            Reading(LATENCY, Buckets((0.1,), (2, 1), 0.5)),
        ],
        "2": [Reading(CONNECTED, 0.0), Reading(LATENCY, Buckets((0.1,), (0, 4), 8.0))],
    }
    lines = metrics_page(lambda: merged(members))().body.decode().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        'k2eg_commands_total{command="get",member="1",result="ok"} 3.0',
        'k2eg_commands_total{command="get",member="1"} 4.0',
        'k2eg_connected{member="1"} 1.0',
        'k2eg_connected{member="2"} 0.0',
        'k2eg_latency_seconds_bucket{le="0.1",member="1"} 2.0',
        'k2eg_latency_seconds_bucket{le="+Inf",member="1"} 3.0',
        'k2eg_latency_seconds_count{member="1"} 3.0',
        'k2eg_latency_seconds_sum{member="1"} 0.5',
        'k2eg_latency_seconds_bucket{le="0.1",member="2"} 0.0',
        'k2eg_latency_seconds_bucket{le="+Inf",member="2"} 4.0',
        'k2eg_latency_seconds_count{member="2"} 4.0',
        'k2eg_latency_seconds_sum{member="2"} 8.0',
    ]
    assert sum(line.startswith("# TYPE k2eg_latency_seconds histogram") for line in lines) == 1


def test_a_member_with_a_stuck_event_loop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(supervisor, "time", SimpleNamespace(monotonic=lambda: now))
    member = supervisor._Member(Settings("site", "nowhere:9092", "commands", "reply"), 1, lambda: None)
    killed: list[bool] = []
    process = SimpleNamespace(exitcode=None, pid=1, kill=lambda: killed.append(True))
    pipe = Pipe(supervisor._Answer())
    monkeypatch.setattr(member, "_process", process)
    monkeypatch.setattr(member, "_questions", pipe)
    member.look(now)
    pipe.answer = supervisor._Answer(stuck={"event_loop": "no heartbeat of the event loop for 11 s"})
    for now in (1000.0 + supervisor._STUCK - 1.0, 1000.0 + supervisor._STUCK):
        member.look(now)
        assert killed == []
    for now in (1000.0 + supervisor._STUCK + 1.0, 1000.0 + supervisor._STUCK + 2.0):
        member.look(now)
        assert killed == [True]
    assert pipe.with_readings == {False}


class Pipe:
    """The way to a member that gives one answer."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.with_readings: set[bool] = set()

    def send(self, question: tuple[int, bool]) -> None:
        self._number, readings = question
        self.with_readings.add(readings)

    def poll(self, seconds: float) -> bool:
        return True

    def recv(self) -> tuple[int, Any]:
        return self._number, self.answer
