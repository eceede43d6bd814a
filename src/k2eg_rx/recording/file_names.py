"""Names of the files of a recording.

Names of incomplete files begin with an underscore, since readers of whole folders (pandas, pyarrow, Spark) skip those.
"""

from __future__ import annotations

from pathlib import Path

_JOURNAL = ".journal"
_PARTIAL = ".partial"

# Keys of a file's metadata
VERSION_KEY = "k2eg_recording"  # version of the columns and their content
ID_KEY = "k2eg_recording_id"
NUMBER_KEY = "k2eg_recording_file"  # from 1
POSITIONS_KEY = "k2eg_recording_positions"  # the newest record of each PV, in this file or an earlier one
VERSION = "1"


def numbered(path: Path, number: int) -> Path:
    """Returns the name of a recording's file; file 1 has the given name."""
    return path if number == 1 else path.with_name(f"{path.stem}-{number:04d}{path.suffix}")


def continuations(path: Path) -> list[Path]:
    """Returns the files, complete or not, whose names are those of later files of a recording."""
    later = f"{path.stem}-"
    return [file for file in files_in(path.parent, path.suffix) if file.name.startswith(later)]


def files_in(folder: Path, suffix: str = ".parquet") -> list[Path]:
    """Returns the files of recordings in a folder, sorted; incomplete ones with their final names."""
    complete = {file for file in folder.glob(f"*{suffix}") if not file.name.startswith("_")}
    return sorted(complete | {path_of(journal) for journal in folder.glob(f"_*{suffix}{_JOURNAL}")})


def journal_of(path: Path) -> Path:
    """Returns the path of a file's journal, which exists while the file is written or after a crash."""
    return path.with_name(f"_{path.name}{_JOURNAL}")


def partial_of(path: Path) -> Path:
    """Returns the path of a file until it is complete."""
    return path.with_name(f"_{path.name}{_PARTIAL}")


def path_of(file: Path) -> Path:
    """Returns the file that a journal belongs to; any other file unchanged."""
    if file.name.startswith("_") and file.name.endswith(_JOURNAL):
        return file.with_name(file.name.removeprefix("_").removesuffix(_JOURNAL))
    return file
