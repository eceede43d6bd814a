"""`record` and `replay_file`: files, times and completion, in virtual time, on a real disk."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops
from reactivex.scheduler import HistoricalScheduler
from reactivex.subject import Subject

from k2eg_rx import PVData, PVUpdate
from k2eg_rx.concurrency import Runtime, use_runtime
from k2eg_rx.recording import RecordingError, arrow, record, recover, replay_file
from k2eg_rx.recording.arrow import parquet_rows
from k2eg_rx.recording.file_names import journal_of, partial_of
from k2eg_rx.recording.newest_records import NewestRecords
from k2eg_rx.recording.rows import Row
from k2eg_rx.recording.storage import OpenFile
from k2eg_rx.recording.value_codec import pack_exactly, unpack_exactly
from k2eg_rx.testing import series, snapshot, update

SECOND = 1_000_000_000


class Subscriber:
    """A subscriber that records its notifications."""

    def __init__(self, stream: Observable[Any], **options: Any) -> None:
        self.items: list[Any] = []
        self.errors: list[Exception] = []
        self.completed = False
        self.subscription = stream.subscribe(self.items.append, self.errors.append, self._complete, **options)

    def _complete(self) -> None:
        self.completed = True


def read_back(path: Any, **options: Any) -> list[Any]:
    """Returns the items of a recording."""
    clock = HistoricalScheduler()
    subscriber = Subscriber(replay_file(path, scheduler=clock, **options))
    clock.start()
    assert subscriber.errors == []
    assert subscriber.completed
    return subscriber.items


def replay_error(path: Any, **options: Any) -> Exception:
    clock = HistoricalScheduler()
    subscriber = Subscriber(replay_file(path, scheduler=clock, **options))
    clock.start()
    (error,) = subscriber.errors
    return error


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.parquet"


@pytest.fixture
def clock() -> HistoricalScheduler:
    return HistoricalScheduler(datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC))


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def names_and_records(items: list[Any]) -> list[Any]:
    return [(item.name, item.record) for item in items]


def test_items_are_emitted_and_in_the_file_after_completion(path: Path, clock: HistoricalScheduler) -> None:
    source: Subject[PVUpdate] = Subject()
    subscriber = Subscriber(source.pipe(record(path, scheduler=clock)))
    updates = series("demo:x", [1.5, "on", [1, 2, 3]])
    for each in updates:
        source.on_next(each)
    assert subscriber.items == updates
    assert names_in(path.parent) == [partial_of(path).name, journal_of(path).name][::-1]
    source.on_completed()
    assert subscriber.completed
    assert names_in(path.parent) == ["run.parquet"]
    restored = read_back(path)
    assert names_and_records(restored) == names_and_records(updates)
    assert [each.value for each in restored] == [1.5, "on", [1, 2, 3]]
    assert [each.replayed for each in restored] == [True] * 3


def test_a_file_may_have_updates_values_and_snapshots(path: Path, clock: HistoricalScheduler) -> None:
    items = [
        update("x", 1),
        PVData("y", {"value": [1, 2]}),
        snapshot("orbit", {"a": [update("a", 1), update("a", 2)], "b": None}),
        snapshot("orbit", {}, iteration=2),
    ]
    rx.from_iterable(items).pipe(record(path, scheduler=clock)).subscribe()
    first, second, third, fourth = read_back(path)
    assert names_and_records([first]) == names_and_records([items[0]])
    assert (type(second), second.name, second.data) == (PVData, "y", {"value": [1, 2]})
    assert [each["value"] for each in third.data["a"]] == [1, 2]
    assert third.data["b"] == []
    assert fourth == items[3]


def test_other_programs_read_the_file(path: Path, clock: HistoricalScheduler) -> None:
    updates = [
        update("a", 2**60 + 1, timestamp=SECOND + 1),
        update("b", "Ramping", choices=["Off", "Ramping"], severity=2),
    ]
    rx.from_iterable(updates).pipe(record(path, scheduler=clock)).subscribe()
    frame = pd.read_parquet(path.parent)
    assert str(frame["time"].dtype) == "datetime64[ns, UTC]"
    assert frame["time"][0].value == SECOND + 1
    assert list(frame["pv"]) == ["a", "b"]
    assert frame["value_int"][0] == 2**60 + 1
    assert list(frame["value"]) == [float(2**60), 1.0]
    assert frame["text"][1] == "Ramping"
    assert list(frame["severity"]) == [0, 2]


def test_an_empty_stream_creates_an_empty_file(path: Path, clock: HistoricalScheduler) -> None:
    subscriber: Subscriber = Subscriber(rx.empty().pipe(record(path, scheduler=clock)))
    assert subscriber.completed
    assert read_back(path) == []
    assert len(pd.read_parquet(path)) == 0


def test_items_before_an_error_are_in_the_file(path: Path, clock: HistoricalScheduler) -> None:
    updates = series("x", [1, 2])
    broken = rx.concat(rx.from_iterable(updates), rx.throw(OSError("gone")))
    subscriber = Subscriber(broken.pipe(record(path, scheduler=clock)))
    assert [str(error) for error in subscriber.errors] == ["gone"]
    assert names_and_records(read_back(path)) == names_and_records(updates)


def test_items_before_dispose_are_in_the_file(path: Path, clock: HistoricalScheduler) -> None:
    source: Subject[PVUpdate] = Subject()
    subscriber = Subscriber(source.pipe(record(path, scheduler=clock)))
    source.on_next(update("x", 1))
    subscriber.subscription.dispose()
    source.on_next(update("x", 2))
    subscriber.subscription.dispose()
    assert names_in(path.parent) == ["run.parquet"]
    assert [each.value for each in read_back(path)] == [1]


def test_dispose_within_on_next_completes_the_file(path: Path, clock: HistoricalScheduler) -> None:
    source: Subject[PVUpdate] = Subject()
    subscriber = Subscriber(source.pipe(record(path, scheduler=clock), ops.take(1)))
    source.on_next(update("x", 1))
    assert subscriber.completed
    assert names_in(path.parent) == ["run.parquet"]


def test_an_exception_of_the_subscriber_keeps_the_recording(path: Path, clock: HistoricalScheduler) -> None:
    source: Subject[PVUpdate] = Subject()

    def handler(item: PVUpdate) -> None:
        raise KeyError(item.name)

    subscription = source.pipe(record(path, scheduler=clock)).subscribe(handler)
    with pytest.raises(KeyError):
        source.on_next(update("x", 1))
    subscription.dispose()
    assert [each.value for each in read_back(path)] == [1]


def test_buffered_rows_are_written_after_a_second(path: Path, clock: HistoricalScheduler) -> None:
    source: Subject[PVUpdate] = Subject()
    subscriber = Subscriber(source.pipe(record(path, scheduler=clock)))
    source.on_next(update("x", 1))
    clock.advance_by(0.9)
    assert read_back(path) == []
    clock.advance_by(0.2)
    assert [each.value for each in read_back(path)] == [1]
    subscriber.subscription.dispose()


def test_a_virtual_runtime_supplies_the_clock(path: Path, clock: HistoricalScheduler) -> None:
    source: Subject[PVUpdate] = Subject()
    before = threading.active_count()
    with use_runtime(Runtime(scheduler=clock, wait=lambda done: None)):
        subscriber = Subscriber(source.pipe(record(path)))
    source.on_next(update("x", 1))
    assert threading.active_count() == before
    clock.advance_by(1.1)
    assert [each.value for each in read_back(path)] == [1]
    subscriber.subscription.dispose()


def test_buffered_rows_are_written_at_flush_rows(path: Path, clock: HistoricalScheduler) -> None:
    source: Subject[Any] = Subject()
    subscriber = Subscriber(source.pipe(record(path, flush_rows=3, scheduler=clock)))
    source.on_next(update("x", 1))
    source.on_next(update("x", 2))
    assert read_back(path) == []
    source.on_next(snapshot("s", {"a": [update("a", 1), update("a", 2)]}))
    assert [isinstance(item, PVUpdate) for item in read_back(path)] == [True, True, False]
    subscriber.subscription.dispose()


def test_large_values_are_written_at_once(path: Path, clock: HistoricalScheduler) -> None:
    source: Subject[Any] = Subject()
    subscriber = Subscriber(source.pipe(record(path, scheduler=clock)))
    source.on_next(update("x", [0.5] * 1_000_000))
    assert len(read_back(path)) == 1
    subscriber.subscription.dispose()


def test_row_groups_end_at_row_group_rows(path: Path, clock: HistoricalScheduler) -> None:
    import pyarrow.parquet

    stream = rx.from_iterable(series("x", range(25)))
    stream.pipe(record(path, row_group_rows=10, flush_rows=4, scheduler=clock)).subscribe()
    metadata = pyarrow.parquet.read_metadata(path)
    assert [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)] == [12, 12, 1]
    assert [each.value for each in read_back(path)] == list(range(25))


def test_files_rotate_by_size(path: Path, clock: HistoricalScheduler) -> None:
    updates = series("x", range(100))
    stream = rx.from_iterable(updates)
    stream.pipe(record(path, rotate_bytes=10_000, flush_rows=7, scheduler=clock)).subscribe()
    names = names_in(path.parent)
    assert len(names) > 3
    assert names[:2] == ["run-0002.parquet", "run-0003.parquet"]
    assert names[-1] == "run.parquet"
    assert all((path.parent / name).stat().st_size < 20_000 for name in names)
    assert names_and_records(read_back(path)) == names_and_records(updates)
    assert names_and_records(read_back(path.parent)) == names_and_records(updates)
    assert names_and_records(read_back([path.parent / name for name in names])) == names_and_records(updates)
    assert names_and_records(read_back([path, path.parent])) == names_and_records(updates)
    second = [each.value for each in read_back(path.parent / "run-0002.parquet")]
    assert second[0] > 0
    assert second == list(range(second[0], second[0] + len(second)))


def test_files_rotate_by_time(path: Path, clock: HistoricalScheduler) -> None:
    source: Subject[PVUpdate] = Subject()
    subscriber = Subscriber(source.pipe(record(path, rotate_every=60.0, scheduler=clock)))
    source.on_next(update("x", 1))
    clock.advance_by(59)
    assert not path.exists()
    clock.advance_by(2)
    assert path.exists()
    clock.advance_by(600)  # no items: no file is opened
    assert names_in(path.parent) == ["run.parquet"]
    source.on_next(update("x", 2))
    subscriber.subscription.dispose()
    assert names_in(path.parent) == ["run-0002.parquet", "run.parquet"]
    assert [each.value for each in read_back(path)] == [1, 2]


def test_rotation_skips_existing_names(path: Path, clock: HistoricalScheduler) -> None:
    existing = path.parent / "run-0002.parquet"
    existing.write_bytes(b"other")
    rx.from_iterable(series("x", range(100))).pipe(record(path, rotate_bytes=30_000, scheduler=clock)).subscribe()
    assert existing.read_bytes() == b"other"
    assert (path.parent / "run-0003.parquet").exists()
    assert [each.value for each in read_back(path)] == list(range(100))


def test_a_file_is_never_overwritten(path: Path, clock: HistoricalScheduler) -> None:
    operator = record(path, scheduler=clock)
    rx.of(update("x", 1)).pipe(operator).subscribe()
    with pytest.raises(ValueError, match=r"must not exist, got .*run\.parquet"):
        record(path)
    subscriber = Subscriber(rx.of(update("x", 2)).pipe(operator))
    assert [str(error) for error in subscriber.errors] == [
        f"{path}: file exists and is not overwritten: choose another name"
    ]
    assert [each.value for each in read_back(path)] == [1]


def test_a_file_created_during_the_recording_is_not_overwritten(path: Path, clock: HistoricalScheduler) -> None:
    source: Subject[PVUpdate] = Subject()
    subscriber = Subscriber(source.pipe(record(path, scheduler=clock)))
    source.on_next(update("x", 1))
    path.write_bytes(b"other")
    source.on_completed()
    assert path.read_bytes() == b"other"
    (error,) = subscriber.errors
    assert isinstance(error, RecordingError)
    assert "file exists meanwhile" in str(error)
    path.unlink()
    assert [each.value for each in read_back(path)] == [1]


def test_a_file_has_one_recorder_at_a_time(path: Path, clock: HistoricalScheduler) -> None:
    operator = record(path, scheduler=clock)
    first: Subscriber = Subscriber(rx.never().pipe(operator))
    second: Subscriber = Subscriber(rx.never().pipe(operator))
    assert first.errors == []
    assert "file is being recorded" in str(second.errors[0])
    with pytest.raises(ValueError, match="must not be in use"):
        record(path)
    with pytest.raises(RecordingError, match="file is being recorded"):
        recover(path)
    first.subscription.dispose()
    assert names_in(path.parent) == ["run.parquet"]


def test_a_missing_folder_fails_the_stream(tmp_path: Path, clock: HistoricalScheduler) -> None:
    path = tmp_path / "missing" / "run.parquet"
    subscriber: Subscriber = Subscriber(rx.of(update("x", 1)).pipe(record(path, scheduler=clock)))
    assert subscriber.items == []
    (error,) = subscriber.errors
    assert isinstance(error, RecordingError)
    assert str(error) == f"{path}: writing failed: No such file or directory"


def test_a_partial_file_that_cannot_be_opened_fails_the_stream(path: Path, clock: HistoricalScheduler) -> None:
    partial_of(path).mkdir()
    subscriber: Subscriber = Subscriber(rx.never().pipe(record(path, scheduler=clock)))
    assert "Is a directory" in str(subscriber.errors[0])
    assert names_in(path.parent) == [partial_of(path).name]


def test_data_is_synchronized_before_items_are_emitted(
    path: Path, clock: HistoricalScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def traced(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            calls.append(name)
            return original(*args)

        return call

    for name in ("write", "fdatasync", "fsync", "link"):
        monkeypatch.setattr(os, name, traced(name, getattr(os, name)))
    monkeypatch.setattr(Path, "unlink", traced("unlink", Path.unlink))
    source: Subject[PVUpdate] = Subject()
    source.pipe(record(path, flush_rows=1, scheduler=clock)).subscribe(lambda _: calls.append("emitted"))
    assert calls == ["write", "fdatasync", "fsync"]  # the journal's header, and its folder entry
    calls.clear()
    source.on_next(update("x", 1))
    assert calls == ["write", "fdatasync", "emitted"]
    calls.clear()
    source.on_completed()
    # first the file and its folder entry, then the removal of the journal
    assert calls == ["fsync", "link", "unlink", "fsync", "unlink", "fsync"]


class FullDisk:
    """Replaces `os.write`; while `full`, long writes are cut to ten bytes and others fail with ENOSPC."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, file: int, content: bytes) -> int:
        if not self.full:
            return self._write(file, content)
        if len(content) > 10:
            return self._write(file, content[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_fails_the_stream_and_keeps_written_rows(
    path: Path, clock: HistoricalScheduler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FullDisk(monkeypatch)
    source: Subject[PVUpdate] = Subject()
    subscriber = Subscriber(source.pipe(record(path, flush_rows=2, scheduler=clock)))
    source.on_next(update("x", 1))
    source.on_next(update("x", 2))
    disk.full = True
    source.on_next(update("x", 3))
    source.on_next(update("x", 4))
    assert [each.value for each in subscriber.items] == [1, 2, 3]
    (error,) = subscriber.errors
    assert str(error) == (
        f"{path}: writing failed: No space left on device; the last 2 rows are lost; rows recorded before are in "
        f"{journal_of(path)}: replay_file reads it, recover turns it into a Parquet file"
    )
    source.on_next(update("x", 5))
    assert len(subscriber.items) == 3
    disk.full = False
    assert [each.value for each in read_back(path)] == [1, 2]
    assert "incomplete batch" not in caplog.text  # the journal is truncated
    assert recover(path) == [path]
    assert [each.value for each in read_back(path)] == [1, 2]
    assert names_in(path.parent) == ["run.parquet"]


def test_a_full_disk_fails_the_stream_at_a_timed_flush(
    path: Path, clock: HistoricalScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch)
    source: Subject[PVUpdate] = Subject()
    subscriber = Subscriber(source.pipe(record(path, scheduler=clock)))
    source.on_next(update("x", 1))
    disk.full = True
    clock.advance_by(2)
    assert "No space left on device" in str(subscriber.errors[0])
    assert not source.observers


def test_a_full_disk_without_on_error_is_logged(
    path: Path, clock: HistoricalScheduler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FullDisk(monkeypatch)
    source: Subject[PVUpdate] = Subject()
    source.pipe(record(path, scheduler=clock)).subscribe()
    source.on_next(update("x", 1))
    disk.full = True
    clock.advance_by(2)
    assert "its subscriber has no on_error" in caplog.text


def test_a_source_that_raises_at_subscription_completes_the_file(path: Path, clock: HistoricalScheduler) -> None:
    def fail(*_: Any) -> Any:
        raise KeyError("failed")

    with pytest.raises(KeyError):
        rx.create(fail).pipe(record(path, scheduler=clock)).subscribe()
    assert names_in(path.parent) == ["run.parquet"]


def test_a_failure_during_on_next_is_emitted_after_it(
    path: Path, clock: HistoricalScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch)
    source: Subject[PVUpdate] = Subject()
    calls: list[str] = []

    def handler(item: PVUpdate) -> None:
        disk.full = True
        clock.advance_by(2)
        calls.append("handled")

    source.pipe(record(path, scheduler=clock)).subscribe(handler, lambda error: calls.append(type(error).__name__))
    source.on_next(update("x", 1))
    assert calls == ["handled", "RecordingError"]


def test_a_failed_commit_fails_the_stream(
    path: Path, clock: HistoricalScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit(self: OpenFile, newest: NewestRecords) -> None:
        raise RecordingError(self.path, "no")

    monkeypatch.setattr(OpenFile, "commit", commit)
    source: Subject[PVUpdate] = Subject()
    subscriber = Subscriber(source.pipe(record(path, scheduler=clock)))
    source.on_next(update("x", 1))
    source.on_completed()
    assert not subscriber.completed
    assert [type(error) for error in subscriber.errors] == [RecordingError]
    assert [each.value for each in read_back(path)] == [1]


def test_the_sources_error_precedes_the_recorders(
    path: Path, clock: HistoricalScheduler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def commit(self: OpenFile, newest: NewestRecords) -> None:
        raise RecordingError(self.path, "full")

    monkeypatch.setattr(OpenFile, "commit", commit)
    subscriber: Subscriber = Subscriber(rx.throw(KeyError("source")).pipe(record(path, scheduler=clock)))
    assert [type(error) for error in subscriber.errors] == [KeyError]
    assert "full" in subscriber.errors[0].__notes__[0]
    other: Subscriber = Subscriber(rx.never().pipe(record(path.with_name("other.parquet"), scheduler=clock)))
    other.subscription.dispose()
    assert "other.parquet: full" in caplog.text


def test_an_unrecordable_item_fails_the_stream_and_keeps_the_file(path: Path, clock: HistoricalScheduler) -> None:
    source: Subject[Any] = Subject()
    subscriber = Subscriber(source.pipe(record(path, scheduler=clock)))
    source.on_next(update("x", 1))
    source.on_next(2.5)
    assert "got float" in str(subscriber.errors[0])
    assert [each.value for each in read_back(path)] == [1]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"rotate_bytes": 0}, "rotate_bytes"),
        ({"rotate_bytes": 1.5}, "rotate_bytes"),
        ({"rotate_every": -1}, "rotate_every"),
        ({"row_group_rows": True}, "row_group_rows"),
        ({"flush_rows": 0}, "flush_rows"),
        ({"flush_every": 0}, "flush_every"),
    ],
)
def test_invalid_options_are_rejected_by_the_call(path: Path, options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        record(path, **options)


def test_a_relative_path_is_resolved_at_the_call(
    tmp_path: Path, clock: HistoricalScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    operator = record("run.parquet", scheduler=clock)
    monkeypatch.chdir(tmp_path / "elsewhere")
    rx.of(update("x", 1)).pipe(operator).subscribe()
    assert (tmp_path / "run.parquet").exists()


# --- replay ---


def recorded(path: Path, *items: Any) -> Path:
    rx.from_iterable(items).pipe(record(path, scheduler=HistoricalScheduler())).subscribe()
    return path


def test_replay_is_paced_by_time_of_publication(path: Path) -> None:
    # the first update has an old EPICS time, as the first one of a monitor may have
    recorded(path, update("a", 0, timestamp=5, arrival_ms=10**10), *series("x", [1, 2, 3], every=60.0, start=10**16))
    start_time = datetime(2026, 1, 1, tzinfo=UTC)
    clock = HistoricalScheduler(start_time)
    seen: list[tuple[float, Any]] = []
    replay_file(path, speed=60.0, scheduler=clock).subscribe(
        lambda item: seen.append(((clock.now - start_time).total_seconds(), item.value))
    )
    clock.start()
    assert seen == [(0.0, 0), (0.0, 1), (1.0, 2), (2.0, 3)]


def test_each_subscription_replays_from_the_start(path: Path) -> None:
    clock = HistoricalScheduler()
    stream = replay_file(recorded(path, *series("x", [1, 2])), scheduler=clock)
    first, second = Subscriber(stream), Subscriber(stream)
    clock.start()
    assert [each.value for each in first.items] == [each.value for each in second.items] == [1, 2]


def test_pvs_selects_the_pvs_of_a_replay(path: Path) -> None:
    recorded(
        path,
        update("a", 1),
        update("b", 2),
        snapshot("s", {"a": 3, "b": 4}),
        snapshot("s", {"b": 5}),
        PVData("a", {"value": 6}),
    )
    first, second, third = read_back(path, pvs=["pva://a"])
    assert (first.value, list(second.data), third.value) == (1, ["a"], 6)


def test_start_and_stop_select_an_interval(path: Path) -> None:
    recorded(path, *series("x", range(10), start=1000 * SECOND))
    values = [each.value for each in read_back(path, start=1002 * SECOND, stop=1005 * SECOND)]
    assert values == [2, 3, 4]
    from_seven = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=1007)
    assert [each.value for each in read_back(path, start=from_seven)] == [7, 8, 9]


def test_several_recordings_are_merged_by_time(tmp_path: Path) -> None:
    even = recorded(tmp_path / "even.parquet", *series("e", [0, 2, 4], every=2.0))
    odd = recorded(tmp_path / "odd.parquet", *series("o", [1, 3], every=2.0, start=update("x").timestamp or 0 + SECOND))
    assert sorted(each.value for each in read_back([odd, even])) == [0, 1, 2, 3, 4]
    assert [each.value for each in read_back([even, odd])] == [0, 1, 2, 3, 4]
    assert [each.value for each in read_back(tmp_path)] == [0, 1, 2, 3, 4]


def test_other_files_of_a_folder_are_ignored(tmp_path: Path) -> None:
    recorded(tmp_path / "run.parquet", update("x", 1))
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    (tmp_path / "_empty.parquet.journal").write_bytes(b"")
    recorded(tmp_path / "_ignored.parquet", update("x", 2))
    assert [each.value for each in read_back(tmp_path)] == [1]


def test_a_file_of_another_recording_with_a_similar_name_is_ignored(path: Path) -> None:
    recorded(path.parent / "run-0002.parquet", update("x", "other"))
    recorded(path, update("x", "own"))
    assert [each.value for each in read_back(path)] == ["own"]


def test_files_that_are_not_recordings_fail_the_replay(tmp_path: Path) -> None:
    other, broken, journal_only = (
        tmp_path / name for name in ("other.parquet", "broken.parquet", "journal_only.parquet")
    )
    pd.DataFrame({"a": [1]}).to_parquet(other)
    broken.write_bytes(b"PAR1")
    journal_of(journal_only).write_bytes(b"")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert str(replay_error(other)) == f"{other}: file is not a recording of k2eg"
    assert f"{broken}: file cannot be read" in str(replay_error(broken))
    assert "journal is empty" in str(replay_error(journal_only))
    assert "the folder has no recordings" in str(replay_error(empty))
    assert all(isinstance(replay_error(each), RecordingError) for each in (other, broken, journal_only, empty))


def test_a_recording_of_another_version_fails_the_replay(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k2eg_rx.recording.recorder.VERSION", "9")
    assert "version must be '1', got '9'" in str(replay_error(recorded(path, update("x", 1))))


def test_a_damaged_file_fails_the_replay_with_its_name(path: Path) -> None:
    recorded(path, *series("x", range(1000)))
    content = bytearray(path.read_bytes())
    content[100:3000] = b"\xff" * 2900
    path.write_bytes(content)
    error = replay_error(path)
    assert isinstance(error, RecordingError)
    assert f"{path}: file is damaged" in str(error)


def rewritten(path: Path, **columns: Any) -> Path:
    """Replaces columns of a recording; None removes one."""
    table: Any = pq.read_table(path)  # pyright: ignore[reportUnknownMemberType]
    for name, column in columns.items():
        index = table.schema.get_field_index(name)
        table = table.remove_column(index) if column is None else table.set_column(index, name, column)
    pq.write_table(table, path)  # pyright: ignore[reportUnknownMemberType]
    return path


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"headers": None}, "the column headers must be there once, got 0 of them"),
        ({"partition": pa.array(["x", "y"])}, "the column partition must be of type int32, got 'string'"),
        ({"pv": pa.array([1, 2])}, "the column pv must be of type string, got 'int64'"),
        ({"offset": pa.nulls(2, pa.int64())}, "row has no offset"),
        ({"published": pa.nulls(2, pa.timestamp("ns", "UTC"))}, "row has no published"),
        ({"kafka_timestamp_ms": pa.nulls(2, pa.int64())}, "row has no kafka_timestamp_ms"),
        ({"protocol": pa.array(["xx", "yy"])}, "protocol must be one of pva, ca, got 'xx'"),
        ({"headers": pa.array([pack_exactly(5)] * 2)}, "headers must be a flag and a list"),
        ({"headers": pa.array([pack_exactly([True, [[1, b"a"]]])] * 2)}, "headers must be a flag and a list"),
        ({"kind": pa.array(["value"] * 2), "body": pa.array([pack_exactly([1])] * 2, pa.large_binary())}, "a map"),
    ],
)
def test_a_crafted_file_fails_the_replay_with_its_name(path: Path, columns: dict[str, Any], reason: str) -> None:
    error = replay_error(rewritten(recorded(path, *series("x", range(2))), **columns))
    assert isinstance(error, RecordingError)
    assert str(path) in str(error)
    assert reason in str(error)


