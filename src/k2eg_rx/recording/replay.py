"""`replay_file`: recordings as the streams they were; and `recover`, for those that were cut short.

In: paths. Out: the recorded items, on the thread of `playback.play`; a file is read a batch at a time, as its items are
handed over.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reactivex import Observable, abc
from reactivex import operators as ops

from k2eg_rx.errors import require_extra
from k2eg_rx.history import play
from k2eg_rx.protocol import UNPACK_ERRORS, Snapshot
from k2eg_rx.pv import pv_name_of
from k2eg_rx.recording.errors import RecordingError, reason_of
from k2eg_rx.recording.file_names import files_in, journal_of, partial_of, path_of
from k2eg_rx.recording.rows import Assembler, Recordable

if TYPE_CHECKING:
    from k2eg_rx.recording.part_files import Part

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAMAGE: tuple[type[Exception], ...] = (*UNPACK_ERRORS, KeyError)
_ROW_GROUP_ROWS = 50_000  # as `record` has it by default

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
    """Returns the cold stream of what was recorded: the same `PVUpdate`s, `PVData` and `Snapshot`s, in their order.

    An update has the Kafka record it had, so `data`, `timestamp` and position are equal; it is marked as `replayed`.
    Recordings that were cut short are played to the last flush. Several recordings are merged by the time at which
    their items were published.

    Pace, `start` and `stop` go by that time: Kafka's time stamp of an update, the time of a snapshot, of an answer to a
    get when it was recorded. EPICS time stamps do not serve: that of a PV's first update may be days old. It is taken
    of an update that has no time stamp of Kafka's.

    Args:
        path: A recording's first file, which stands for all of them; a folder, for all recordings in it; or several.
        speed: How much faster than it was: 1 as it was, 60 an hour in a minute; None as fast as possible.
        pvs: Names or URIs of the PVs that are wanted; others are left out, of snapshots too, and so are snapshots
            without any of them. None for all.
        start: From when on, included: a datetime with a time zone, or nanoseconds since the Unix epoch.
        stop: Until when, not included.
        scheduler: Where items are handed over; a thread of the subscription's own by default.

    Raises:
        ValueError: There is no such file or folder, or another argument is wrong.
        ModuleNotFoundError: pyarrow is missing; the text says what to install.

    The stream fails with a `RecordingError` that names the file, if one is damaged or no recording.

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
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(one) for one in path]
    if not paths:
        raise ValueError("the list of paths is empty")
    for one in paths:
        if not one.exists() and not journal_of(path_of(one)).exists():
            raise ValueError(f"{one}: there is no such file or folder")
    if isinstance(pvs, str):
        raise ValueError(f"pvs is a list of names, not the one string {pvs!r}")
    wanted = None if pvs is None else frozenset(map(pv_name_of, pvs))
    tape = _Tape([one.absolute() for one in paths], wanted, _nanoseconds(start, "start"), _nanoseconds(stop, "stop"))
    if tape.start is not None and tape.stop is not None and tape.stop <= tape.start:
        raise ValueError(f"stop ({stop}) has to be after start ({start})")
    return play(tape, lambda entry: entry[0], speed, scheduler).pipe(ops.map(lambda entry: entry[1]))


def recover(path: str | Path) -> list[Path]:
    """Returns the files that it completed: Parquet files made of what recorders that were killed have left.

    `replay_file` needs no recovery; other programs do.

    Args:
        path: A file that was being recorded, or a folder.

    Raises:
        ValueError: There is no such file or folder.
        RecordingError: It is being recorded now, or cannot be read or written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from k2eg_rx.recording import recover
        >>> with TemporaryDirectory() as folder:
        ...     recover(folder)  # nothing was left behind
        []
    """
    require_extra("recording", ["pyarrow"], "recover")
    place = Path(path).absolute()
    if not place.exists() and not journal_of(path_of(place)).exists():
        raise ValueError(f"{path}: there is no such file or folder")
    files = files_in(place) if place.is_dir() else [path_of(place)]
    return [file for file in files if journal_of(file).exists() and _recovered(file)]


def _recovered(path: Path) -> bool:
    from k2eg_rx.recording.arrow import about_journal, journal_batches  # noqa: PLC0415 - an extra
    from k2eg_rx.recording.storage import ParquetPart, lock, sync_folder_of, told  # noqa: PLC0415 - an extra

    journal = journal_of(path)
    with told(path), journal.open("rb") as file:
        if not lock(file.fileno()):
            raise RecordingError(path, "it is being recorded now")
        whole = path.exists()  # killed after it was completed, before the journal was removed
        if not whole:
            try:
                about = about_journal(journal)
            except RecordingError:  # killed before anything was recorded
                pass
            else:
                part = ParquetPart(path, about, _ROW_GROUP_ROWS)
                try:
                    for batch in journal_batches(journal):
                        part.append(batch)
                    part.commit()
                except BaseException:
                    part.abandon()
                    raise
        with suppress(FileNotFoundError):
            partial_of(path).unlink()
        journal.unlink()
        sync_folder_of(path)
        return path.exists() and not whole


def _nanoseconds(time: Time | None, name: str) -> int | None:
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise ValueError(f"{name} ({time}) has no time zone; give it one, such as datetime.UTC")
        return (time - _EPOCH) // timedelta(microseconds=1) * 1000
    if time is not None and (isinstance(time, bool) or not isinstance(time, int)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"{name} is a datetime with a time zone or integer nanoseconds, not {time!r}")
    return time


@dataclass(frozen=True, slots=True)
class _Tape:
    """What is played, from the beginning each time it is iterated: pairs of when it was published, and the item."""

    paths: list[Path]
    pvs: frozenset[str] | None
    start: int | None
    stop: int | None

    def __iter__(self) -> Iterator[tuple[int, Recordable]]:
        from k2eg_rx.recording.part_files import recordings_in  # noqa: PLC0415 - an extra

        recordings = [self._of(parts) for parts in recordings_in(self.paths)]
        yield from heapq.merge(*recordings, key=lambda entry: entry[0])

    def _of(self, parts: list[Part]) -> Iterator[tuple[int, Recordable]]:
        for part in parts:
            for published, item in _entries(part):
                early = self.start is not None and published < self.start
                late = self.stop is not None and published >= self.stop
                if not early and not late and (chosen := self._chosen(item)) is not None:
                    yield published, chosen

    def _chosen(self, item: Recordable) -> Recordable | None:
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
    except _DAMAGE + ARROW_ERRORS as error:
        raise RecordingError(part.path, f"it is damaged: {reason_of(error)}") from error
