"""`record(..., resume=True)` and `positions`: kills, duplicates, and topics that begin anew."""

from __future__ import annotations

import doctest
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import reactivex as rx
from reactivex.scheduler import HistoricalScheduler
from reactivex.subject import Subject

import k2eg_rx.recording.resuming
from k2eg_rx import Client, PVUpdate
from k2eg_rx.history import Positions
from k2eg_rx.recording import RecordingError, arrow, positions, record, recover
from k2eg_rx.recording.file_names import POSITIONS_KEY, files_in, journal_of
from k2eg_rx.recording.newest_records import NewestRecords
from k2eg_rx.recording.rows import Row
from k2eg_rx.testing import ScriptedGateway, series, snapshot, update
from k2eg_rx.transport import Span

pytest_plugins = ["k2eg_rx.testing.fixtures"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "now" / "run.parquet"


@pytest.fixture(autouse=True)
def folder(path: Path) -> None:
    path.parent.mkdir()


def resume(path: Path, items: Any, **options: Any) -> list[Any]:
    """Records items; returns those that were passed on."""
    passed: list[Any] = []
    errors: list[Exception] = []
    clock = HistoricalScheduler()
    rx.from_iterable(items).pipe(record(path, resume=True, scheduler=clock, **options)).subscribe(
        passed.append, errors.append
    )
    assert errors == []
    return passed


def resume_and_kill(path: Path, items: Any, **options: Any) -> None:
    """Records items, and restores the files as a killed recorder leaves them."""
    source: Subject[Any] = Subject()
    operator = record(path, resume=True, scheduler=HistoricalScheduler(), **options)
    subscription = source.pipe(operator).subscribe()
    for item in items:
        source.on_next(item)
    copy = path.parent.with_name("copy")
    shutil.copytree(path.parent, copy)
    subscription.dispose()
    shutil.rmtree(path.parent)
    copy.rename(path.parent)


def recorded(path: Path) -> list[tuple[str, int]]:
    """The topics and offsets in the files, in their order, as another program reads them."""
    files = sorted(files_in(path.parent), key=lambda file: (len(file.name), file.name))
    tables = [pq.read_table(file, columns=["topic", "offset"]).to_pylist() for file in files]
    return [(row["topic"], row["offset"]) for table in tables for row in table]


def test_a_recording_goes_on_without_what_it_has(path: Path) -> None:
    updates = series("x", range(10))
    assert resume(path, updates[:4]) == updates[:4]
    assert positions(path) == Positions({("x", 0): 4})
    passed = resume(path, [*updates[2:6], snapshot("s", {"a": 1}), *series("y", [1])])
    assert [type(item).__name__ for item in passed] == ["PVUpdate", "PVUpdate", "Snapshot", "PVUpdate"]
    assert recorded(path) == [("x", n) for n in range(6)] + [(None, None), (None, None), ("y", 0)]
    assert positions(path) == Positions({("x", 0): 6, ("y", 0): 1})
    assert {file.name for file in files_in(path.parent)} == {"run.parquet", "run-0002.parquet"}
    with pytest.raises(ValueError, match="must not exist"):
        record(path)


@pytest.mark.parametrize("rotate_bytes", [None, 2_000])
def test_kills_lose_nothing_and_repeat_nothing(path: Path, rotate_bytes: int | None) -> None:
    updates = [update(pv, n, offset=n) for n in range(60) for pv in ("x", "y")]
    for kill in (0, 1, 7, 23, 40):
        start = positions(path).next
        source = [item for item in updates if item.record.offset >= start.get((item.name, 0), 0)]
        resume_and_kill(path, source[:kill], flush_rows=3, rotate_bytes=rotate_bytes)
        journals = [file for file in path.parent.iterdir() if file.name.endswith(".journal")]
        for journal in journals:
            content = journal.read_bytes()
            journal.write_bytes(content[: len(content) - 5 * (kill % 3)])  # a torn last batch
    resume(path, updates)
    assert sorted(recorded(path)) == sorted((item.record.topic, item.record.offset) for item in updates)


def test_a_kill_before_the_first_flush_leaves_nothing_to_go_on_with(path: Path) -> None:
    journal_of(path).write_bytes(b"")
    assert positions(path) == positions(path.with_name("other.parquet")) == Positions({})
    resume(path, series("x", range(2)))
    assert recorded(path) == [("x", 0), ("x", 1)]


def test_a_recording_in_progress_is_not_gone_on_with(path: Path) -> None:
    source: Subject[PVUpdate] = Subject()
    source.pipe(record(path, resume=True, scheduler=HistoricalScheduler())).subscribe()
    errors: list[Exception] = []
    rx.never().pipe(record(path, resume=True, scheduler=HistoricalScheduler())).subscribe(on_error=errors.append)
    assert "file is being recorded" in str(errors[0])
    source.on_completed()


def test_a_topic_that_was_created_again_is_recorded(path: Path) -> None:
    resume(path, [update("x", n, offset=n, arrival_ms=1000 + n) for n in range(5)])
    again = [update("x", n, offset=n, arrival_ms=2000 + n) for n in range(3)]
    assert resume(path, again) == again
    assert resume(path, again) == []
    assert positions(path) == Positions({("x", 0): 3})


def test_a_recording_of_an_older_version_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resume(path, series("x", range(3)))
    table = pq.read_table(path)
    metadata = {key: text for key, text in table.schema.metadata.items() if key != POSITIONS_KEY.encode()}
    kept = pq.read_metadata(path).metadata
    metadata |= {key: text for key, text in kept.items() if key not in (POSITIONS_KEY.encode(), b"ARROW:schema")}
    pq.write_table(table.drop_columns(["units"]).replace_schema_metadata(metadata), path)
    assert POSITIONS_KEY.encode() not in pq.read_metadata(path).metadata
    assert positions(path) == Positions({("x", 0): 3})
    assert resume(path, series("x", range(4)))[0].value == 3
    assert recorded(path) == [("x", 0), ("x", 1), ("x", 2), ("x", 3)]


def test_a_journal_without_a_later_column_is_recovered(path: Path) -> None:
    resume_and_kill(path, [update("x", 1, units="mm")], flush_rows=1)
    (batch,) = [one for one in arrow.journal_batches(journal_of(path)) if one.num_rows]
    older = batch.drop_columns(["units"]).replace_schema_metadata(dict(arrow.journal_metadata(journal_of(path))))
    with arrow._pa.ipc.new_stream(str(journal_of(path)), older.schema) as stream:  # pyright: ignore[reportPrivateUsage]
        stream.write_batch(older)
    assert recover(path) == [path]
    assert pq.read_table(path).column_names == list(Row._fields)
    assert recorded(path) == [("x", 0)]


@pytest.mark.parametrize("text", ["{", "3", "[[1]]", '[["x",0,"x",null,0]]'])
def test_damaged_positions_are_an_error_with_the_file(path: Path, text: str) -> None:
    with pytest.raises(ValueError, match="positions of the recording must be a JSON list"):
        NewestRecords().add_encoded(text)
    resume(path, series("x", [1]))
    table = pq.read_table(path)
    metadata = {**pq.read_metadata(path).metadata, POSITIONS_KEY.encode(): text.encode()}
    metadata.pop(b"ARROW:schema")
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(RecordingError, match=r"run\.parquet: positions of the recording"):
        positions(path)


def test_a_later_file_is_not_a_recording_to_go_on_with(path: Path) -> None:
    resume(path, series("x", range(2)))
    resume(path, series("x", range(4)))
    with pytest.raises(RecordingError, match="name the first"):
        positions(path.with_name("run-0002.parquet"))


def test_a_shared_topic_is_read_from_behind_the_pv_that_is_least_far() -> None:
    newest = NewestRecords()
    for pv, offset in (("x", 7), ("y", 3), ("x", 9)):
        newest.add(("shared", 0, pv), offset, 5)
    assert newest.positions() == Positions({("shared", 0): 4})
    again = NewestRecords()
    again.add_encoded(newest.encoded())
    assert again.positions() == newest.positions()
    assert json.loads(newest.encoded()) == [["shared", 0, "x", 9, 5], ["shared", 0, "y", 3, 5]]


def test_positions_lie_within_what_kafka_keeps() -> None:
    kept = {("a", 0): Span(10, 20), ("b", 0): Span(10, 20), ("c", 0): Span(0, 3), ("d", 0): Span(5, 9)}
    at = Positions({("a", 0): 15, ("b", 0): 4, ("c", 0): 8})
    assert at.within(kept) == {("a", 0): Span(15, 20), ("b", 0): Span(10, 20), ("c", 0): Span(0, 3), ("d", 0): (5, 9)}


def test_units_have_a_column(path: Path) -> None:
    resume(path, [update("x", 1, units="mm"), update("y", 1)])
    assert pq.read_table(path)["units"].to_pylist() == ["mm", None]


def test_a_monitor_goes_on_where_the_recording_ends(
    path: Path, k2eg_gateway: ScriptedGateway, k2eg_client: Client
) -> None:
    pvs = [k2eg_gateway.pv("demo:x", 0.0), k2eg_gateway.pv("demo:y", 0.0)]
    uris = ["pva://demo:x", "pva://demo:y"]
    keeper = k2eg_client.monitor_many_stream(uris).subscribe()  # the PVs change while nothing is recorded

    def change(count: int) -> None:
        for _ in range(count):
            k2eg_gateway.advance(1.0)
            for pv in pvs:
                pv.post(k2eg_gateway.clock.elapsed)

    for _ in range(4):
        change(3)
        stream = k2eg_client.monitor_many_stream(uris, since=positions(path))
        seen: list[PVUpdate] = []
        subscription = stream.pipe(record(path, resume=True, flush_rows=4, scheduler=k2eg_gateway.clock)).subscribe(
            seen.append
        )
        k2eg_gateway.clock.settle()
        change(2)
        copy = path.parent.with_name("copy")
        shutil.copytree(path.parent, copy)
        subscription.dispose()
        shutil.rmtree(path.parent)
        copy.rename(path.parent)
        assert seen
    last = k2eg_client.monitor_many_stream(uris, since=positions(path))
    subscription = last.pipe(record(path, resume=True, scheduler=k2eg_gateway.clock)).subscribe()
    k2eg_gateway.clock.settle()
    subscription.dispose()
    records = [each for topic in ("demo_x", "demo_y") for each in k2eg_gateway.broker.records(topic)]
    kept = [(each.topic, each.offset) for each in records if each.key in (b"demo:x", b"demo:y")]  # no connections
    assert len(kept) >= 40
    assert sorted(recorded(path)) == sorted(kept)
    keeper.dispose()


def test_updates_with_old_event_times_are_read_too(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> None:
    pv = k2eg_gateway.pv("demo:x", 1.5)
    k2eg_client.monitor_stream("pva://demo:x").subscribe()
    k2eg_gateway.clock.settle()
    pv.post(2.5, timestamp=-5)
    seen: list[Any] = []
    k2eg_client.monitor_stream("pva://demo:x", since=Positions({("demo_x", 0): 2})).subscribe(seen.append)
    k2eg_gateway.clock.settle()
    assert [(each.value, each.replayed) for each in seen] == [(2.5, True)]
    with pytest.raises(ValueError, match="connection must be False"):
        k2eg_client.monitor_stream("pva://demo:x", since=Positions({}), connection=True)  # type: ignore[call-overload]


def test_the_examples_of_the_documentation_work() -> None:
    assert doctest.testmod(k2eg_rx.recording.resuming).failed == 0
