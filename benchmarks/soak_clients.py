"""The clients of the soak: one monitors, records and takes snapshots, one puts; both log what they got.

Each log belongs to one run of the process, so that a run that was killed ends where its log ends.
"""

from __future__ import annotations

import itertools
import json
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from k2eg_rx import (
    Client,
    K2EGError,
    OperationError,
    OperationTimeout,
    PVUpdate,
    Snapshot,
    SnapshotProperties,
    TransportError,
    first,
)
from k2eg_rx.concurrency import TerminationSignals
from k2eg_rx.recording import record
from soak_ioc import counter, target

RECEIVED = struct.Struct("<HHIId")  # PV, partition, offset, value, time
SNAPSHOT = "soak-snapshot"
SNAPSHOT_PVS = 20
_SILENCE = 3.0  # seconds until the client asks a restarted gateway again
_FLUSH = 0.2  # seconds of its log that a killed client may lose
_PUT_PAUSE = 0.1  # seconds between two puts of one PV
_PUT_TIMEOUT = 10.0
RUNS = 1_000_000  # puts of one run of the process


class _Log:
    """A file that several threads append to."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        self._lock = threading.Lock()
        threading.Thread(target=self._flush_often, daemon=True).start()

    def _flush_often(self) -> None:
        while True:
            time.sleep(_FLUSH)
            with self._lock:
                self._file.flush()

    def add(self, data: bytes, *, now: bool = False) -> None:
        with self._lock:
            self._file.write(data)
            if now:
                self._file.flush()

    def add_line(self, fields: dict[str, Any]) -> None:
        self.add(json.dumps(fields).encode() + b"\n", now=True)


def _until_signal(ready: Callable[[], None] = lambda: None) -> None:
    with TerminationSignals() as signals:
        signals.defer()
        ready()
        while not signals.wait(60.0):
            pass


def watch(folder: Path, run: int, count: int) -> None:
    """Monitors and records all counting PVs, and takes a recurring snapshot of some."""
    numbers = {counter(number): number for number in range(count)}
    uris = [f"pva://{name}" for name in numbers]
    received, iterations = _Log(folder / f"received-{run}.bin"), _Log(folder / f"snapshots-{run}.jsonl")
    errors = _Log(folder / f"errors-{run}.jsonl")

    def on_error(what: str) -> Callable[[Exception], None]:
        return lambda error: errors.add_line({"stream": what, "error": repr(error)})

    def on_update(update: PVUpdate) -> None:
        at = update.record
        received.add(RECEIVED.pack(numbers[update.name], at.partition, at.offset, update.value, time.time()))

    def on_snapshot(taken: Snapshot) -> None:
        values = {name: samples[-1]["value"] for name, samples in taken.data.items() if samples}
        iterations.add_line(
            {
                "iteration": taken.iteration,
                "at": taken.tail_timestamp // 1_000_000,
                "error": taken.error,
                "values": values,
            }
        )

    properties = SnapshotProperties(snapshot_name=SNAPSHOT, pv_uri_list=uris[:SNAPSHOT_PVS], time_window=1000)
    with Client("soak-monitors", "soak-watch", silence=_SILENCE, timeout=60.0) as client:
        client.monitor_many_stream(uris).subscribe(on_update, on_error("monitor"))
        recorded = client.monitor_many_stream(uris).pipe(record(folder / f"recording-{run}.parquet"))
        recording = recorded.subscribe(on_error=on_error("recording"))
        client.snapshot_recurring_stream(properties).subscribe(on_snapshot, on_error("snapshot"))
        _until_signal()
        recording.dispose()
        received.add(b"", now=True)


def put(folder: Path, run: int, count: int) -> None:
    """Puts to each target one value after the other, each once."""
    log = _Log(folder / f"put-{run}.jsonl")
    numbers = itertools.count(run * RUNS + 1)
    lock = threading.Lock()
    stop = threading.Event()

    def puts(client: Client, name: str) -> None:
        while not stop.wait(_PUT_PAUSE):
            with lock:
                value = next(numbers)
            log.add_line({"value": value, "pv": name, "sent": time.time()})
            text = ""
            try:
                first(client.put_stream(f"pva://{name}", value, _PUT_TIMEOUT))
                outcome = "done"
            except OperationTimeout:
                outcome = "timeout"
            except OperationError as error:
                outcome, text = "refused", str(error)
            except TransportError as error:
                outcome, text = "unsent", str(error)
            except K2EGError as error:  # the client was closed meanwhile
                outcome, text = "unknown", str(error)
            log.add_line({"value": value, "outcome": outcome, "text": text, "ended": time.time()})

    with Client("soak-puts", "soak-put", timeout=60.0) as client:
        for number in range(count):
            threading.Thread(target=puts, args=(client, target(number)), daemon=True).start()
        _until_signal()
        stop.set()


if __name__ == "__main__":
    {"watch": watch, "put": put}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
