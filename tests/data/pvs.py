"""p4p server of the PVs in the recorded messages, with their names, types and initial values.

As a script it serves them on the ports of the EPICS_PVAS_* variables, prints ``up``, and ends when its standard input
is closed. ``P:FAST`` counts up at ``P:RATE`` hertz; ``P:SLOW`` is the time, once per second.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import numpy as np
from p4p import Type, Value
from p4p.nt import NTEnum, NTNDArray, NTScalar, NTTable
from p4p.server import Server
from p4p.server.raw import SharedPV

TICK = 0.002  # seconds between posts of the counter; above 500 Hz it posts several per tick
MAX_POSTS_PER_TICK = 2000  # so that a stalled machine does not post its whole backlog

COLUMNS = [("element", "s"), ("device_name", "s"), ("s", "d"), ("n", "i")]
ROWS = [
    ("SOL9000", "SOL:IN20:111", 0.5, 1),
    ("XC99", "XCOR:IN20:112", 1.5, 2),
    ("YC99", "YCOR:IN20:113", 2.5, 3),
]

CUSTOM = Type(
    [
        ("a", "i"),
        ("b", "s"),
        ("sub", ("S", None, [("x", "d"), ("arr", "ad"), ("flag", "?")])),
        ("list", ("aS", None, [("k", "s"), ("v", "l")])),
        ("u", ("U", None, [("i", "i"), ("s", "s")])),
        ("any", "v"),
        ("anylist", "av"),
        ("u8", "B"),
        ("f32", "f"),
        ("ul", "L"),
        ("as", "as"),
        ("ab", "a?"),
    ]
)


class Stored:
    """Accepts every put."""

    def put(self, pv: Any, operation: Any) -> None:
        try:
            stamp = {"timestamp": time.time()} if pv.nt else {}
            pv.post(operation.value(), **stamp)
        except Exception as error:
            operation.done(error=repr(error))
        else:
            operation.done()


class Refused:
    """Refuses every put."""

    def put(self, pv: Any, operation: Any) -> None:
        operation.done(error="this PV is read only")


class Counter:
    """A counter PV on a thread of its own, whose rate is set by a put."""

    def __init__(self) -> None:
        self.fast = SharedPV(nt=NTScalar("d", display=False), initial=0.0)
        self.slow = SharedPV(nt=NTScalar("d"), initial=0.0)
        self.rate = SharedPV(nt=NTScalar("d"), initial=0.0, handler=self)
        self._per_second = 0.0
        self._wake = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def put(self, pv: Any, operation: Any) -> None:
        self._per_second = float(operation.value())
        pv.post(operation.value(), timestamp=time.time())
        operation.done()
        self._wake.set()

    def _run(self) -> None:
        count, last, next_slow = 0.0, time.monotonic(), time.monotonic()
        while True:
            now = time.monotonic()
            if now >= next_slow:
                self.slow.post(time.time(), timestamp=time.time())
                next_slow += 1.0
            due = min(int((now - last) * self._per_second), MAX_POSTS_PER_TICK)
            if due or not self._per_second:
                last = now
            for _ in range(due):
                count += 1
                self.fast.post(count, timestamp=time.time())
            self._wake.wait(TICK if self._per_second else max(0.0, next_slow - now))
            self._wake.clear()


def process_variables() -> dict[str, SharedPV]:
    table = NTTable(COLUMNS)
    rows = [dict(zip((label for label, _ in COLUMNS), row, strict=True)) for row in ROWS]
    custom = {
        "a": 7,
        "b": "bee",
        "sub": {"x": 1.5, "arr": [1.0, 2.0], "flag": True},
        "list": [{"k": "k1", "v": 1}, {"k": "k2", "v": -2}],
        "u": ("s", "uval"),
        "any": 3.25,
        "u8": 200,
        "f32": 0.1,
        "ul": 2**64 - 1,
        "as": ["p", "q"],
        "ab": [True, False],
    }
    image = np.arange(12, dtype=np.uint16).reshape(3, 4)
    full = {"display": True, "control": True, "valueAlarm": True}
    counter = Counter()
    return {
        "P:TABLE": SharedPV(nt=table, initial=table.wrap(rows), handler=Stored()),
        "P:CUSTOM": SharedPV(initial=Value(CUSTOM, custom), handler=Stored()),
        "P:RO": SharedPV(nt=NTScalar("d", display=True), initial=1.0, handler=Refused()),
        "P:RW": SharedPV(nt=NTScalar("d", **full), initial=2.0, handler=Stored()),
        "P:STR": SharedPV(nt=NTScalar("s"), initial="str", handler=Stored()),
        "P:BOOL": SharedPV(nt=NTScalar("?"), initial=True, handler=Stored()),
        "P:ENUM": SharedPV(nt=NTEnum(), initial={"index": 1, "choices": ["A", "B", "C"]}, handler=Stored()),
        "P:IMG": SharedPV(nt=NTNDArray(), initial=image, handler=Stored()),
        "P:ARR": SharedPV(nt=NTScalar("ad"), initial=np.arange(1000) * 0.5, handler=Stored()),
        "P:FAST": counter.fast,
        "P:SLOW": counter.slow,
        "P:RATE": counter.rate,
    }


def main() -> None:
    with Server(providers=[process_variables()]):
        print("up", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
