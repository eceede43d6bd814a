"""Replays recordings, and recovers those of crashed programs: `replay_file`, `recover`.

Thread safety: items are emitted on a thread of the subscription or of the scheduler. Files are read a batch at a time
while items are emitted.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reactivex import Observable, abc
from reactivex import operators as ops

from k2eg_rx.arguments import file_path, items_of, pv_names
from k2eg_rx.concurrency import check_scheduler
from k2eg_rx.errors import require_extra
from k2eg_rx.history import play
from k2eg_rx.protocol import UNPACK_ERRORS, Snapshot, nanoseconds_of
from k2eg_rx.recording.assembler import Assembler
from k2eg_rx.recording.errors import RecordingError, reason_of
from k2eg_rx.recording.file_names import POSITIONS_KEY, files_in, journal_of, partial_of, path_of
from k2eg_rx.recording.newest_records import NewestRecords
from k2eg_rx.recording.rows import Recordable
from k2eg_rx.texts import shown

if TYPE_CHECKING:
    from k2eg_rx.recording.part_files import Part

_DAMAGE: tuple[type[Exception], ...] = (*UNPACK_ERRORS, KeyError, MemoryError)
_ROW_GROUP_ROWS = 50_000  # the default of `record`

Time = datetime | int


def replay_file(
    path: str | Path | Iterable[str | Path],
    *,
    speed: float | None = None,
    pvs: Iterable[str] | None = None,
    start: Time | None = None,
    stop: Time | None = None,
    scheduler: abc.SchedulerBase | None = None,
) -> Observable[Any]:
    """Returns a stream of recorded `PVUpdate`s, `PVData` and `Snapshot`s, in their order; each subscription replays it.

    Updates have the Kafka record they had, so that data, timestamp and offset are equal; they are marked as `replayed`.
    Recordings of crashed programs are replayed up to the last flush. Several recordings are merged by publication time.

    Pace, `start` and `stop` use the publication time: Kafka's timestamp of an update, the time of a snapshot, or the
    time at which the value of a get was recorded. The EPICS time of a PV's first update may be days old; it is used
    for updates without a Kafka timestamp only.

    Args:
        path: First file of a recording, which selects all its files; a folder, which selects all recordings in it; or
            several of these.
        speed: Multiple of the recorded speed: 1 for real time, 60 for an hour in a minute, None for no delays.
        pvs: PVs to replay, by name or URI, also within snapshots; snapshots without any of them are left out. None
            for all.
        start: Start time, inclusive: a datetime with time zone, or nanoseconds since the Unix epoch.
        stop: End time, exclusive.
        scheduler: Scheduler that emits the items; by default a thread of the subscription.

    Emits:
        Recorded items. Fails with `RecordingError`, which names the file, if a file is damaged or no recording.

    Raises:
        ValueError: A path does not exist, or another argument is invalid.
        ModuleNotFoundError: pyarrow is not installed; the text names the extra.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> import reactivex as rx
        >>> from reactivex import operators as ops
        >>> from k2eg_rx import first
        >>> from k2eg_rx.recording import record, replay_file
        >>> from k2eg_rx.testing import series, snapshot
        >>> with TemporaryDirectory() as folder:
        ...     orbit = rx.of(snapshot("orbit", {"bpm:1": 0.25, "bpm:2": 0.5}))
        ...     _ = orbit.pipe(record(f"{folder}/orbit.parquet")).run()
        ...     again = first(replay_file(folder, pvs=["bpm:2"]))
        >>> again.name, list(again.data), again.data["bpm:2"]["value"]
        ('orbit', ['bpm:2'], 0.5)
    """
    require_extra("recording", ["pyarrow"], "replay_file")
    given = [path] if isinstance(path, str | Path) else items_of(path, "path", "a path, or a list of paths")
    paths = [file_path(one, "path") for one in given]
    if not paths:
        raise ValueError("path must name at least one file or folder, got an empty list")
    for one in paths:
        if not one.exists() and not journal_of(path_of(one)).exists():
            raise ValueError(f"path must be a file or folder that exists, got {shown(str(one))}")
    check_scheduler(scheduler)
    wanted = None if pvs is None else frozenset(pv_names(pvs))
    begin, end = _nanoseconds(start, "start"), _nanoseconds(stop, "stop")
    if begin is not None and end is not None and end <= begin:
        raise ValueError(f"stop must be after start, got {stop} and {start}")
    selection = _Selection([one.absolute() for one in paths], wanted, begin, end)
    return play(selection, lambda entry: entry[0], speed, scheduler).pipe(ops.map(lambda entry: entry[1]))


def recover(path: str | Path) -> list[Path]:
    """Turns the journals of crashed programs into Parquet files, and returns these files.

    `replay_file` reads journals without recovery; other programs need the Parquet files.

    Args:
        path: A file that was being recorded, or a folder.

    Raises:
        ValueError: The path does not exist.
        RecordingError: The file is being recorded, or cannot be read or written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from k2eg_rx.recording import recover
        >>> with TemporaryDirectory() as folder:
        ...     recover(folder)  # the folder has no journals
        []
    """
    require_extra("recording", ["pyarrow"], "recover")
    place = file_path(path, "path").absolute()
    if not place.exists() and not journal_of(path_of(place)).exists():
        raise ValueError(f"path must be a file or folder that exists, got {shown(path)}")
    files = files_in(place) if place.is_dir() else [path_of(place)]
    return [file for file in files if journal_of(file).exists() and _recovered(file)]


def _recovered(path: Path) -> bool:
    """Recovers a file from its journal. Returns False if the file was complete, or the journal empty."""
    from k2eg_rx.recording.storage import errors_of, lock, sync_folder_of  # noqa: PLC0415 - an extra

    journal = journal_of(path)
    with errors_of(path), journal.open("rb") as file:
        if not lock(file.fileno()):
            raise RecordingError(path, "file is being recorded")
        was_complete = path.exists()  # the crash came between completion and deletion of the journal
        if not was_complete:
            _write_parquet(path, journal)
        with suppress(FileNotFoundError):
            partial_of(path).unlink()
        journal.unlink()
        sync_folder_of(path)
        return path.exists() and not was_complete


def _write_parquet(path: Path, journal: Path) -> None:
    from k2eg_rx.recording.arrow import journal_batches, journal_metadata, rows_in  # noqa: PLC0415 - an extra
    from k2eg_rx.recording.storage import ParquetPart  # noqa: PLC0415 - an extra

    try:
        metadata = journal_metadata(journal)
    except RecordingError:  # empty: the crash came before the first item
        return
    part = ParquetPart(path, metadata, _ROW_GROUP_ROWS)
    newest = NewestRecords()
    try:
        newest.add_encoded(metadata.get(POSITIONS_KEY, "[]"))
        for batch in journal_batches(journal):
            newest.add_rows(rows_in(batch))
            part.append(batch)
        part.commit(newest)
    except ValueError as error:
        part.abandon()
        raise RecordingError(journal, str(error)) from error
    except BaseException:
        part.abandon()
        raise


def _nanoseconds(time: Time | None, name: str) -> int | None:
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise ValueError(f"{name} must have a time zone such as datetime.UTC, got {time}")
        return nanoseconds_of(time)
    if time is not None and (isinstance(time, bool) or not isinstance(time, int)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"{name} must be a datetime with a time zone or integer nanoseconds, got {shown(time)}")
    return time


@dataclass(frozen=True, slots=True)
class _Selection:
    """Recorded items to replay, as pairs of publication time and item; each iteration starts anew."""

    paths: list[Path]
    pvs: frozenset[str] | None
    start: int | None
    stop: int | None

    def __iter__(self) -> Iterator[tuple[int, Recordable]]:
        from k2eg_rx.recording.part_files import recordings_in  # noqa: PLC0415 - an extra

        recordings = [self._items(parts) for parts in recordings_in(self.paths)]
        yield from heapq.merge(*recordings, key=lambda entry: entry[0])

    def _items(self, parts: list[Part]) -> Iterator[tuple[int, Recordable]]:
        for part in parts:
            for published, item in _entries(part):
                early = self.start is not None and published < self.start
                late = self.stop is not None and published >= self.stop
                if not early and not late and (selected := self._selected(item)) is not None:
                    yield published, selected

    def _selected(self, item: Recordable) -> Recordable | None:
        if self.pvs is None:
            return item
        if isinstance(item, Snapshot):
            data = {pv: samples for pv, samples in item.data.items() if pv in self.pvs}
            return replace(item, data=data) if data else None
        return item if item.name in self.pvs else None


def _entries(part: Part) -> Iterator[tuple[int, Recordable]]:
    from k2eg_rx.recording.arrow import ARROW_ERRORS  # noqa: PLC0415 - an extra

    assembler = Assembler()
    try:
        for row in part.rows():
            entry = assembler.feed(row)
            if entry is not None:
                yield entry
        assembler.end()
    except _DAMAGE + ARROW_ERRORS as error:
        raise RecordingError(part.path, f"file is damaged: {reason_of(error)}") from error
