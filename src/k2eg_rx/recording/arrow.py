"""Arrow journals and Parquet files of rows; adds types to pyarrow, which has none.

Imported only where a recording is written or read, since pyarrow is an extra.

Thread safety: an encoder or writer belongs to one recorder; functions may run on any thread.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import pyarrow
import pyarrow.parquet

from k2eg_rx.recording.errors import RecordingError
from k2eg_rx.recording.journal_sizes import decompressed_size
from k2eg_rx.recording.parquet_pages import Reader
from k2eg_rx.recording.rows import ESSENTIAL, Row
from k2eg_rx.texts import get_logger, shown

_pa: Any = pyarrow
_parquet: Any = pyarrow.parquet

_log = get_logger(__name__)

ARROW_ERRORS: tuple[type[Exception], ...] = (OSError, _pa.ArrowException)

Batch: TypeAlias = Any  # a pyarrow.RecordBatch
Metadata = Mapping[str, str]  # metadata of a file

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
    "units": _pa.string(),
    "snapshot": _pa.string(),
    "iteration": _pa.int64(),
    "topic": _pa.string(),
    "partition": _pa.int32(),
    "offset": _pa.int64(),
    "key": _pa.binary(),
    "headers": _pa.binary(),
    "kafka_timestamp_ms": _pa.int64(),
    "body": _pa.large_binary(),  # large: a batch may exceed the 2 GiB of `binary`
}
_ALIKE: Mapping[Any, tuple[Any, ...]] = {  # types that other programs write in place of a type
    _pa.string(): (_pa.large_string(),),
    _pa.binary(): (_pa.large_binary(),),
    _pa.large_binary(): (_pa.binary(),),
}
_BATCH_ROWS = 1024  # rows read at a time: 1 MB of scalar events
_COLUMN_BYTES = 128 * 1024 * 1024  # memory of a column of such rows, at most; row groups are written at 32 MiB
_JOURNAL_BYTES = 512 * 1024 * 1024  # memory of a batch of a journal, at most; batches have 1 MiB and one item
_READ_BYTES = 1024 * 1024  # bytes of a column that are read from the disk at a time
_COMPRESSION = "zstd"  # 50,000 events of 551 bytes shrink to 1/12; with lz4 to 1/7, in about the same time


def _schema(metadata: Metadata) -> Any:
    return _pa.schema([(name, _TYPES[name]) for name in Row._fields], metadata=dict(metadata))


def batch_of(rows: Sequence[Row]) -> Batch:
    """Returns rows as a record batch."""
    columns = list(zip(*rows, strict=True)) or [()] * len(Row._fields)
    arrays = [_pa.array(column, type=_TYPES[name]) for name, column in zip(Row._fields, columns, strict=True)]
    return _pa.record_batch(arrays, schema=_schema({}))


def rows_in(batch: Batch) -> Iterator[Row]:
    """Returns the rows of a batch, with the essential columns only."""
    missing = [None] * batch.num_rows

    def values(name: str) -> Any:
        column = batch.column(name)
        return (column.cast(_pa.int64()) if _TYPES[name] == _TIME else column).to_pylist()

    columns = [values(name) if name in ESSENTIAL else missing for name in Row._fields]
    return map(Row._make, zip(*columns, strict=True))


class JournalEncoder:
    """Encodes batches as the bytes of a journal, an Arrow IPC stream."""

    def __init__(self, metadata: Metadata) -> None:
        self._out = io.BytesIO()
        options = _pa.ipc.IpcWriteOptions(compression=_COMPRESSION)
        self._writer: Any = _pa.ipc.new_stream(self._out, _schema(metadata), options=options)

    def encode(self, batch: Batch) -> bytes:
        """Returns the bytes to append; the first ones contain the metadata."""
        self._writer.write_batch(batch)
        encoded = self._out.getvalue()
        self._out.seek(0)
        self._out.truncate()
        return encoded


class ParquetWriter:
    """Writes a Parquet file."""

    def __init__(self, out: BinaryIO, metadata: Metadata) -> None:
        self._writer: Any = _parquet.ParquetWriter(out, _schema(metadata), compression=_COMPRESSION)

    def write(self, batches: Sequence[Batch]) -> None:
        """Writes at least one batch as one row group. Columns that the journal of an older version lacks are null."""
        table = _pa.Table.from_batches(list(batches))
        for name in Row._fields:
            if name not in table.column_names:
                table = table.append_column(name, _pa.nulls(table.num_rows, _TYPES[name]))
        table = table.select(list(Row._fields))
        self._writer.write_table(table, row_group_size=table.num_rows)

    def close(self, metadata: Metadata) -> None:
        """Writes the footer, without which the file cannot be read, with further metadata."""
        self._writer.add_key_value_metadata(dict(metadata))
        self._writer.close()

    def abandon(self) -> None:
        """Prevents further writes, also those of pyarrow's destructor."""
        self._writer.is_open = False


