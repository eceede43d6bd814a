"""Goes on with a recording that has ended or crashed: `positions`, and what `record` needs.

Thread safety: functions may run on any thread; the lock of a journal keeps out other recorders.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from k2eg_rx.arguments import file_path
from k2eg_rx.errors import require_extra
from k2eg_rx.history import Positions
from k2eg_rx.recording.errors import RecordingError
from k2eg_rx.recording.file_names import journal_of, path_of
from k2eg_rx.recording.newest_records import NewestRecords
from k2eg_rx.recording.replay import recover

if TYPE_CHECKING:
    from k2eg_rx.recording.part_files import Part


@dataclass(frozen=True, slots=True)
class Resumed:
    """What a recorder needs to go on.

    Attributes:
        recording: Id of the recording; empty if there is none yet.
        number: Number of its last file.
        newest: The newest record of each PV.
    """

    recording: str = ""
    number: int = 0
    newest: NewestRecords = field(default_factory=NewestRecords)


def positions(path: str | Path) -> Positions:
    """Returns where a recording ends in Kafka, for the argument `since` of monitors.

    A PV that is not in the recording, and all PVs of one that does not exist yet, begin with the oldest update that
    Kafka keeps.

    Args:
        path: First file of the recording, as for `record`.

    Raises:
        RecordingError: A file is damaged, or no recording.
        ModuleNotFoundError: pyarrow is not installed; the text names the extra.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> import reactivex as rx
        >>> from k2eg_rx.recording import positions, record
        >>> from k2eg_rx.testing import series
        >>> with TemporaryDirectory() as folder:
        ...     updates = rx.from_iterable(series("demo:x", [1.5, 2.5]))
        ...     _ = updates.pipe(record(f"{folder}/run.parquet")).run()
        ...     positions(f"{folder}/run.parquet").next
        {('demo_x', 0): 2}
    """
    require_extra("recording", ["pyarrow"], "positions")
    return _state(_parts(file_path(path, "path").absolute())).newest.positions()


def resumed(path: Path) -> Resumed:
    """Completes what a crash left of a recording, and returns its state.

    Raises:
        RecordingError: It is being recorded, damaged, or no recording.
    """
    for part in _parts(path):
        if not part.complete or journal_of(part.path).exists():
            recover(path_of(part.path))
    if journal_of(path).exists():  # empty: the crash came before the first flush
        recover(path)
    return _state(_parts(path))


def _parts(path: Path) -> list[Part]:
    """Returns the files of a recording; none if there is no recording, or only an empty journal."""
    from k2eg_rx.recording.arrow import journal_metadata  # noqa: PLC0415 - an extra
    from k2eg_rx.recording.part_files import recordings_in  # noqa: PLC0415 - an extra

    if not path.exists():
        try:
            journal_metadata(journal_of(path))
        except (FileNotFoundError, RecordingError):
            return []
    (parts,) = recordings_in([path])
    if parts[0].number > 1:
        raise RecordingError(path, "file is a later one of its recording: name the first")
    return parts


def _state(parts: list[Part]) -> Resumed:
    newest = NewestRecords()
    for part in parts:
        try:
            newest.add_encoded(part.positions or "[]")
        except ValueError as error:
            raise RecordingError(part.path, str(error)) from error
        if not part.complete or not part.positions:  # an older version wrote none
            newest.add_rows(part.rows())
    return Resumed(parts[-1].recording, parts[-1].number, newest) if parts else Resumed()
