"""Saves the state of a machine to a file, every 60 s.

    k2eg demo                                        # in one terminal
    python examples/save_machine_state.py states.jsonl # in another

Each save is one line of JSON: the time, the value of each PV, and what failed. A PV that does not answer has a default
value, so that all lines have the same PVs; its reason is in `failed`, so that no default is taken for a reading.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from k2eg.dml import dml

# The PVs to save, and the value of one that does not answer.
DEFAULTS: dict[str, Any] = {
    "pva://demo:setpoint1": 0.0,
    "pva://demo:setpoint2": 0.0,
    "pva://demo:mode": "unknown",
    "pva://demo:temperature": None,
    "pva://demo:message": "",
    **{f"pva://demo:bpm{number}": None for number in range(1, 21)},
}


def plain(structure: Mapping[str, Any]) -> Any:
    """Returns a PV's value; of an enum the label."""
    value: Any = structure["value"]
    try:
        return value["choices"][value["index"]]
    except (TypeError, LookupError):
        return value


def state(client: dml, defaults: Mapping[str, Any], timeout: float) -> dict[str, Any]:
    """Returns the state of the machine: values of all PVs, and why some are defaults."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    results = client.get_many(list(defaults), timeout)
    failed = {uri: str(result) for uri, result in results.items() if isinstance(result, Exception)}
    values = {uri: defaults[uri] if isinstance(result, Exception) else plain(result) for uri, result in results.items()}
    return {"time": now, "values": values, "failed": failed}


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="saves are appended to it")
    parser.add_argument("-e", "--environment", default="demo")
    parser.add_argument("--pv", action="append", default=[], help="one more PV, with default null; can be repeated")
    parser.add_argument("--every", type=float, default=60.0, help="seconds from save to save")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for all PVs of a save")
    parser.add_argument("--saves", type=int, default=0, help="number of saves; 0 for no end")
    options = parser.parse_args()
    defaults = DEFAULTS | dict.fromkeys(options.pv)
    saves = 0
    with dml(options.environment, "example-save") as client, options.file.open("a") as file:
        while True:
            start = time.monotonic()
            saved = state(client, defaults, options.timeout)
            file.write(json.dumps(saved) + "\n")
            file.flush()  # a line is complete also if the process is killed while it waits
            saves += 1
            print(f"{saved['time']} saved {len(defaults)} PVs, {len(saved['failed'])} of them defaults", flush=True)
            if saves == options.saves:
                break
            time.sleep(max(0.0, start + options.every - time.monotonic()))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # Ctrl-C ends the wait for the next save
        main()
