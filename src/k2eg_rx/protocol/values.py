"""Values for a put, and their encoding as MessagePack."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any, cast, overload

from k2eg_rx.protocol.msgpack_codec import pack
from k2eg_rx.protocol.plain_values import columns, plain
from k2eg_rx.protocol.type_rules import TypeMismatch

DEFAULT_KEY = "value"  # the field that carries the value in every EPICS Normative Type


def _key_and_payload(arguments: tuple[Any, ...], named: dict[str, Any], kind: str) -> tuple[str, Any]:
    """Returns key and payload from a constructor's arguments: the payload, or both, each positional or by keyword."""
    match arguments, named:
        case [payload], {}:
            found = {"payload": payload} if "payload" not in named else {"key": payload}
        case [key, payload], {}:
            found = {"key": key, "payload": payload}
        case _:
            found = {}
    twice, unknown = found.keys() & named.keys(), named.keys() - {"key", "payload"}
    found |= named
    if twice or unknown or len(arguments) > 2 or "payload" not in found:
        raise ValueError(f"{kind} takes a payload, or a key and a payload: {kind}(42) or {kind}('value', 42)")
    key = found.get("key", DEFAULT_KEY)
    if not isinstance(key, str) or not key:
        raise ValueError(f"{kind}: key must be the name of a field, got {key!r}")
    return key, found["payload"]


def _table_arguments(arguments: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments of an `NTTable` by name: in order labels, key, payload, or, with a text first, key, labels.

    Raises:
        ValueError: An argument is unknown, is given twice, or is one too many.
    """
    names = (
        ("key", "labels", "payload") if isinstance(next(iter(arguments), None), str) else ("labels", "key", "payload")
    )
    found = dict(zip(names, arguments, strict=False))
    if len(arguments) > len(names) or found.keys() & named.keys() or named.keys() - set(names):
        raise ValueError("NTTable takes labels, key and payload, each once: NTTable(labels=['x', 'y'], payload=rows)")
    return found | named


class MessagePackSerializable:
    """A value for one field of a PV, which `put` sends without conversion.

    Attributes:
        key: The field to write; by default ``value``.
        payload: The value to write.
    """

    key: str
    payload: Any

    @overload
    def __init__(self, payload: Any, /, *, key: str = DEFAULT_KEY) -> None: ...
    @overload
    def __init__(self, key: str, payload: Any, /) -> None: ...
    @overload
    def __init__(self, key: str, /, *, payload: Any) -> None: ...
    @overload
    def __init__(self, *, payload: Any, key: str = DEFAULT_KEY) -> None: ...
    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.key, payload = _key_and_payload(arguments, named, type(self).__name__)
        self.payload = self._checked(payload)

    def _checked(self, payload: Any) -> Any:
        """Returns the payload to store. Raises ValueError if it does not fit this class."""
        return payload

    def to_dict(self) -> dict[str, Any]:
        """Returns the map that a put sends: field name to value, in Python's own types."""
        return {self.key: plain(self.payload)}

    def to_msgpack(self) -> bytes:
        """Returns the map as MessagePack.

        Raises:
            ValueError: MessagePack cannot express the payload.
        """
        try:
            return pack(self.to_dict())
        except (TypeError, OverflowError, TypeMismatch) as error:
            raise ValueError(f"{self!r} cannot be encoded as MessagePack: {error}") from error

    def to_base_64(self) -> str:
        """Returns the MessagePack as base64, the form it has in a command."""
        return base64.b64encode(self.to_msgpack()).decode("ascii")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.key!r}, {self.payload!r})"


class Scalar(MessagePackSerializable):
    """One number, string or boolean: ``Scalar(42)``, ``Scalar("value", 42)``."""


class Vector(MessagePackSerializable):
    """An array: ``Vector([1, 2, 3])``, ``Vector("value", numpy.arange(3))``."""

    def _checked(self, payload: Any) -> Any:
        if hasattr(payload, "tolist") or isinstance(payload, bytes | bytearray | list):
            return cast("Any", payload)
        if isinstance(payload, str | Mapping) or not isinstance(payload, Iterable):
            raise ValueError(f"a Vector takes a list or an array, got {payload!r}; use Scalar for a single value")
        return list(cast("Iterable[Any]", payload))

    def to_dict(self) -> dict[str, Any]:
        """Returns the map that a put sends.

        Raises:
            ValueError: The payload is an array without dimensions, which is a single value.
        """
        items = plain(self.payload)
        if not isinstance(items, list):
            raise ValueError(f"a Vector takes a list or an array, got {self.payload!r}; use Scalar for a single value")
        return {self.key: items}


class Generic(MessagePackSerializable):
    """Any value of maps, lists, strings, numbers and booleans: ``Generic("value", {"index": 2})``."""


