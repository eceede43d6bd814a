"""Which files a recording has.

In: paths. Out: the parts of each recording, in their order. Any thread.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from k2eg_rx.recording.arrow import ARROW_ERRORS, about_journal, about_parquet, journal_rows, parquet_rows
from k2eg_rx.recording.errors import RecordingError, reason_of
from k2eg_rx.recording.file_names import (
    ID_KEY,
    NUMBER_KEY,
    VERSION,
    VERSION_KEY,
    continuations,
    files_in,
    journal_of,
    path_of,
)
from k2eg_rx.recording.rows import Row

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a recording, complete or not.

    Attributes:
        path: Where it is: the file, or its journal.
        recording: The recording's id.
        number: Its place in the recording, from 1.
        complete: Whether it is the finished file.
    """

    path: Path
    recording: str
    number: int
    complete: bool

    def rows(self) -> Iterator[Row]:
        """Returns its rows, of a journal those that are complete.

        Raises:
            Exception: `RecordingError`, or one of `ARROW_ERRORS`.
        """
        return parquet_rows(self.path) if self.complete else journal_rows(self.path)


def recordings_in(paths: Sequence[Path]) -> list[list[Part]]:
    """Returns the recordings that paths stand for, each as its parts in their order.

    A folder stands for all recordings in it; a recording's first file for all its files beside it; a later file for
    itself.

    Raises:
        RecordingError: A file cannot be read, is no recording, or a folder has none.
    """
    recordings: dict[str, dict[int, Part]] = {}
    for path in paths:
        for part in _parts_in(path) if path.is_dir() else _parts_at(path_of(path)):
            recordings.setdefault(part.recording, {}).setdefault(part.number, part)
    return [[parts[number] for number in sorted(parts)] for parts in recordings.values()]


def _parts_in(folder: Path) -> list[Part]:
    parts = [part for file in files_in(folder) if (part := _part_if_one(file)) is not None]
    if not parts:
        raise RecordingError(folder, "there is no recording in this folder")
    return parts


def _parts_at(path: Path) -> list[Part]:
    part = _part(path)
    if part.number > 1:
        return [part]
    others = [_part_if_one(file) for file in continuations(path)]
    return [part, *(other for other in others if other is not None and other.recording == part.recording)]


def _part_if_one(path: Path) -> Part | None:
    """Among others a file may well be none of ours, or a journal without content."""
    try:
        return _part(path)
    except RecordingError as error:
        _log.info("left out: %s", error)
        return None


def _part(path: Path) -> Part:
    journal = journal_of(path)
    complete = path.exists()
    try:
        about = about_parquet(path) if complete else about_journal(journal)
    except FileNotFoundError as error:
        raise RecordingError(path, "there is no such file") from error
    except ARROW_ERRORS as error:
        raise RecordingError(path, f"it cannot be read: {reason_of(error)}") from error
    version, recording, number = (about.get(key, "") for key in (VERSION_KEY, ID_KEY, NUMBER_KEY))
    if version != VERSION or not number.isdecimal():
        what = f"a recording of the unknown version {version!r}" if version else "no recording of k2eg"
        raise RecordingError(path, f"it is {what}")
    return Part(path if complete else journal, recording, int(number), complete)
