"""Commands that show the past of PVs, in subprocesses, against the session's stack."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from websockets.sync.client import connect
from websockets.typing import Origin

from k2eg_rx import Client, first

from .conftest import ENDS_WITHIN, TIMEOUT, Collected, Run, Start


def test_history_prints_what_kafka_keeps(run: Run, client: Client) -> None:
    begun = datetime.now(UTC).isoformat()  # other tests have left more than a busy machine reads in time
    live = Collected(client.monitor_stream("pva://demo:ramp100"))
    live.until_more(100)
    live.subscription.dispose()
    done = run("history", "pva://demo:ramp100", "--since", begun, "--summary", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["name"] == "demo:ramp100"
    assert found["count"] >= 100
    assert found["greatest"] <= 99.0


def test_wait_record_and_replay(run: Run, tmp_path: Path) -> None:
    done = run("wait", "pva://demo:ramp10", "> 10 and < 90", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert 10 < json.loads(done.stdout)["value"] < 90
    file = str(tmp_path / "run.parquet")
    done = run("record", "pva://demo:ramp100", "-o", file, "--count", "30")
    assert (done.returncode, done.stderr) == (0, f"k2eg: 30 updates of 1 PVs in {file}\n")
    done = run("replay", file, "--json")
    values = [json.loads(line)["value"] for line in done.stdout.splitlines()]
    assert len(values) == 30
    assert all((later - earlier) % 100 == 1 for earlier, later in pairwise(values))


def test_a_machine_is_saved_compared_and_restored(run: Run, client: Client, tmp_path: Path) -> None:
    pvs = {"pva://demo:setpoint1": 1.25, "pva://demo:mode": "Standby", "pva://demo:message": "saved"}
    before = {uri: first(client.get_stream(uri)) for uri in pvs}
    file = str(tmp_path / "saved.csv")
    try:
        for uri, value in pvs.items():
            first(client.put_stream(uri, value))
        assert run("snapshot", *pvs, "-o", file).returncode == 0
        for uri, value in {"pva://demo:setpoint1": 2.5, "pva://demo:mode": "Off"}.items():
            first(client.put_stream(uri, value))
        done = run("diff", file)
        assert (done.returncode, len(done.stdout.splitlines())) == (1, 3)
        done = run("restore", file, "--yes")
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "2 written, 2 of them verified")
        assert run("diff", file).returncode == 0
        assert first(client.get_stream("pva://demo:mode")).label == "Standby"
    finally:
        for uri, data in before.items():
            first(client.put_stream(uri, data.value if data.label is None else data.label))


def test_a_page_has_the_past_goes_on_live_and_ends_at_once(start: Start, client: Client) -> None:
    live = Collected(client.monitor_stream("pva://demo:ramp100"))
    live.until_more(20)
    past = live.items[-1].timestamp
    assert past is not None
    with start("web", "demo:ramp100", "--since", "5m") as process:
        assert process.stdout is not None
        url = process.stdout.readline().rstrip()
        with connect(f"{url.replace('http', 'ws')}updates", origin=Origin(url[:-1]), open_timeout=TIMEOUT) as browser:
            assert json.loads(browser.recv(TIMEOUT))["names"] == ["demo:ramp100"]
            points, values = [], set[str]()
            while not (points and points[0] < past / 1e9 < points[-1] and len(values) > 3):
                message = json.loads(browser.recv(TIMEOUT))
                for part in message.get("points", ()):
                    points = part["t"] if part["new"] else points + part["t"]
                values |= {row["value"] for row in message.get("rows", ())}
            assert points == sorted(points)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=ENDS_WITHIN)
    assert (process.returncode, out, err) == (0, "", "")
    live.subscription.dispose()
