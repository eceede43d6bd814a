"""Writes items to the files of a recording; flushes and rotates them. Has no stream and no clock.

Thread safety: the lock of the subscription protects all state.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

from k2eg_rx.protocol import PVUpdate
from k2eg_rx.recording.arrow import batch_of
from k2eg_rx.recording.file_names import ID_KEY, NUMBER_KEY, POSITIONS_KEY, VERSION, VERSION_KEY, journal_of, numbered
from k2eg_rx.recording.resuming import Resumed
from k2eg_rx.recording.rows import Row, rows_of
from k2eg_rx.recording.storage import OpenFile
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

_NANOSECONDS = 1_000_000_000
_FLUSH_BYTES = 8 * 1024 * 1024  # bytes of rows: a few waveforms take as much memory as many numbers
_ROW_BYTES = 100  # bytes of a row without its body, roughly


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of files, row groups and memory.

    Attributes:
        rotate_bytes: Bytes of a file; None for no limit.
        rotate_every: Seconds of a file; None for no limit.
        row_group_rows: Rows of a row group in the Parquet file.
        flush_rows: Rows that may wait in memory.
    """

    rotate_bytes: int | None
    rotate_every: float | None
    row_group_rows: int
    flush_rows: int


class Recorder:
    """Writes one recording.

    Args:
        path: First file; later ones are numbered (``run.parquet``, ``run-0002.parquet``, ...), and numbers in use are
            skipped.
        limits: Limits of files, row groups and memory.
        now: Time in nanoseconds since the Unix epoch.
        resumed: Recording to go on with; None for one that must not exist.

    Raises:
        RecordingError: The first file cannot be written, or exists already.
    """

    def __init__(self, path: Path, limits: Limits, now: int, resumed: Resumed | None = None) -> None:
        self._path = path
        self._limits = limits
        self._is_resumed = resumed is not None
        resumed = resumed or Resumed()
        self._id = resumed.recording or uuid.uuid4().hex
        self._number = resumed.number  # number of the current file
        self._newest = resumed.newest
        self._suffix = 0  # number in its name
        self._opened = 0  # when it was opened
        self._rows: list[Row] = []
        self._bytes = 0
        self._file: OpenFile | None = self._next_file(now)

    def has(self, item: object) -> bool:
        """Whether an item is an update that a resumed recording has already."""
        return self._is_resumed and isinstance(item, PVUpdate) and self._newest.has(*_position(item))

    def add(self, item: object, now: int) -> None:
        """Adds an item.

        Raises:
            ValueError: It cannot be recorded; earlier items are unaffected.
            RecordingError: Writing failed.
        """
        rows = rows_of(item, now)
        if self._file is None:
            self._file = self._next_file(now)
        if isinstance(item, PVUpdate):
            self._newest.add(*_position(item))
        self._rows += rows
        self._bytes += sum(len(row.body or b"") + _ROW_BYTES for row in rows)
        if len(self._rows) >= self._limits.flush_rows or self._bytes >= _FLUSH_BYTES:
            self._flush(self._file)
        limit = self._limits.rotate_bytes
        if limit is not None and self._file.size + self._bytes >= limit:
            self.close()

    def tick(self, now: int) -> None:
        """Writes waiting rows, and completes a file that is older than the limit.

        Raises:
            RecordingError: Writing failed.
        """
        if self._file is None:
            return
        self._flush(self._file)
        limit = self._limits.rotate_every
        if limit is not None and now - self._opened >= limit * _NANOSECONDS:
            self.close()

    def close(self) -> None:
        """Writes waiting rows and completes the file; a further item opens another.

        Raises:
            RecordingError: Writing failed.
        """
        if self._file is None:
            return
        self._flush(self._file)
        self._file.commit(self._newest)
        _log.info("file complete: path=%s", self._file.path)
        self._file = None

    def abandon(self) -> str:
        """Gives up the file after a failure. Returns a text that says where the recorded rows are."""
        if self._file is None:
            return ""
        lost = f"the last {len(self._rows)} rows are lost; " if self._rows else ""
        path = self._file.path
        self._file.abandon()
        self._file, self._rows = None, []
        return (
            f"{lost}rows recorded before are in {journal_of(path)}: "
            "replay_file reads it, recover turns it into a Parquet file"
        )

    def _flush(self, file: OpenFile) -> None:
        if self._rows:
            batch = batch_of(self._rows)
            file.save(batch)
            self._rows, self._bytes = [], 0
            file.add(batch)

    def _next_file(self, now: int) -> OpenFile:
        self._opened = now
        self._number += 1
        metadata = {VERSION_KEY: VERSION, ID_KEY: self._id, NUMBER_KEY: str(self._number)}
        metadata[POSITIONS_KEY] = self._newest.encoded()
        while True:
            self._suffix += 1
            path = numbered(self._path, self._suffix)
            if self._suffix == self._number == 1 or not (path.exists() or journal_of(path).exists()):
                return OpenFile(path, metadata, self._limits.row_group_rows)


def _position(update: PVUpdate) -> tuple[tuple[str, int, str], int, int]:
    record = update.record
    return (record.topic, record.partition, update.name), record.offset, record.timestamp_ms