@pytest.mark.parametrize("metadata", [{b"\xff": b"1"}, {b"k2eg_recording_file": b"1" * 5000}])
def test_crafted_metadata_is_no_other_error(path: Path, metadata: dict[bytes, bytes]) -> None:
    table: Any = pq.read_table(recorded(path, update("x", 1)))  # pyright: ignore[reportUnknownMemberType]
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, **metadata}), path)  # pyright: ignore[reportUnknownMemberType]
    if b"\xff" in metadata:
        assert [each.value for each in read_back(path)] == [1]
    else:
        assert "must be 1 to 9 digits" in str(replay_error(path))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"samples": [["b1", 10**12]]}, "samples of a snapshot are missing"),
        ({"samples": [["b1", -1]]}, "a number of at least 0"),
        ({"samples": "x"}, "samples of a snapshot is of the wrong type str"),
        ({"samples": [["b2", 1], ["b1", 1]]}, "not of the PV that it names"),
        ({"name": None}, "name of a snapshot is of the wrong type NoneType"),
        ({"evil": 1}, "a snapshot must have the fields"),
        ({"missing": "1"}, "missing of a snapshot is of the wrong type str"),
        ({"tags": {"shot": 5}}, "tags of a snapshot must be texts"),
    ],
)
def test_a_crafted_snapshot_fails_the_replay(path: Path, change: dict[str, Any], reason: str) -> None:
    recorded(path, snapshot("orbit", {"b1": 0.25, "b2": 0.5}))
    bodies: list[bytes] = pq.read_table(path)["body"].to_pylist()  # pyright: ignore
    bodies[0] = pack_exactly(unpack_exactly(bodies[0]) | change)
    assert reason in str(replay_error(rewritten(path, body=pa.array(bodies, pa.large_binary()))))


