"""One file of a recording while it is written: a journal and a Parquet file.

A Parquet file has its table of contents at the end, so an incomplete one cannot be read. Each batch is therefore first
written to a journal and synchronized to disk. The journal is an Arrow IPC stream, readable up to its last complete
batch. The Parquet file grows beside it under a temporary name, in larger row groups. Once complete and synchronized it
gets its final name, and the journal is deleted.

Thread safety: the recorder's lock protects all state.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from k2eg_rx.recording.arrow import ARROW_ERRORS, Batch, JournalEncoder, Metadata, ParquetWriter, batch_of
from k2eg_rx.recording.errors import RecordingError, reason_of
from k2eg_rx.recording.file_names import POSITIONS_KEY, journal_of, partial_of
from k2eg_rx.recording.newest_records import NewestRecords

# Bytes of batches in a row group. They wait in memory; smaller row groups make reading single columns slow.
_ROW_GROUP_BYTES = 32 * 1024 * 1024


@contextmanager
def errors_of(path: Path) -> Generator[None]:
    """Turns errors of the disk and of pyarrow into a `RecordingError` of the file."""
    try:
        yield
    except ARROW_ERRORS as error:
        raise RecordingError(path, f"writing failed: {reason_of(error)}") from error


def sync_folder_of(path: Path) -> None:
    """Synchronizes a file's creation, renaming or deletion to disk."""
    if os.name == "nt":  # Windows does not open folders; NTFS journals names itself
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def lock(descriptor: int) -> bool:
    """Takes the lock of a journal that is being written. Returns False if another process holds it."""
    try:
        import fcntl  # noqa: PLC0415 - Windows has none, and does not rename or delete a file that is open
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _create(path: Path) -> int:
    """Returns the descriptor of a new file, which only its owner may read; follows no symbolic link."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)


class _Journal:
    """The journal. Appended batches are on disk."""

    def __init__(self, path: Path, metadata: Metadata) -> None:
        self.path = path
        self._encoder = JournalEncoder(metadata)
        self._length = 0
        self._file = _create(path)
        try:
            lock(self._file)
            self.append(batch_of([]))  # writes the metadata
            sync_folder_of(path)
        except BaseException:
            self.close()
            path.unlink()
            raise

    def append(self, batch: Batch) -> None:
        rest = memoryview(self._encoder.encode(batch))
        length = self._length + len(rest)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
            getattr(os, "fdatasync", os.fsync)(self._file)  # macOS and Windows have no fdatasync
        except OSError:
            with suppress(OSError):  # readers skip an incomplete batch
                os.ftruncate(self._file, self._length)
            raise
        self._length = length

    def close(self) -> None:
        os.close(self._file)


class ParquetPart:
    """An incomplete Parquet file, under a temporary name."""

    def __init__(self, path: Path, metadata: Metadata, row_group_rows: int) -> None:
        self._path = path
        self._partial = partial_of(path)
        self._row_group_rows = row_group_rows
        self._batches: list[Batch] = []
        self._rows = 0
        self._bytes = 0
        # A leftover of a crash is replaced; "x" follows no symbolic link, which would make it overwrite another file.
        if self._partial.is_symlink() or self._partial.exists():
            self._partial.unlink()
        self._out = cast("BinaryIO", os.fdopen(_create(self._partial), "wb"))
        kept = {key: text for key, text in metadata.items() if key != POSITIONS_KEY}  # they come at the end
        self._writer = ParquetWriter(self._out, kept)

    @property
    def size(self) -> int:
        """Bytes written, plus waiting bytes before compression."""
        return self._out.tell() + self._bytes

    def append(self, batch: Batch) -> None:
        """Adds a batch; writes a row group when enough rows or bytes wait."""
        if not batch.num_rows:
            return  # the first batch of a journal is empty
        self._batches.append(batch)
        self._rows += cast("int", batch.num_rows)
        self._bytes += cast("int", batch.nbytes)
        if self._rows >= self._row_group_rows or self._bytes >= _ROW_GROUP_BYTES:
            self._write()

    def commit(self, newest: NewestRecords) -> None:
        """Completes the file, synchronizes it and gives it its final name. Never replaces another file."""
        if self._batches:
            self._write()
        self._writer.close({POSITIONS_KEY: newest.encoded()})
        self._out.flush()
        os.fsync(self._out.fileno())
        self._out.close()
        self._rename()
        sync_folder_of(self._path)

    def _rename(self) -> None:
        """Gives the file its final name; unlike renaming, a link fails if the name is taken."""
        try:
            os.link(self._partial, self._path)
        except FileExistsError as error:
            raise FileExistsError(errno.EEXIST, "file exists meanwhile", str(self._path)) from error
        except OSError:  # the file system has no hard links
            if os.path.lexists(self._path):
                raise FileExistsError(errno.EEXIST, "file exists meanwhile", str(self._path)) from None
            self._partial.rename(self._path)
        else:
            self._partial.unlink()

    def abandon(self) -> None:
        """Deletes the file."""
        self._writer.abandon()
        with suppress(OSError):  # the disk may be full
            self._out.close()
        self._partial.unlink(missing_ok=True)

    def _write(self) -> None:
        self._writer.write(self._batches)
        self._batches, self._rows, self._bytes = [], 0, 0


class OpenFile:
    """A file of a recording that is being written.

    Args:
        path: Final path.
        metadata: Metadata of the file.
        row_group_rows: Rows of a row group.

    Raises:
        RecordingError: It cannot be written, or exists already.
    """

    def __init__(self, path: Path, metadata: Metadata, row_group_rows: int) -> None:
        self.path = path
        with errors_of(path):
            if os.path.lexists(path):
                raise RecordingError(path, "file exists and is not overwritten: choose another name")
            try:
                self._journal = _Journal(journal_of(path), metadata)
            except FileExistsError as error:
                raise RecordingError(
                    path, f"file is being recorded, or a crash left its journal {journal_of(path)}"
                ) from error
            try:
                self._parquet = ParquetPart(path, metadata, row_group_rows)
            except BaseException:
                self._end_journal()
                raise

    @property
    def size(self) -> int:
        """Bytes of the Parquet file, including waiting ones before compression."""
        return self._parquet.size

    def save(self, batch: Batch) -> None:
        """Appends a batch to the journal; on return it is on disk.

        Raises:
            RecordingError: Writing failed.
        """
        with errors_of(self.path):
            self._journal.append(batch)

    def add(self, batch: Batch) -> None:
        """Adds a saved batch to the Parquet file.

        Raises:
            RecordingError: Writing failed; the journal remains.
        """
        with errors_of(self.path):
            self._parquet.append(batch)

    def commit(self, newest: NewestRecords) -> None:
        """Completes the Parquet file and deletes the journal.

        Args:
            newest: The newest records in this file and earlier ones.

        Raises:
            RecordingError: Writing failed; the journal remains.
        """
        with errors_of(self.path):
            self._parquet.commit(newest)
            self._end_journal()

    def abandon(self) -> None:
        """Deletes the Parquet file; the journal remains, as after a crash."""
        self._parquet.abandon()
        self._journal.close()

    def _end_journal(self) -> None:
        self._journal.close()
        self._journal.path.unlink()
        sync_folder_of(self.path)
