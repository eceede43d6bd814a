"""What the files of a recording are called.

In: the name that was asked for. Out: the names that follow from it. Pure; any thread.

What is not complete begins with an underscore: readers of whole folders (pandas, pyarrow, Spark) leave it out.
"""

from __future__ import annotations

from pathlib import Path

_JOURNAL = ".journal"
_PARTIAL = ".partial"

# What a file says about itself, in its metadata
VERSION_KEY = "k2eg_recording"  # of the columns and of what is in them
ID_KEY = "k2eg_recording_id"
NUMBER_KEY = "k2eg_recording_file"  # from 1
VERSION = "1"


def numbered(path: Path, number: int) -> Path:
    """Returns the name of a recording's file: the first has the one asked for."""
    return path if number == 1 else path.with_name(f"{path.stem}-{number:04d}{path.suffix}")


def continuations(path: Path) -> list[Path]:
    """Returns the files, complete or not, whose names are those of further files of a recording."""
    later = f"{path.stem}-"
    return [file for file in files_in(path.parent, path.suffix) if file.name.startswith(later)]


def files_in(folder: Path, suffix: str = ".parquet") -> list[Path]:
    """Returns the files of recordings in a folder, sorted; of incomplete ones the names they will have."""
    complete = {file for file in folder.glob(f"*{suffix}") if not file.name.startswith("_")}
    return sorted(complete | {path_of(journal) for journal in folder.glob(f"_*{suffix}{_JOURNAL}")})


def journal_of(path: Path) -> Path:
    """Returns where the journal of a file is while it is written, or after a crash."""
    return path.with_name(f"_{path.name}{_JOURNAL}")


def partial_of(path: Path) -> Path:
    """Returns where a file is until it is complete."""
    return path.with_name(f"_{path.name}{_PARTIAL}")


def path_of(file: Path) -> Path:
    """Returns the file that a journal is of; any other is itself."""
    if file.name.startswith("_") and file.name.endswith(_JOURNAL):
        return file.with_name(file.name.removeprefix("_").removesuffix(_JOURNAL))
    return file