def test_an_empty_row_group_is_skipped(path: Path) -> None:
    table: Any = pq.read_table(recorded(path, update("x", 1)))  # pyright: ignore[reportUnknownMemberType]
    pq.write_table(table.slice(0, 0), path)  # pyright: ignore[reportUnknownMemberType]
    assert read_back(path) == []


class _Held:
    """Notes how many bytes the rows have that are read at a time."""

    def __init__(self) -> None:
        self.largest = 0

    def __call__(self, batch: Any) -> Any:
        self.largest = max(self.largest, batch.column("body").nbytes)
        return iter(())


@pytest.mark.parametrize("dictionary", [True, False])
def test_rows_that_decompress_to_much_are_read_few_at_a_time(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, dictionary: bool
) -> None:
    recorded(path, *series("x", range(500)))
    table: Any = pq.read_table(path)  # pyright: ignore[reportUnknownMemberType]
    bodies = pa.array([b"\0" * 100_000] * 500, pa.large_binary())
    table = table.set_column(table.schema.get_field_index("body"), "body", bodies)
    pq.write_table(table, path, compression="zstd", use_dictionary=dictionary, data_page_size=1)  # pyright: ignore
    assert path.stat().st_size < 1_000_000
    held = _Held()
    monkeypatch.setattr(arrow, "rows_in", held)
    monkeypatch.setattr(arrow, "_COLUMN_BYTES", 2_000_000)
    outcome = list(parquet_rows(path)) if dictionary else replay_error(path)
    if dictionary:
        assert outcome == []
        assert 0 < held.largest <= 2_100_000
    else:
        assert "file is damaged: the column body has a page of" in str(outcome)


