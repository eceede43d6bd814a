"""Arrow and Parquet, with types: the pyarrow package has none.

In: rows. Out: record batches, the bytes of a journal, Parquet files; and rows again. Any thread; an encoder or writer
belongs to one user. Imported only where a recording is written or read, since pyarrow is an extra.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import pyarrow
import pyarrow.parquet

from k2eg_rx.recording.errors import RecordingError
from k2eg_rx.recording.rows import ESSENTIAL, Row

_pa: Any = pyarrow
_parquet: Any = pyarrow.parquet

_log = logging.getLogger(__name__)

ARROW_ERRORS: tuple[type[Exception], ...] = (OSError, _pa.ArrowException)

Batch: TypeAlias = Any  # a pyarrow.RecordBatch
About = Mapping[str, str]  # what a file says about itself

_TIME = _pa.timestamp("ns", tz="UTC")
_TYPES: Mapping[str, Any] = {
    "kind": _pa.string(),
    "published": _TIME,
    "time": _TIME,
    "pv": _pa.string(),
    "protocol": _pa.string(),
    "value": _pa.float64(),
    "value_int": _pa.int64(),
    "text": _pa.large_string(),
    "severity": _pa.int8(),
    "status": _pa.int32(),
    "snapshot": _pa.string(),
    "iteration": _pa.int64(),
    "topic": _pa.string(),
    "partition": _pa.int32(),
    "offset": _pa.int64(),
    "key": _pa.binary(),
    "headers": _pa.binary(),
    "kafka_timestamp_ms": _pa.int64(),
    "body": _pa.large_binary(),  # a batch may have more than the 2 GiB that the short form holds
}
_BATCH_ROWS = 1024  # read at a time: 1 MB of ordinary events
_COMPRESSION = "zstd"  # 50,000 events of 551 bytes: 1/12 of their size; lz4 1/7 of it in about the same time


def _schema(about: About) -> Any:
    return _pa.schema([(name, _TYPES[name]) for name in Row._fields], metadata=dict(about))


def batch_of(rows: Sequence[Row]) -> Batch:
    """Returns rows as a record batch."""
    columns = list(zip(*rows, strict=True)) or [()] * len(Row._fields)
    arrays = [_pa.array(column, type=_TYPES[name]) for name, column in zip(Row._fields, columns, strict=True)]
    return _pa.record_batch(arrays, schema=_schema({}))


def _rows(batch: Batch) -> Iterator[Row]:
    """The rows of a batch, with the essential columns only."""
    missing = [None] * batch.num_rows

    def values(name: str) -> Any:
        column = batch.column(name)
        return (column.cast(_pa.int64()) if _TYPES[name] == _TIME else column).to_pylist()

    columns = [values(name) if name in ESSENTIAL else missing for name in Row._fields]
    return map(Row._make, zip(*columns, strict=True))


class JournalEncoder:
    """Makes the bytes of a journal: an Arrow IPC stream."""

    def __init__(self, about: About) -> None:
        self._out = io.BytesIO()
        options = _pa.ipc.IpcWriteOptions(compression=_COMPRESSION)
        self._writer: Any = _pa.ipc.new_stream(self._out, _schema(about), options=options)

    def encode(self, batch: Batch) -> bytes:
        """Returns the bytes that follow those before; the first with what the file says about itself."""
        self._writer.write_batch(batch)
        encoded = self._out.getvalue()
        self._out.seek(0)
        self._out.truncate()
        return encoded


class ParquetWriter:
    """Writes a Parquet file."""

    def __init__(self, out: BinaryIO, about: About) -> None:
        self._writer: Any = _parquet.ParquetWriter(out, _schema(about), compression=_COMPRESSION)

    def write(self, batches: Sequence[Batch]) -> None:
        """Writes batches, at least one, as one row group."""
        table = _pa.Table.from_batches(list(batches))
        self._writer.write_table(table, row_group_size=table.num_rows)

    def close(self) -> None:
        """Writes the end of the file, without which it cannot be read."""
        self._writer.close()

    def abandon(self) -> None:
        """Writes no more, also when it is deleted."""
        self._writer.is_open = False


def _told(metadata: Mapping[bytes, bytes] | None) -> dict[str, str]:
    return {name.decode(): value.decode("utf-8", "replace") for name, value in (metadata or {}).items()}


def about_parquet(path: Path) -> About:
    """Returns what a Parquet file says about itself.

    Raises:
        Exception: One of `ARROW_ERRORS`; it is none.
    """
    return _told(_parquet.read_schema(path).metadata)


def parquet_rows(path: Path) -> Iterator[Row]:
    """Returns the rows of a Parquet file, read a batch at a time.

    Raises:
        Exception: One of `ARROW_ERRORS`.
    """
    with _parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=list(ESSENTIAL)):
            yield from _rows(batch)


def _stream(path: Path, file: BinaryIO) -> Any:
    try:
        return _pa.ipc.open_stream(file)
    except ARROW_ERRORS as error:
        raise RecordingError(path, "nothing of it was written; it can be deleted") from error


def about_journal(path: Path) -> About:
    """Returns what a journal says about itself.

    Raises:
        RecordingError: Not even that was written.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return _told(_stream(path, file).schema.metadata)


def journal_batches(path: Path) -> Iterator[Batch]:
    """Returns a journal's batches up to the last one that is complete; what is torn at its end is logged, and left out.

    Raises:
        RecordingError: Nothing of it was written.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        stream = _stream(path, file)
        while True:
            complete = file.tell()
            try:
                batch = stream.read_next_batch()
                batch.validate(full=True)
            except StopIteration:
                return
            except ARROW_ERRORS as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # the disk's word; Arrow's own errors have no number
                _log.warning("%s: what follows byte %d was not written completely, and is left out", path, complete)
                return
            yield batch


def journal_rows(path: Path) -> Iterator[Row]:
    """Returns a journal's rows; see `journal_batches`."""
    for batch in journal_batches(path):
        yield from _rows(batch)
