"""Commands that show the past of PVs, in subprocesses, against the session's stack."""

from __future__ import annotations

import json

from k2eg_rx import Client

from .conftest import Collected, Run


def test_history_prints_what_kafka_keeps(run: Run, client: Client) -> None:
    live = Collected(client.monitor_stream("pva://demo:ramp100"))
    live.until_more(100)
    live.subscription.dispose()
    done = run("history", "pva://demo:ramp100", "--since", "10m", "--summary", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["name"] == "demo:ramp100"
    assert found["count"] >= 100
    assert found["greatest"] <= 99.0