def test_an_encoding_that_repeats_texts_without_bound_is_refused(path: Path) -> None:
    table: Any = pq.read_table(recorded(path, update("x", 1)))  # pyright: ignore[reportUnknownMemberType]
    encodings = {"body": "DELTA_BYTE_ARRAY"}
    pq.write_table(table, path, use_dictionary=False, column_encoding=encodings)  # pyright: ignore
    assert "the column body has the encoding DELTA_BYTE_ARRAY" in str(replay_error(path))


def test_damaged_bytes_are_no_other_error(path: Path) -> None:
    content = recorded(path, *series("x", range(2))).read_bytes()
    name = content.rindex(b"partition")
    for place in [name, *range(0, len(content), 41)]:
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        clock = HistoricalScheduler()
        subscriber = Subscriber(replay_file(path, scheduler=clock))
        clock.start()
        assert all(isinstance(error, RecordingError) for error in subscriber.errors)


def test_a_file_is_readable_by_its_owner_only_and_replaces_no_link(path: Path) -> None:
    victim = path.with_name("victim")
    assert recorded(path, update("x", 1)).stat().st_mode & 0o777 == 0o600
    path.unlink()
    source: Subject[PVUpdate] = Subject()
    subscriber = Subscriber(source.pipe(record(path)))
    path.symlink_to(victim)  # dangling: the name seems to be free
    source.on_completed()
    assert path.is_symlink()
    assert not victim.exists()
    assert "file exists meanwhile" in str(subscriber.errors[0])


