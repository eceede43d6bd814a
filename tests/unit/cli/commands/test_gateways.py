"""`k2eg gateway status` and `k2eg monitors` against a scripted gateway."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest
import reactivex

from k2eg.cli import main
from k2eg_rx import Client, GatewayReport
from k2eg_rx.testing import ScriptedGateway

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedGateway]:
    monkeypatch.setenv("K2EG_CLI_DEFAULT_ENVIRONMENT", "local")
    with ScriptedGateway() as scripted:
        yield scripted


@pytest.fixture
def run(gateway: ScriptedGateway, capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str) -> tuple[int, str, str]:
        with gateway.clock.running():
            code = main(words)
        done = capfd.readouterr()
        return code, done.out, done.err

    return run


@pytest.fixture
def watched(gateway: ScriptedGateway) -> Iterator[None]:
    """A client that monitors two PVs, of which one exists."""
    gateway.pv("my:x", 1.5)
    with gateway.client() as client:
        client.monitor_many_stream(["pva://my:x", "ca://my:dead"]).subscribe(lambda _: None)
        gateway.advance(10.0)
        yield


@pytest.mark.usefixtures("watched")
def test_the_status_is_a_row_for_each_gateway(run: Run) -> None:
    code, out, err = run("gateway", "status")
    titles, row = out.splitlines()
    assert (code, err) == (0, "")
    assert titles.split()[:6] == ["GATEWAY", "VERSION", "GROUP", "UP", "KAFKA", "CONNECTED"]
    of_row = dict(zip(re.split(r" {2,}", titles), re.split(r" {2,}", row), strict=True))
    assert [of_row[title] for title in ("CONNECTED", "LOST", "NEVER", "MONITORS", "SNAPSHOTS")] == [
        "1",
        "0",
        "1",
        "2",
        "0",
    ]


@pytest.mark.usefixtures("watched")
def test_the_status_as_json_has_all_figures(run: Run) -> None:
    code, out, _ = run("gateway", "status", "--json")
    (report,) = map(json.loads, out.splitlines())
    assert code == 0
    assert (report["connected"], report["never_connected"], report["monitors"]) == (1, 1, 2)
    assert report["counts"]["commands"] > 0


@pytest.mark.usefixtures("watched")
def test_monitors_are_listed_with_their_applications(run: Run) -> None:
    code, out, _ = run("monitors")
    lines = [line.split() for line in out.splitlines()]
    assert code == 0
    assert lines[0] == ["PV", "STATE", "HOST", "GATEWAY", "APPLICATIONS"]
    assert [line[0] for line in lines[1:]] == ["ca://my:dead", "pva://my:x"]
    assert lines[1][1:3] == ["never", "connected"]
    assert lines[2][1] == "connected"


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize(("pattern", "count"), [("my:*", 2), ("*dead", 1), ("ca://my:*", 1), ("other", 0)])
def test_monitors_are_selected_by_name_or_uri(run: Run, pattern: str, count: int) -> None:
    code, out, _ = run("monitors", pattern, "--json")
    assert (code, len(out.splitlines())) == (0, count)


def test_members_that_do_not_answer_and_problems_are_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    reports = [
        GatewayReport(gateway="a:1", member="m1", members=["m1", "m2"], reason="Kafka is slow"),
        GatewayReport(gateway="b:1", member="m3", members=["m3"], providers={"ca": "no libca", "pva": ""}),
    ]
    monkeypatch.setattr(Client, "gateways_stream", lambda *_, **__: reactivex.from_iterable(reports))
    code, _, err = run("gateway", "status")
    assert code == 1
    assert err.splitlines() == [
        "k2eg: a:1: Kafka is slow",
        "k2eg: b:1: no libca",
        "k2eg: gateways that share the PVs and did not answer: m2; look at their processes and logs",
    ]


def test_without_an_answer_the_exit_code_says_so(gateway: ScriptedGateway, run: Run) -> None:
    gateway.faults.ignore("gateway_status")
    code, out, err = run("gateway", "status")
    assert (code, out) == (4, "")
    assert "no reply within 2 s" in err
