"""Reads, writes and monitors a PV with the callback API.

    k2eg demo                     # in one terminal
    python examples/callbacks.py  # in another

Prints a set point, changes it in steps, and prints the sum that follows it.
"""

from __future__ import annotations

import argparse
import threading
from typing import Any

from k2eg.dml import dml


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-e", "--environment", default="demo")
    parser.add_argument("--setpoint", default="pva://demo:setpoint1")
    parser.add_argument("--sum", default="pva://demo:sum")
    parser.add_argument("--steps", type=int, default=3, help="number of steps")
    options = parser.parse_args()
    updated = threading.Event()

    def on_update(pv_name: str, data: dict[str, Any]) -> None:
        print(f"{pv_name} = {data['value']:.3f} {data['display']['units']}, severity {data['alarm']['severity']}")
        updated.set()

    with dml(options.environment, "example-callbacks") as client:
        start = client.get(options.setpoint, timeout=5.0)["value"]
        print(f"{options.setpoint} is {start:.3f}")
        client.monitor(options.sum, on_update, timeout=5.0)
        for step in range(1, options.steps + 1):
            updated.clear()
            client.put(options.setpoint, start + 0.1 * step, timeout=5.0)
            if not updated.wait(5.0):
                raise SystemExit(f"no update of {options.sum} within 5 s")
        client.put(options.setpoint, start, timeout=5.0)


if __name__ == "__main__":
    main()
