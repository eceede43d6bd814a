"""Puts of `dml` against the real IOC, for every kind of value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import p4p
import p4p.nt
import pandas
import pytest

from k2eg import OperationError
from k2eg.dml import dml
from k2eg.serialization import Generic, NTTable, Scalar, Vector
from k2eg_rx.embedded import EmbeddedStack

TIMEOUT = 60.0


@pytest.fixture
def k(stack: EmbeddedStack, fresh_app_name: str) -> Iterator[dml]:
    with dml("demo", fresh_app_name, settings=stack.settings(fresh_app_name)) as client:
        yield client


def test_plain_values_are_written_in_the_pvs_type(k: dml) -> None:
    values: list[tuple[str, Any, Any]] = [
        ("pva://demo:setpoint1", 4, 4.0),
        ("pva://demo:setpoint1", np.float32(0.5), 0.5),
        ("ca://demo:setpoint1", -2.5, -2.5),
        ("pva://demo:message", "hello", "hello"),
        ("ca://demo:message", "again", "again"),
        ("ca://t:lout", 7, 7),
        ("ca://t:lout", 8.0, 8),
        ("ca://t:lout", np.int64(-9), -9),
        ("ca://t:wfd", [1, 2.5], [1.0, 2.5]),
        ("ca://t:wfd", np.arange(3), [0.0, 1.0, 2.0]),
        ("ca://t:wfl", (1, -2, 3), [1, -2, 3]),
        ("ca://t:wfs", np.array([5, -6], dtype="int16"), [5, -6]),
        ("ca://t:wfst", ["a", "bb"], ["a", "bb"]),
    ]
    for uri, value, expected in values:
        assert k.put(uri, value, timeout=TIMEOUT)["error"] == 0
        assert k.get(uri, timeout=TIMEOUT)["value"] == expected, uri


@pytest.mark.parametrize("uri", ["pva://demo:mode", "ca://demo:mode"])
def test_a_label_is_that_of_the_record_as_it_is_now(k: dml, uri: str) -> None:
    try:
        k.put(uri, "Ramping", timeout=TIMEOUT)
        for field, label in (("ONST", "Ramping"), ("TWST", "Standby"), ("FRST", "Service")):
            k.put(f"ca://demo:mode.{field}", label, timeout=TIMEOUT)
        for label, index in (("Ramping", 1), ("Standby", 2), ("Service", 4)):
            k.put(uri, label, timeout=TIMEOUT)
            assert k.get(uri, timeout=TIMEOUT)["value"]["index"] == index
        with pytest.raises(
            ValueError, match="is not one of its labels: 'Off', 'Ramping', 'Standby', 'Beam', 'Service'"
        ):
            k.put(uri, "Maintenance", timeout=TIMEOUT)
    finally:
        for field, label in (("ONST", "Standby"), ("TWST", "Ramping"), ("FRST", "")):
            k.put(f"ca://demo:mode.{field}", label, timeout=TIMEOUT)


@pytest.mark.parametrize("uri", ["pva://demo:mode", "ca://demo:mode"])
def test_an_enum_accepts_label_index_and_mapping(k: dml, uri: str) -> None:
    values: list[tuple[Any, int]] = [
        ("Beam", 3),
        (1, 1),
        (np.int32(2), 2),
        ({"index": 0}, 0),
        (Generic({"index": 1}), 1),
    ]
    for value, index in values:
        k.put(uri, value, timeout=TIMEOUT)
        assert k.get(uri)["value"]["index"] == index


@pytest.mark.parametrize(
    ("uri", "value", "why"),
    [
        ("pva://demo:mode", "Warp", "enum of Off, Standby, Ramping, Beam"),
        ("pva://demo:mode", 4, "is not an index of its 4 labels"),
        ("pva://demo:setpoint1", "1.5", "double"),
        ("pva://demo:setpoint1", [1.5], "double"),
        ("pva://demo:waveform", 1.5, "array of double"),
        ("ca://t:lout", 1.5, "is not a whole number"),
        ("ca://t:lout", 2**31, "is not between"),
        ("ca://t:wfs", [40_000], "has at [0] 40000, which is not between"),
        ("pva://demo:message", 5, "string"),
        ("pva://demo:message", None, "is no value"),
        ("pva://demo:table", {"element": ["A"]}, "lacks device_name"),
        ("pva://demo:setpoint1", {"nope": 1}, "has a field 'nope'"),
    ],
)
def test_an_unsuitable_value_is_rejected_and_not_written(k: dml, uri: str, value: Any, why: str) -> None:
    before = k.get(uri)["value"]
    with pytest.raises(ValueError, match="cannot put") as caught:
        k.put(uri, value, timeout=TIMEOUT)
    assert str(caught.value).startswith(f"{uri} (")
    assert why in str(caught.value)
    if uri != "pva://demo:waveform":  # which the IOC itself writes
        assert k.get(uri)["value"] == before


def test_the_documented_table_is_written_and_read_back(k: dml) -> None:
    table = NTTable(labels=["element", "device_name", "s", "length"])
    table.set_column("element", ["SOL9000", "XC99", "YC99"])
    table.set_column("device_name", ["SOL:IN20:111", "XCOR:IN20:112", "YCOR:IN20:113"])
    table.set_column("s", [0.0, 0.0, 0.0])
    table.set_column("length", np.array([0.5, 1.0, 1.5]))
    k.put("pva://demo:table", table, timeout=TIMEOUT)
    read = k.get("pva://demo:table")
    assert read["value"] == table.to_dict()["value"]
    assert read["labels"] == ["element", "device_name", "s", "length"]


def test_a_table_accepts_a_mapping_of_columns(k: dml) -> None:
    columns = {"element": ["A"], "device_name": ["B"], "s": np.array([1]), "length": (2,)}
    k.put("pva://demo:table", columns, timeout=TIMEOUT)
    assert k.get("pva://demo:table")["value"] == {"element": ["A"], "device_name": ["B"], "s": [1.0], "length": [2.0]}


def test_values_of_pandas_and_p4p_are_written(k: dml) -> None:
    rows = [
        {"element": "A", "device_name": "B", "s": 1.0, "length": 2.0},
        {"element": "C", "device_name": "D", "s": 3.0, "length": 4.0},
    ]
    kind = p4p.nt.NTTable([("element", "s"), ("device_name", "s"), ("s", "d"), ("length", "d")])
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    for number, value in enumerate((pandas.DataFrame(rows), kind.wrap(rows), kind.unwrap(kind.wrap(rows)))):
        k.put("pva://demo:table", {name: column[:number] for name, column in columns.items()}, timeout=TIMEOUT)
        k.put("pva://demo:table", value, timeout=TIMEOUT)
        assert k.get("pva://demo:table")["value"] == columns
    values: list[tuple[str, Any, Any]] = [
        ("pva://demo:setpoint1", p4p.nt.NTScalar("d").wrap(3.5, severity=2), 3.5),
        ("ca://t:wfl", pandas.Series([1, -2]), [1, -2]),
        ("ca://t:wfd", np.array([1, 2], dtype=np.longdouble), [1.0, 2.0]),
    ]
    for uri, value, expected in values:
        k.put(uri, value, timeout=TIMEOUT)
        assert k.get(uri, timeout=TIMEOUT)["value"] == expected, uri
    with pytest.raises(ValueError, match="has no field to write"):
        k.put("pva://demo:setpoint1", p4p.Value(p4p.nt.NTScalar.buildType("d")), timeout=TIMEOUT)
    assert k.get("pva://demo:setpoint1")["value"] == 3.5


def test_serializable_values_are_sent_unchanged(k: dml) -> None:
    assert k.put("pva://demo:setpoint1", Scalar("value", 3), timeout=TIMEOUT)["error"] == 0
    assert k.put("ca://t:wfd", Vector([1, 2, 3, 4]), timeout=TIMEOUT)["error"] == 0
    assert k.get("pva://demo:setpoint1")["value"] == 3.0
    assert k.get("ca://t:wfd")["value"] == [1.0, 2.0, 3.0, 4.0]


def test_unchecked_values_are_rejected_by_the_gateway(k: dml) -> None:
    before = k.get("pva://demo:setpoint1")["value"]
    with pytest.raises(OperationError, match="put of pva://demo:setpoint1"):
        k.put("pva://demo:setpoint1", Scalar("value", "text"), timeout=TIMEOUT)
    with pytest.raises(OperationError, match="put of pva://demo:setpoint1"):
        k.put("pva://demo:setpoint1", "text", timeout=TIMEOUT, check=False)
    assert k.get("pva://demo:setpoint1")["value"] == before


def test_a_put_to_a_records_field_does_not_write_its_value(k: dml) -> None:
    before = k.get("pva://demo:setpoint1")["value"]
    k.put("ca://demo:setpoint1.HIGH", 7.5, timeout=TIMEOUT)
    assert k.get("ca://demo:setpoint1.HIGH")["value"] == 7.5
    assert k.get("pva://demo:setpoint1")["value"] == before
