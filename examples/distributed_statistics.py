# pyright: basic, reportMissingImports=false
"""Statistics of many PVs in windows of time, computed by as many processes as are started.

    python examples/distributed_statistics.py site pvs.txt --state state-1      # in one terminal
    python examples/distributed_statistics.py site pvs.txt --state state-2      # in another

The environment has an ``events_topic`` and a gateway, on an Apache Kafka: the broker of ``k2eg demo`` has no
transactions. The file names the PVs, one a line. Each window of each PV is in the topic ``pv-statistics`` once,
whichever process is killed and started again. It needs the extra ``quix``, which is for an environment of its own.
"""

from __future__ import annotations

import argparse
import math
from datetime import timedelta
from pathlib import Path
from statistics import fmean
from typing import Any

from quixstreams import Application
from quixstreams.dataframe.windows.aggregations import Collect
from quixstreams.kafka import ConnectionConfig

from k2eg_rx import Client, Settings, Severity
from k2eg_rx.quix import pv_frame

NAME = "pv-statistics"  # of the application, its consumer group and the topic of its results


def is_usable(event: dict[str, Any]) -> bool:
    """Returns whether an event has a number that means something, as in the windows of `window_statistics`."""
    value = event["value"]
    return event["severity"] < Severity.INVALID and isinstance(value, int | float) and math.isfinite(value)


def summary(window: dict[str, Any], key: bytes, _time: int, _headers: object) -> dict[str, Any]:
    """Returns the statistics of a window's values; its start is in Unix milliseconds."""
    values = window["values"]
    about = {"count": len(values), "mean": fmean(values), "min": min(values), "max": max(values)}
    return {"name": key.decode(), "start": window["start"], **about}


def statistics(events: Any, seconds: float) -> Any:
    """Returns the frame of statistics; a PV's window ends with its first event that is a second past the end."""
    numbers = events.filter(is_usable).apply(lambda event: event["value"])
    windows = numbers.tumbling_window(timedelta(seconds=seconds), grace_ms=timedelta(seconds=1))
    return windows.agg(values=Collect()).final().apply(summary, metadata=True)


def application(settings: Settings, state: Path) -> Application:
    """Returns an application for an environment's broker; the state of one that is killed comes back from Kafka."""
    connection = {"bootstrap.servers": settings.broker_url, **settings.kafka}
    return Application(
        broker_address=ConnectionConfig.from_librdkafka_dict(connection, ignore_extras=True),
        consumer_group=NAME,
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_interval=1.0,
        consumer_extra_config={"session.timeout.ms": 6000},  # then others take over the PVs of a dead process
        producer_extra_config={"transaction.timeout.ms": 10_000},  # then its unfinished results are given up
        state_dir=state,
        loglevel="WARNING",
    )


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environment", help="name of an .ini file")
    parser.add_argument("pvs", type=Path, help="a file with URIs, one a line")
    parser.add_argument("--state", type=Path, default=Path("state"), help="a folder for this process alone")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a window")
    options = parser.parse_args()
    with Client(options.environment, NAME, group_name=f"{NAME}-monitors") as client:
        app = application(client.settings, options.state)
        events = pv_frame(app, client, options.pvs.read_text().split())
        statistics(events, options.seconds).to_topic(app.topic(NAME))
        app.run()  # until Ctrl-C or SIGTERM


if __name__ == "__main__":
    main()
