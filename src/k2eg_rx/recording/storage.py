"""One file of a recording while it is written: the journal that a crash leaves readable, and the Parquet file.

In: record batches. Out: files. Belongs to the lock of its user.

Parquet has its table of contents at the end, so an unfinished file cannot be read. So each batch goes first to a
journal beside it (an Arrow IPC stream, readable up to its last complete batch), on the disk before anything else
happens. The Parquet file grows beside it under another name, in larger row groups; once it is complete and on the disk
it gets its own name, and the journal goes. Both names begin with an underscore, as what readers of whole folders skip.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from k2eg_rx.recording.arrow import ARROW_ERRORS, About, Batch, JournalEncoder, ParquetWriter, batch_of
from k2eg_rx.recording.errors import RecordingError, reason_of
from k2eg_rx.recording.file_names import journal_of, partial_of

# Of batches, before a row group is written. It bounds the memory, and is what makes reading a column worth while.
_ROW_GROUP_BYTES = 32 * 1024 * 1024


@contextmanager
def told(path: Path) -> Generator[None]:
    """Tells of what goes wrong with the file's name."""
    try:
        yield
    except ARROW_ERRORS as error:
        raise RecordingError(path, f"writing it failed: {reason_of(error)}") from error


def sync_folder_of(path: Path) -> None:
    """Puts a file's name, or that it has none any more, on the disk."""
    if os.name == "nt":  # Windows does not open folders; NTFS journals names itself
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def lock(descriptor: int) -> bool:
    """Takes the lock by which a journal shows that it is being written; returns False if somebody else has it."""
    try:
        import fcntl  # noqa: PLC0415 - Windows has none, and does not rename or delete a file that is open
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _Journal:
    """The journal. What it has taken is on the disk."""

    def __init__(self, path: Path, about: About) -> None:
        self.path = path
        self._encoder = JournalEncoder(about)
        self._length = 0
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            lock(self._file)
            self.append(batch_of([]))  # so that it says from the beginning what it is of
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
            with suppress(OSError):  # what is torn can be told from the rest even so
                os.ftruncate(self._file, self._length)
            raise
        self._length = length

    def close(self) -> None:
        os.close(self._file)


class ParquetPart:
    """A Parquet file that is not complete yet, under a name of its own."""

    def __init__(self, path: Path, about: About, row_group_rows: int) -> None:
        self._path = path
        self._partial = partial_of(path)
        self._row_group_rows = row_group_rows
        self._batches: list[Batch] = []
        self._rows = 0
        self._bytes = 0
        self._out = cast("BinaryIO", self._partial.open("wb"))
        self._writer = ParquetWriter(self._out, about)

    @property
    def size(self) -> int:
        """Bytes written and to be written, before compression of the latter."""
        return self._out.tell() + self._bytes

    def append(self, batch: Batch) -> None:
        """Takes a batch; writes a row group when there is enough for one."""
        if not batch.num_rows:
            return  # the one that a journal begins with
        self._batches.append(batch)
        self._rows += cast("int", batch.num_rows)
        self._bytes += cast("int", batch.nbytes)
        if self._rows >= self._row_group_rows or self._bytes >= _ROW_GROUP_BYTES:
            self._write()

    def commit(self) -> None:
        """Completes the file and gives it its name, on the disk for good. Never replaces another file."""
        if self._batches:
            self._write()
        self._writer.close()
        self._out.flush()
        os.fsync(self._out.fileno())
        self._out.close()
        if self._path.exists():
            raise FileExistsError(17, "there is such a file meanwhile", str(self._path))
        self._partial.rename(self._path)
        sync_folder_of(self._path)

    def abandon(self) -> None:
        """Gives the disk back what it has taken."""
        self._writer.abandon()
        with suppress(OSError):  # of a disk that is full: what was still to be written
            self._out.close()
        self._partial.unlink(missing_ok=True)

    def _write(self) -> None:
        self._writer.write(self._batches)
        self._batches, self._rows, self._bytes = [], 0, 0


class OpenFile:
    """A file of a recording that is being written.

    Args:
        path: Its name once it is complete.
        about: What it says about itself.
        row_group_rows: How many rows a row group has.

    Raises:
        RecordingError: It cannot be written, or is there already; the text says which.
    """

    def __init__(self, path: Path, about: About, row_group_rows: int) -> None:
        self.path = path
        with told(path):
            if path.exists():
                raise RecordingError(path, "it exists already, and is not overwritten")
            try:
                self._journal = _Journal(journal_of(path), about)
            except FileExistsError as error:
                raise RecordingError(path, f"it is being recorded, or was left: {journal_of(path)}") from error
            try:
                self._parquet = ParquetPart(path, about, row_group_rows)
            except BaseException:
                self._end_journal()
                raise

    @property
    def size(self) -> int:
        """Bytes of the Parquet file so far, what is not compressed yet included."""
        return self._parquet.size

    def save(self, batch: Batch) -> None:
        """Takes a batch into the journal; when this returns, it is on the disk.

        Raises:
            RecordingError: It is not.
        """
        with told(self.path):
            self._journal.append(batch)

    def arrange(self, batch: Batch) -> None:
        """Takes a batch that is saved into the Parquet file.

        Raises:
            RecordingError: The file could not be written; the journal is left.
        """
        with told(self.path):
            self._parquet.append(batch)

    def commit(self) -> None:
        """Completes the Parquet file.

        Raises:
            RecordingError: It could not be; the journal is left.
        """
        with told(self.path):
            self._parquet.commit()
            self._end_journal()

    def abandon(self) -> None:
        """Lets go of the file as a crash would: the journal is left."""
        self._parquet.abandon()
        self._journal.close()

    def _end_journal(self) -> None:
        self._journal.close()
        self._journal.path.unlink()
        sync_folder_of(self.path)