class NTTable(MessagePackSerializable):
    """A table, by columns.

    A put writes the columns. It does not write the PV's ``labels``, which are for display.

    Attributes:
        labels: The names of the columns, in order.
        key: The field to write; by default ``value``.
        payload: The columns that are set.
    """

    @overload
    def __init__(self, labels: Iterable[str], key: str = DEFAULT_KEY, payload: Any = None) -> None: ...
    @overload
    def __init__(self, key: str, /, labels: Iterable[str], payload: Any = None) -> None: ...
    @overload
    def __init__(self, *, payload: Any, key: str = DEFAULT_KEY) -> None: ...
    def __init__(self, *arguments: Any, **named: Any) -> None:
        """Creates a table, without data or with those of a payload.

        Args:
            labels: The names of the columns; by default those of a payload of columns.
            key: The field to write. It may come first: ``NTTable("value", ["x", "y"])``.
            payload: The columns, as a map from label to list or a DataFrame; or the rows, as for `wrap`.

        Raises:
            ValueError: There are no labels, one is not a string or empty, two are equal, or the payload does not fit.
        """
        named = _table_arguments(arguments, named)
        payload = columns(named.get("payload"))
        given = cast("Mapping[str, Any]", payload) if isinstance(payload, Mapping) else dict[str, Any]()
        labels: Any = named.get("labels", list(given))
        if isinstance(labels, str):
            raise ValueError(f"labels must be a list of column names, got the string {labels!r}")
        self.labels = list(labels)
        wrong = [label for label in self.labels if not isinstance(label, str) or not label]  # pyright: ignore[reportUnnecessaryIsInstance]
        if wrong or not self.labels:
            raise ValueError(f"labels must be a list of column names, got {self.labels!r}")
        twice = sorted({label for label in self.labels if self.labels.count(label) > 1})
        if twice:
            raise ValueError(f"labels must be unique, got {', '.join(twice)} more than once")
        super().__init__(named.get("key", DEFAULT_KEY), {})
        if payload is not None:
            self.wrap(payload)

    def set_column(self, label: str, data: Any) -> NTTable:
        """Sets a column's data, and returns the table.

        Args:
            label: The column's name.
            data: A list, tuple or array; all columns must have the same length when the table is put.

        Raises:
            ValueError: There is no such column, or the data are not a list.
        """
        if label not in self.labels:
            raise ValueError(f"no column {label!r}; the columns are {', '.join(self.labels)}")
        column = plain(data)
        if not isinstance(column, list):
            raise ValueError(f"column {label!r} takes a list or an array, got {data!r}")
        self.payload[label] = column
        return self

    def wrap(self, records: Any) -> NTTable:
        """Sets all columns from rows, or several from columns, and returns the table.

        Args:
            records: The rows, each a map from label to value, or the values in the order of the labels. Or columns: a
                map from label to list, or a DataFrame.

        Raises:
            ValueError: A row has other columns than the table; the text has its number, counted from 0. Or there is no
                such column.
        """
        given = columns(records)
        if isinstance(given, Mapping):
            for label, data in cast("Mapping[str, Any]", given).items():
                self.set_column(label, data)
            return self
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise ValueError(f"a table takes a list of rows, columns by label or a DataFrame, got {given!r}")
        rows = [self._row(number, plain(record)) for number, record in enumerate(cast("Iterable[Any]", given))]
        self.payload = {label: [row[place] for row in rows] for place, label in enumerate(self.labels)}
        return self

    def _row(self, number: int, record: Any) -> list[Any]:
        if isinstance(record, dict):
            row = cast("dict[str, Any]", record)
            if row.keys() != set(self.labels):
                raise ValueError(
                    f"row {number} has {', '.join(map(str, row))}; the columns are {', '.join(self.labels)}"
                )
            return [row[label] for label in self.labels]
        if not isinstance(record, list):
            raise ValueError(f"row {number} must be a map or a sequence, got {record!r}")
        values = cast("list[Any]", record)
        if len(values) != len(self.labels):
            raise ValueError(f"row {number} has {len(values)} values for {len(self.labels)} columns")
        return values

    def to_dict(self) -> dict[str, Any]:
        """Returns the map that a put sends: all columns under the key.

        Raises:
            ValueError: A column is missing, or the columns differ in length.
        """
        columns: dict[str, list[Any]] = self.payload
        missing = [label for label in self.labels if label not in columns]
        if missing:
            raise ValueError(f"the table has no data for {', '.join(missing)}")
        lengths = {label: len(columns[label]) for label in self.labels}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns of a table must have the same length, got {lengths}")
        return {self.key: {label: list(columns[label]) for label in self.labels}}
