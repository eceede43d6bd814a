"""The recorder: items into files, one after the other, flushed and rotated in time.

In: items, and the time they come at. Out: files. Belongs to the lock of its user; knows no stream and no clock.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from pathlib import Path

from k2eg_rx.recording.arrow import batch_of
from k2eg_rx.recording.file_names import ID_KEY, NUMBER_KEY, VERSION, VERSION_KEY, journal_of, numbered
from k2eg_rx.recording.rows import Row, rows_of
from k2eg_rx.recording.storage import OpenFile

_log = logging.getLogger(__name__)

_NANOSECONDS = 1_000_000_000
_FLUSH_BYTES = 8 * 1024 * 1024  # of bodies: few waveforms are as much memory as many numbers
_ROW_BYTES = 100  # of a row besides its body, roughly


@dataclass(frozen=True, slots=True)
class Limits:
    """When what is written.

    Attributes:
        rotate_bytes: Bytes after which a new file is begun; None for never.
        rotate_every: Seconds after which a new file is begun; None for never.
        row_group_rows: Rows of a row group in the Parquet file.
        flush_rows: Rows that may wait for being written.
    """

    rotate_bytes: int | None
    rotate_every: float | None
    row_group_rows: int
    flush_rows: int


class Recorder:
    """Writes one recording.

    Args:
        path: The first file; those after it are numbered (``run.parquet``, ``run-0002.parquet``, ...). A number that
            is taken is left out.
        limits: When what is written.
        now: The time, nanoseconds since the Unix epoch.

    Raises:
        RecordingError: The first file cannot be written, or is there already.
    """

    def __init__(self, path: Path, limits: Limits, now: int) -> None:
        self._path = path
        self._limits = limits
        self._id = uuid.uuid4().hex
        self._number = 0  # of files
        self._suffix = 0  # of the last file's name
        self._began = 0
        self._rows: list[Row] = []
        self._bytes = 0
        self._file: OpenFile | None = self._next_file(now)

    def add(self, item: object, now: int) -> None:
        """Takes an item.

        Raises:
            ValueError: It cannot be recorded; those before it are not harmed.
            RecordingError: Writing failed.
        """
        rows = rows_of(item, now)
        if self._file is None:
            self._file = self._next_file(now)
        self._rows += rows
        self._bytes += sum(len(row.body or b"") + _ROW_BYTES for row in rows)
        if len(self._rows) >= self._limits.flush_rows or self._bytes >= _FLUSH_BYTES:
            self._flush(self._file)
        limit = self._limits.rotate_bytes
        if limit is not None and self._file.size + self._bytes >= limit:
            self.close()

    def tick(self, now: int) -> None:
        """Writes what waits, and ends a file that has been open for long enough.

        Raises:
            RecordingError: Writing failed.
        """
        if self._file is None:
            return
        self._flush(self._file)
        limit = self._limits.rotate_every
        if limit is not None and now - self._began >= limit * _NANOSECONDS:
            self.close()

    def close(self) -> None:
        """Writes what waits and completes the file; an item after it would begin another.

        Raises:
            RecordingError: Writing failed.
        """
        if self._file is None:
            return
        self._flush(self._file)
        self._file.commit()
        _log.info("%s is complete", self._file.path)
        self._file = None

    def abandon(self) -> str:
        """Lets go of the file after writing failed. Returns where what was recorded is, in words."""
        if self._file is None:
            return ""
        lost = f"the last {len(self._rows)} rows are lost; " if self._rows else ""
        path = self._file.path
        self._file.abandon()
        self._file, self._rows = None, []
        return (
            f"{lost}what was recorded before is in {journal_of(path)}, "
            "which replay_file reads, and of which recover makes a Parquet file"
        )

    def _flush(self, file: OpenFile) -> None:
        if self._rows:
            batch = batch_of(self._rows)
            file.save(batch)
            self._rows, self._bytes = [], 0
            file.arrange(batch)

    def _next_file(self, now: int) -> OpenFile:
        self._began = now
        self._number += 1
        about = {VERSION_KEY: VERSION, ID_KEY: self._id, NUMBER_KEY: str(self._number)}
        while True:
            self._suffix += 1
            path = numbered(self._path, self._suffix)
            if self._suffix == 1 or not (path.exists() or journal_of(path).exists()):
                return OpenFile(path, about, self._limits.row_group_rows)