def _decoded(metadata: Mapping[bytes, bytes] | None) -> dict[str, str]:
    return {
        name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, value in (metadata or {}).items()
    }


def parquet_metadata(path: Path) -> Metadata:
    """Returns the metadata of a Parquet file.

    Raises:
        Exception: One of `ARROW_ERRORS`: it is no Parquet file.
    """
    return _decoded(_parquet.read_metadata(path).metadata)


def parquet_rows(path: Path) -> Iterator[Row]:
    """Yields the rows of a Parquet file, read a batch at a time.

    Raises:
        Exception: One of `ARROW_ERRORS`.
        ValueError: A column is missing or of another type, or takes too much memory.
    """
    columns = list(ESSENTIAL)
    with path.open("rb") as raw, _parquet.ParquetFile(path, buffer_size=_READ_BYTES) as file:
        _check_columns(file.schema_arrow)
        pages = Reader(raw, path.stat().st_size, _COLUMN_BYTES, _BATCH_ROWS)
        for group in range(file.num_row_groups):
            if not file.metadata.row_group(group).num_rows:
                continue  # it may have no pages
            rows = pages.rows_at_a_time(file.metadata.row_group(group), frozenset(columns))
            for batch in file.iter_batches(batch_size=rows, row_groups=[group], columns=columns):
                yield from rows_in(batch)


def _check_columns(schema: Any) -> None:
    """Checks presence and type of the columns from which items are restored.

    Raises:
        ValueError: One is missing, ambiguous or of another type.
    """
    for name in ESSENTIAL:
        found = [schema.field(index).type for index in schema.get_all_field_indices(name)]
        if len(found) != 1:
            raise ValueError(f"the column {name} must be there once, got {len(found)} of them")
        expected = _TYPES[name]
        if found[0] != expected and found[0] not in _ALIKE.get(expected, ()):
            raise ValueError(f"the column {name} must be of type {expected}, got {shown(str(found[0]))}")


def _stream(path: Path, file: BinaryIO) -> Any:
    try:
        return _pa.ipc.open_stream(file)
    except ARROW_ERRORS as error:
        raise RecordingError(path, "the journal is empty and can be deleted") from error


def journal_metadata(path: Path) -> Metadata:
    """Returns the metadata of a journal.

    Raises:
        RecordingError: The journal is empty.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return _decoded(_stream(path, file).schema.metadata)


def _check_size(messages: Any) -> None:
    """Checks the next batch of a journal before it is decompressed.

    Raises:
        ValueError: It takes too much memory.
    """
    while (message := messages.read_next_message()).type == "schema":
        pass
    if message.type != "record batch":
        raise ValueError("the journal has a dictionary, which recorders do not write")
    size = decompressed_size(message.metadata.to_pybytes(), memoryview(message.body))
    if size > _JOURNAL_BYTES:
        raise ValueError(f"a batch of the journal takes {size:,} bytes, more than {_JOURNAL_BYTES:,}")


def journal_batches(path: Path) -> Iterator[Batch]:
    """Yields a journal's complete batches. Logs and skips an incomplete one at its end.

    Raises:
        RecordingError: The journal is empty.
        OSError: It cannot be read.
        ValueError: A column is missing or of another type, or a batch takes too much memory.
    """
    with path.open("rb") as file, path.open("rb") as ahead:
        stream = _stream(path, file)
        _check_columns(stream.schema)
        messages = _pa.ipc.MessageReader.open_stream(ahead)
        while True:
            complete = file.tell()
            try:
                _check_size(messages)
                batch = stream.read_next_batch()
                batch.validate(full=True)
            except StopIteration:
                return
            except ARROW_ERRORS as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # an error of the disk; Arrow's own errors have no errno
                _log.warning("incomplete batch at the end of a journal, skipped: path=%s offset=%d", path, complete)
                return
            yield batch


def journal_rows(path: Path) -> Iterator[Row]:
    """Yields a journal's rows; see `journal_batches`."""
    for batch in journal_batches(path):
        yield from rows_in(batch)
