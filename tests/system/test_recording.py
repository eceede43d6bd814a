"""Recordings of live streams, by killed recorders, and on a full disk."""

from __future__ import annotations

import doctest
import signal
import subprocess
import sys
import threading
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import reactivex as rx
from reactivex import operators as ops
from reactivex.subject import Subject

from k2eg_rx import Client, PVUpdate, Snapshot, SnapshotProperties, SnapshotType, first
from k2eg_rx.recording import record, recover, replay_file
from k2eg_rx.recording.file_names import journal_of
from k2eg_rx.testing import update

TIMEOUT = 60.0  # seconds, on a busy machine

# Records numbers as fast as possible and prints each emitted one, until it is killed.
RECORDER = """
import sys
from itertools import count
from reactivex.subject import Subject
from k2eg_rx.recording import record
from k2eg_rx.testing import update

source = Subject()
source.pipe(record(sys.argv[1], flush_rows=10, flush_every=3600.0, row_group_rows=70, rotate_bytes=int(sys.argv[2])))\
.subscribe(lambda item: print(item.value, flush=True), lambda error: print(error, flush=True))
for number in count():
    source.on_next(update("demo:number", number, offset=number))
"""

FULL_DISK = """
import resource, sys
import reactivex as rx
from k2eg_rx.recording import record
from k2eg_rx.testing import series

operator = record(sys.argv[1], flush_rows=10)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
rx.from_iterable(series("x", range(3_000))).pipe(operator).subscribe(on_error=lambda error: print(error, flush=True))
"""


def read_back(path: Path, **options: Any) -> list[Any]:
    return first(replay_file(path, **options).pipe(ops.to_list(), ops.timeout(TIMEOUT)))


def kill_recorder_after(path: Path, threshold: int, rotate_bytes: int) -> int:
    """Kills a recorder after it prints a number; returns how many numbers it emitted."""
    command = [sys.executable, "-c", RECORDER, str(path), str(rotate_bytes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as recorder:
        assert recorder.stdout is not None
        emitted = -1
        while emitted < threshold:
            emitted = int(recorder.stdout.readline())
        recorder.send_signal(signal.SIGKILL)
        rest = recorder.stdout.read().split("\n")[:-1]  # the last line may be incomplete
    assert recorder.returncode == -signal.SIGKILL
    return (int(rest[-1]) if rest else emitted) + 1


# one file, killed before its first row group or after several ones; and quickly rotating files
@pytest.mark.parametrize(("threshold", "rotate_bytes"), [(15, 10**9), (333, 10**9), (1000, 20_000), (2011, 60_000)])
def test_a_killed_recorder_loses_unflushed_rows_only(tmp_path: Path, threshold: int, rotate_bytes: int) -> None:
    path = tmp_path / "run.parquet"
    emitted = kill_recorder_after(path, threshold, rotate_bytes)
    numbers = [item.value for item in read_back(path)]
    assert numbers == list(range(len(numbers)))
    # rows are flushed in tens, before the tenth item is emitted: at most nine emitted rows are buffered
    assert len(numbers) > emitted - 10
    recover(tmp_path)
    assert not list(tmp_path.glob("_*"))
    assert [item.value for item in read_back(path)] == numbers


def test_a_full_disk_fails_the_stream_and_keeps_written_rows(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True, timeout=TIMEOUT
    )
    assert done.stdout.startswith(f"{path}: writing failed: File too large; the last 10 rows are lost")
    assert done.stderr == ""
    assert [file.name for file in tmp_path.iterdir()] == [journal_of(path).name]
    numbers = [item.value for item in read_back(path)]
    assert len(numbers) > 50
    assert numbers == list(range(len(numbers)))


def test_a_live_monitor_is_replayed_unchanged(client: Client, tmp_path: Path) -> None:
    uris = ["pva://demo:sine10", "ca://demo:sum", "pva://demo:mode", "pva://demo:waveform"]
    live: list[PVUpdate] = first(
        client.monitor_many_stream(uris).pipe(
            record(tmp_path / "run.parquet"), ops.take(20), ops.to_list(), ops.timeout(TIMEOUT)
        )
    )
    restored = read_back(tmp_path / "run.parquet")
    assert [item.record for item in restored] == [item.record for item in live]
    assert [(item.address, item.timestamp) for item in restored] == [(item.address, item.timestamp) for item in live]
    assert [repr(item.data) for item in restored] == [repr(item.data) for item in live]


def test_a_recurring_snapshot_is_replayed_unchanged(client: Client, tmp_path: Path, fresh_app_name: str) -> None:
    properties = SnapshotProperties(
        snapshot_name=fresh_app_name,
        pv_uri_list=["pva://demo:sine10", "ca://demo:sum"],
        time_window=200,
        type=SnapshotType.NORMAL,
    )
    live: list[Snapshot] = first(
        client.snapshot_recurring_stream(properties).pipe(
            record(tmp_path / "run.parquet"), ops.take(3), ops.to_list(), ops.timeout(TIMEOUT)
        )
    )
    first(client.snapshot_stop_stream(fresh_app_name))
    assert [repr(item) for item in read_back(tmp_path / "run.parquet")] == [repr(item) for item in live]


def test_buffered_rows_are_flushed_without_new_items(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"
    subscription = rx.concat(rx.of(update("x", 1)), rx.never()).pipe(record(path, flush_every=0.05)).subscribe()
    try:
        size = journal_of(path).stat().st_size
        flushed = rx.interval(0.02).pipe(
            ops.filter(lambda _: journal_of(path).stat().st_size > size), ops.timeout(TIMEOUT)
        )
        first(flushed)
        assert [item.value for item in read_back(path)] == [1]
    finally:
        subscription.dispose()


def test_dispose_on_another_thread_during_items(tmp_path: Path) -> None:
    """The file is complete: it has all emitted items and at most one more."""
    for number in range(20):
        path = tmp_path / f"run{number}.parquet"
        source: Subject[PVUpdate] = Subject()
        seen: list[PVUpdate] = []
        enough = threading.Event()

        def handler(item: PVUpdate, seen: list[PVUpdate] = seen, enough: threading.Event = enough) -> None:
            seen.append(item)
            if len(seen) > 50:
                enough.set()

        operator = record(path, flush_rows=7, flush_every=0.001, rotate_bytes=20_000)
        subscription = source.pipe(operator).subscribe(handler)
        feeding = threading.Thread(target=feed, args=(source, enough))
        feeding.start()
        assert enough.wait(TIMEOUT)
        subscription.dispose()
        feeding.join(TIMEOUT)
        numbers = [item.value for item in read_back(path)]
        assert numbers == list(range(len(numbers)))
        assert len(seen) <= len(numbers) <= len(seen) + 1
        assert not list(tmp_path.glob("_*"))


def feed(source: Subject[PVUpdate], enough: threading.Event) -> None:
    after = iter(range(200))  # continues for a while after the other thread starts to unsubscribe
    for number in count():
        if enough.is_set() and next(after, None) is None:
            return
        source.on_next(update("x", number, offset=number))


def test_the_flushing_thread_ends_with_the_subscription(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    subscription = rx.never().pipe(record(tmp_path / "run.parquet", flush_every=0.01)).subscribe()
    (thread,) = set(threading.enumerate()) - before
    subscription.dispose()
    thread.join(TIMEOUT)
    assert not thread.is_alive()


@pytest.mark.parametrize(("module", "examples"), [("record", 8), ("replay", 11)])
def test_the_examples_of_the_documentation_work(module: str, examples: int) -> None:
    assert doctest.testmod(import_module(f"k2eg_rx.recording.{module}")) == (0, examples)
