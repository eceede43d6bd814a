"""Reads the page headers of a Parquet file, to know how much memory its rows take before they are decompressed.

The table of contents at a file's end may declare any size; pyarrow allocates what the headers of the pages say. They
are structs in Thrift's compact protocol.

Thread safety: functions may run on any thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

_UNCOMPRESSED, _COMPRESSED, _DATA, _DICTIONARY, _DATA_V2 = 2, 3, 5, 7, 8  # fields of a page header
_ENCODING = {_DATA: 2, _DATA_V2: 4}  # field of the encoding within a data page's header
_PREFIXED = 7  # DELTA_BYTE_ARRAY: each text repeats the start of the one before it, in memory without bound

_DEPTH = 8  # of nested structs; a page header has 3

Struct = dict[int, Any]


class _Page(NamedTuple):
    size: int  # decompressed
    is_dictionary: bool


class Reader:
    """Chooses how many rows of a file may be read at a time.

    Args:
        file: The open file.
        size: Its bytes.
        budget: Bytes that a column may take.
        most: Rows to read at a time, at most.
    """

    def __init__(self, file: BinaryIO, size: int, budget: int, most: int) -> None:
        self._file = file
        self._size = size
        self._budget = budget
        self._most = most

    def rows_at_a_time(self, row_group: Any, columns: frozenset[str]) -> int:
        """Returns the rows of a row group that fit into the budget, at least 1.

        Args:
            row_group: A `pyarrow.parquet.RowGroupMetaData`.
            columns: The columns to read.

        Raises:
            ValueError: A page is larger than the budget, or a header is damaged.
        """
        chunks = [row_group.column(index) for index in range(row_group.num_columns)]
        return min([self._most, *(self._rows_of(chunk) for chunk in chunks if chunk.path_in_schema in columns)])

    def _rows_of(self, chunk: Any) -> int:
        """Returns how many values of a column fit: none is larger than the page or dictionary that it is in."""
        dictionary = data = largest = 0
        for page in self._pages(chunk):
            if page.size > self._budget:
                raise ValueError(
                    f"the column {chunk.path_in_schema} has a page of {page.size:,} bytes, more than {self._budget:,}"
                )
            if page.is_dictionary:
                dictionary = max(dictionary, page.size)
            else:
                data += page.size
                largest = max(largest, page.size)
        value = max(dictionary, largest if data > self._budget else 0)
        return self._most if value == 0 else max(1, self._budget // value)

    def _pages(self, chunk: Any) -> Iterator[_Page]:
        start = chunk.data_page_offset
        if chunk.dictionary_page_offset:
            start = min(start, chunk.dictionary_page_offset)
        end = start + chunk.total_compressed_size
        if not 0 <= start <= end <= self._size:
            raise ValueError(f"the column {chunk.path_in_schema} is said to lie outside of the file")
        self._file.seek(start)
        while self._file.tell() < end:
            header = self._struct(_DEPTH)
            size, compressed = header.get(_UNCOMPRESSED), header.get(_COMPRESSED)
            if not isinstance(size, int) or not isinstance(compressed, int) or size < 0 or compressed < 0:
                raise ValueError(f"the column {chunk.path_in_schema} has a page without a size")
            for field, place in _ENCODING.items():
                if isinstance(data := header.get(field), dict) and data.get(place) == _PREFIXED:  # pyright: ignore[reportUnknownMemberType]
                    raise ValueError(f"the column {chunk.path_in_schema} has the encoding DELTA_BYTE_ARRAY")
            yield _Page(size, _DICTIONARY in header)
            self._skip(compressed)

    def _struct(self, depth: int) -> Struct:
        if not depth:
            raise ValueError("the header of a page is nested too deeply")
        fields: Struct = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            fields[number] = self._field(head & 0xF, depth)
        return fields

    def _field(self, kind: int, depth: int) -> object:
        match kind:
            case 1 | 2:  # true, false
                return kind == 1
            case 3:  # a byte
                return self._byte()
            case 4 | 5 | 6:  # integers of 16, 32 and 64 bits
                return self._integer()
            case 7:  # a double
                return self._skip(8)
            case 8:  # bytes
                return self._skip(self._varint())
            case 12:
                return self._struct(depth - 1)
            case _:
                raise ValueError("the header of a page is damaged")

    def _byte(self) -> int:
        read = self._file.read(1)
        if not read:
            raise ValueError("the header of a page is incomplete")
        return read[0]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > 63:
                raise ValueError("the header of a page is damaged")
        return value | byte << shift

    def _integer(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)

    def _skip(self, length: int) -> None:
        self._file.seek(min(self._file.tell() + length, self._size))