def test_a_file_is_completed_without_hard_links(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert [each.value for each in read_back(recorded(path, update("x", 1)))] == [1]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"path": "/nowhere/run.parquet"}, "file or folder that exists"),
        ({"path": []}, "empty list"),
        ({"speed": 0}, "speed"),
        ({"pvs": "x"}, "must be a list of PVs, got 'x'"),
        ({"start": datetime(2026, 1, 1)}, "time zone"),
        ({"stop": 1.5}, "stop"),
        ({"start": 5, "stop": 5}, "after start"),
    ],
)
def test_invalid_arguments_of_replay_are_rejected(tmp_path: Path, options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        replay_file(**{"path": tmp_path, **options})


# --- recovery ---


def record_and_kill(path: Path, values: range, clock: HistoricalScheduler, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Records, and restores the files as a killed recorder leaves them; returns the journal's content."""
    source: Subject[PVUpdate] = Subject()
    subscriber = Subscriber(source.pipe(record(path, flush_rows=5, scheduler=clock)))
    for each in series("x", values):
        source.on_next(each)
    content = {file: file.read_bytes() for file in (journal_of(path), partial_of(path))}
    subscriber.subscription.dispose()
    path.unlink()
    for file, data in content.items():
        file.write_bytes(data)
    return content[journal_of(path)]


def test_a_journal_is_replayed_and_recovered_up_to_the_last_flush(
    path: Path, clock: HistoricalScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_and_kill(path, range(23), clock, monkeypatch)
    with pytest.raises(ValueError, match="with recover"):
        record(path)
    assert [each.value for each in read_back(path)] == list(range(20))
    assert [each.value for each in read_back(journal_of(path))] == list(range(20))
    assert [each.value for each in read_back(path.parent)] == list(range(20))
    assert recover(path.parent) == [path]
    assert names_in(path.parent) == ["run.parquet"]
    assert [each.value for each in read_back(path)] == list(range(20))
    assert recover(path) == []


def test_a_batch_of_a_journal_that_decompresses_to_much_is_refused(
    path: Path, clock: HistoricalScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_and_kill(path, range(2), clock, monkeypatch)
    encoder = arrow.JournalEncoder(arrow.journal_metadata(journal_of(path)))
    rows = [Row("update", 0, body=b"\0" * 2_000_000)]
    journal_of(path).write_bytes(encoder.encode(arrow.batch_of(rows)))
    monkeypatch.setattr(arrow, "_JOURNAL_BYTES", 1_000_000)
    assert "a batch of the journal takes 2,000," in str(replay_error(path))
    with pytest.raises(RecordingError, match=r"a batch of the journal takes 2,000,"):
        recover(path)
    assert journal_of(path).exists()


def test_a_truncated_journal_is_replayed_up_to_its_last_complete_batch(
    path: Path, clock: HistoricalScheduler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = record_and_kill(path, range(20), clock, monkeypatch)
    counts: set[int] = set()
    for length in range(0, len(whole), 211):
        journal_of(path).write_bytes(whole[:length])
        error = None
        try:
            values = [each.value for each in read_back(path)]
        except AssertionError:
            error = replay_error(path)
            assert "journal is empty" in str(error)
            continue
        assert values == list(range(len(values)))
        counts.add(len(values))
    assert counts == {0, 5, 10, 15}
    assert "incomplete batch" in caplog.text


def test_recovery_after_a_kill_before_the_first_flush(
    path: Path, clock: HistoricalScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_and_kill(path, range(1), clock, monkeypatch)
    assert read_back(path) == []
    assert recover(path) == [path]
    assert len(pd.read_parquet(path)) == 0


def test_recovery_after_a_kill_before_the_journals_header(path: Path) -> None:
    journal_of(path).write_bytes(b"")
    partial_of(path).write_bytes(b"PAR1")
    assert recover(path) == []
    assert names_in(path.parent) == []


def test_recovery_after_a_kill_before_the_journals_removal(path: Path) -> None:
    recorded(path, update("x", 1))
    journal_of(path).write_bytes(b"")
    assert [each.value for each in read_back(path)] == [1]
    assert recover(path) == []
    assert names_in(path.parent) == ["run.parquet"]


def test_recovery_of_a_missing_path_raises(tmp_path: Path) -> None:
    assert recover(tmp_path) == []
    with pytest.raises(ValueError, match="file or folder that exists"):
        recover(tmp_path / "run.parquet")


@pytest.mark.parametrize("name_of", [partial_of, journal_of])
def test_no_symbolic_link_is_followed(tmp_path: Path, name_of: Callable[[Path], Path]) -> None:
    victim, path = tmp_path / "victim", tmp_path / "run.parquet"
    victim.write_text("precious")
    recorder = record(path)  # before the link, which it would report for the journal
    name_of(path).symlink_to(victim)
    errors: list[Exception] = []
    rx.from_iterable(series("demo:x", [1.0])).pipe(recorder).subscribe(on_error=errors.append)
    assert victim.read_text() == "precious"
    assert all(isinstance(error, RecordingError) for error in errors)
