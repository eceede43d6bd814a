"""Twenty threads write set points, while one monitor shows what the control system makes of them.

    k2eg demo                           # in one terminal
    python examples/setpoint_threads.py # in another

The threads share one client. Each one changes its set point in small steps and waits for each reply; at the end, and
after Ctrl-C, the set points have their first values again.
"""

from __future__ import annotations

import argparse
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event
from typing import Any

from k2eg.dml import OperationError, OperationTimeout, dml
from k2eg.serialization import Scalar

SETPOINTS = ["pva://demo:setpoint1", "pva://demo:setpoint2"]
READBACKS = ["pva://demo:sum"]


def write_steps(client: dml, uri: str, start: float, steps: int, stop: Event) -> Counter[str]:
    """Writes a set point step by step until `stop` is set; returns counts of the results."""
    results: Counter[str] = Counter()
    for step in range(steps):
        if stop.is_set():
            break
        try:
            client.put(uri, Scalar("value", start + 0.01 * step), timeout=10.0)
            results["written"] += 1
        except (OperationError, OperationTimeout) as error:
            print(f"{uri}: {error}", flush=True)
            results["failed"] += 1
    return results


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-e", "--environment", default="demo")
    parser.add_argument("--pv", action="append", help="a set point; can be repeated")
    parser.add_argument("--threads", type=int, default=20)
    parser.add_argument("--steps", type=int, default=50, help="number of writes of each thread")
    options = parser.parse_args()
    uris: list[str] = options.pv or SETPOINTS
    newest: dict[str, float] = {}
    changed: Counter[str] = Counter()
    stop = Event()

    def on_update(name: str, data: dict[str, Any]) -> None:
        newest[name] = data["value"]  # one call at a time: it needs no lock
        changed[name] += 1

    with dml(options.environment, "example-threads") as client, ThreadPoolExecutor(options.threads) as threads:
        starts = {uri: client.get(uri, timeout=10.0)["value"] for uri in uris}
        client.monitor_many([*uris, *READBACKS], on_update, timeout=1000)
        own = [uris[number % len(uris)] for number in range(options.threads)]
        try:
            running = [threads.submit(write_steps, client, uri, starts[uri], options.steps, stop) for uri in own]
            total = sum((one.result() for one in running), Counter[str]())
            print(f"{options.threads} threads: {total['written']} values written, {total['failed']} failed")
        finally:
            stop.set()  # after Ctrl-C, which raises KeyboardInterrupt here: each thread ends after its present put
            threads.shutdown()
            for uri, start in starts.items():
                client.put(uri, Scalar("value", start), timeout=10.0)
    for name, value in newest.items():  # the client is closed: nothing changes it any more
        print(f"{name}: {changed[name]} updates, the last one {value:.3f}")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
