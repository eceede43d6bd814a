"""Finds the files of recordings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from k2eg_rx.recording.arrow import ARROW_ERRORS, journal_metadata, journal_rows, parquet_metadata, parquet_rows
from k2eg_rx.recording.errors import RecordingError, reason_of
from k2eg_rx.recording.file_names import (
    ID_KEY,
    NUMBER_KEY,
    POSITIONS_KEY,
    VERSION,
    VERSION_KEY,
    continuations,
    files_in,
    journal_of,
    path_of,
)
from k2eg_rx.recording.rows import Row
from k2eg_rx.texts import get_logger, shown

_log = get_logger(__name__)

_NUMBER = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a recording, complete or not.

    Attributes:
        path: Path of the file, or of its journal.
        recording: Id of the recording.
        number: Number of the file in the recording, from 1.
        complete: Whether the path is that of the complete file.
        positions: The newest records, as text; for a journal, those of earlier files.
    """

    path: Path
    recording: str
    number: int
    complete: bool
    positions: str = ""

    def rows(self) -> Iterator[Row]:
        """Yields its rows; those of a journal up to its last complete batch.

        Raises:
            Exception: `RecordingError`, or one of `ARROW_ERRORS`.
        """
        return parquet_rows(self.path) if self.complete else journal_rows(self.path)


def recordings_in(paths: Sequence[Path]) -> list[list[Part]]:
    """Returns the recordings at the given paths, each as its parts in order.

    A folder selects all recordings in it; the first file of a recording selects all its files; a later file selects
    itself.

    Raises:
        RecordingError: A file cannot be read or is no recording, or a folder has none.
    """
    recordings: dict[str, dict[int, Part]] = {}
    for path in paths:
        for part in _parts_in(path) if path.is_dir() else _parts_at(path_of(path)):
            recordings.setdefault(part.recording, {}).setdefault(part.number, part)
    return [[parts[number] for number in sorted(parts)] for parts in recordings.values()]


def _parts_in(folder: Path) -> list[Part]:
    parts = [part for file in files_in(folder) if (part := _part_if_one(file)) is not None]
    if not parts:
        raise RecordingError(folder, "the folder has no recordings")
    return parts


def _parts_at(path: Path) -> list[Part]:
    part = _part(path)
    if part.number > 1:
        return [part]
    others = [_part_if_one(file) for file in continuations(path)]
    return [part, *(other for other in others if other is not None and other.recording == part.recording)]


def _part_if_one(path: Path) -> Part | None:
    """Returns a file's part, or None if it is no recording or an empty journal, as other files of a folder may be."""
    try:
        return _part(path)
    except RecordingError as error:
        _log.info("file skipped: %s", error)
        return None


def _part(path: Path) -> Part:
    journal = journal_of(path)
    complete = path.exists()
    try:
        metadata = parquet_metadata(path) if complete else journal_metadata(journal)
    except FileNotFoundError as error:
        raise RecordingError(path, "file not found") from error
    except (*ARROW_ERRORS, ValueError) as error:  # ValueError: a name of a column is not UTF-8
        raise RecordingError(path, f"file cannot be read: {reason_of(error)}") from error
    version, recording, number = (metadata.get(key, "") for key in (VERSION_KEY, ID_KEY, NUMBER_KEY))
    if version != VERSION:
        found = (
            f"recording version must be {VERSION!r}, got {version!r}" if version else "file is not a recording of k2eg"
        )
        raise RecordingError(path, found)
    if not _NUMBER.fullmatch(number):
        raise RecordingError(path, f"number of the file in its recording must be 1 to 9 digits, got {shown(number)}")
    return Part(path if complete else journal, recording, int(number), complete, metadata.get(POSITIONS_KEY, ""))
