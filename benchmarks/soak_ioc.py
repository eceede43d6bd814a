"""The IOC of the soak: PVs that count together, and PVs that take puts; both keep logs that survive a kill.

The argument is a JSON object with `count`, `targets`, `rate`, `first`, `folder` and `conf`. It prints ``ready``; a line
on standard input stops the counting, and it prints the last count.
"""

from __future__ import annotations

import json
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

from p4p.nt import NTScalar
from p4p.server import Server, StaticProvider
from p4p.server.thread import SharedPV

TICK = struct.Struct("<Id")  # a count and the Unix time at which it was posted
PREFIX = "soak:"


def counter(number: int) -> str:
    """Returns the name of a counting PV."""
    return f"{PREFIX}c{number}"


def target(number: int) -> str:
    """Returns the name of a PV that takes puts."""
    return f"{PREFIX}put{number}"


class _Target:
    """Logs each put with the time at which it was carried out."""

    def __init__(self, name: str, log: Any) -> None:
        self._name = name
        self._log = log

    def put(self, pv: Any, operation: Any) -> None:
        value = operation.value()
        self._log.write(json.dumps([self._name, int(value), time.time()]) + "\n")
        pv.post(value, timestamp=time.time())
        operation.done()


def main() -> None:
    arguments = json.loads(sys.argv[1])
    folder, count = Path(arguments["folder"]), int(arguments["first"])
    provider = StaticProvider("soak")
    counters = [SharedPV(nt=NTScalar("l"), initial=count) for _ in range(arguments["count"])]
    for number, pv in enumerate(counters):
        provider.add(counter(number), pv)
    puts = (folder / "puts.log").open("a", buffering=1)
    for number in range(arguments["targets"]):
        name = target(number)
        provider.add(name, SharedPV(nt=NTScalar("l"), initial=0, handler=_Target(name, puts)))
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
    with Server(providers=[provider], conf=arguments["conf"], useenv=False), (folder / "ticks.bin").open("ab") as ticks:
        print("ready", flush=True)
        due = time.monotonic()
        while not stop.is_set():
            due = max(due + 1 / arguments["rate"], time.monotonic() - 1.0)
            time.sleep(max(0.0, due - time.monotonic()))
            count += 1
            now = time.time()
            ticks.write(TICK.pack(count, now))  # before it is posted: no posted value is missing from the log
            ticks.flush()
            for pv in counters:
                pv.post(count, timestamp=now)
        print(count, flush=True)
        threading.Event().wait()  # the values stay readable until the process is killed


if __name__ == "__main__":
    main()
