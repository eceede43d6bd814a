"""Values and fields of updates."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pytest
import reactivex as rx
from reactivex import Observable

from k2eg_rx.errors import K2EGError
from k2eg_rx.operators import field, fresh, pulse_ids, timestamps, valid, value
from k2eg_rx.operators.values import MissingFieldError
from k2eg_rx.protocol import numpy_module
from k2eg_rx.protocol.messages import PVData, PVUpdate
from k2eg_rx.protocol.msgpack_codec import pack
from k2eg_rx.protocol.structures import Severity, datetime_of
from k2eg_rx.testing import START, series, update


def all_of(stream: Observable[Any]) -> list[Any]:
    items: list[Any] = []
    stream.subscribe(items.append)
    return items


def error_of(stream: Observable[Any]) -> Exception:
    errors: list[Exception] = []
    stream.subscribe(on_error=errors.append)
    return errors[0]


def one(data: PVData, path: str = "value") -> Any:
    (item,) = all_of(rx.of(data).pipe(field(path)))
    return item


@pytest.fixture
def no_numpy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "numpy", None)
    numpy_module.cache_clear()
    yield
    numpy_module.cache_clear()


def test_scalars_and_strings_are_unchanged() -> None:
    assert all_of(rx.of(update("x", 1.5), update("y", "on"), update("z", True)).pipe(value())) == [1.5, "on", True]


@pytest.mark.parametrize(
    ("items", "kind"), [([1, 2], "i"), ([1.5, 2], "f"), ([True, False], "b"), ([2**64 - 1], "u"), ([], "f")]
)
def test_an_array_of_numbers_is_a_numpy_array(items: list[Any], kind: str) -> None:
    found = one(PVData("x", {"value": items}))
    assert isinstance(found, np.ndarray)
    assert found.dtype.kind == kind
    assert found.tolist() == items


@pytest.mark.parametrize("items", [["a", "b"], [1, "b"], [{"x": 1}], [1, [2]], [1, None], [2**70]])
def test_a_list_of_anything_else_stays_a_list(items: list[Any]) -> None:
    found = one(PVData("x", {"value": items}))
    assert isinstance(found, list)
    assert found == items


def test_a_table_is_a_dict_of_columns() -> None:
    table = one(PVData("t", {"value": {"element": ["a", "b"], "s": [0.5, 1.5]}}))
    assert table["element"] == ["a", "b"]
    assert isinstance(table["s"], np.ndarray)


def test_an_enum_is_a_dict() -> None:
    enum = update("mode", "Run", choices=["Stop", "Run"])
    assert one(enum) == {"index": 1, "choices": ["Stop", "Run"]}
    assert one(enum, "value.index") == 1


def image(items: list[int], *sizes: int, selected: str = "ushortValue") -> PVData:
    dimension = [{"size": size, "offset": 0, "fullSize": size, "binning": 1, "reverse": False} for size in sizes]
    return PVData("image", {"value": {selected: items}, "dimension": dimension})


def test_an_image_has_the_shape_of_its_dimensions_and_the_type_of_its_union() -> None:
    found = one(image([0, 1, 2, 3, 4, 5], 3, 2))  # three pixels wide, two high
    assert found.shape == (2, 3)
    assert found.dtype == np.uint16
    assert found[1].tolist() == [3, 4, 5]


def test_an_image_that_does_not_fill_its_dimensions_stays_flat() -> None:
    assert one(image([1, 2, 3], 2, 2)).shape == (3,)


def test_a_structure_of_one_field_is_no_union() -> None:
    assert one(PVData("t", {"value": {"doubleValue": "text"}})) == {"doubleValue": "text"}


@pytest.mark.usefixtures("no_numpy")
def test_without_numpy_arrays_are_lists() -> None:
    assert one(PVData("x", {"value": [1, 2]})) == [1, 2]
    assert one(image([1, 2, 3, 4], 2, 2)) == [1, 2, 3, 4]


def test_a_field_is_selected_by_its_path() -> None:
    data = update("x", [1.0], severity=2, units="mm")
    assert one(data, "alarm.severity") == 2
    assert one(data, "display.units") == "mm"
    assert one(data, "alarm")["severity"] == 2


@pytest.mark.parametrize(
    ("path", "said"),
    [("alarm.colour", "alarm has severity"), ("nothing", "it has value"), ("value.index", "value is no structure")],
)
def test_a_missing_field_is_an_error_with_pv_path_and_fields(path: str, said: str) -> None:
    error = error_of(rx.of(update("my:pv", 1.0)).pipe(field(path)))
    assert isinstance(error, MissingFieldError)
    assert isinstance(error, K2EGError)
    assert "my:pv" in str(error)
    assert repr(path) in str(error)
    assert said in str(error)


def test_a_pv_without_a_value_is_an_error() -> None:
    assert "it has no fields" in str(error_of(rx.of(PVData("x", {})).pipe(value())))


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b", 3, None])
def test_an_invalid_path_raises_at_the_call(path: Any) -> None:
    with pytest.raises(ValueError, match="path"):
        field(path)


def test_timestamps_are_integer_nanoseconds() -> None:
    stamps = all_of(rx.from_iterable(series("x", [1, 2], every=1e-9, start=10**18 + 1)).pipe(timestamps()))
    assert stamps == [10**18 + 1, 10**18 + 2]
    assert type(stamps[0]) is int


def test_an_update_without_timestamp_is_an_error() -> None:
    error = error_of(rx.of(update("my:pv", 1, timestamp=None)).pipe(timestamps()))
    assert "my:pv has no field 'timeStamp'" in str(error)


class TestFresh:
    @pytest.mark.parametrize(
        "after",
        [START + 1_000, update("other", 1, timestamp=START + 1_000), datetime_of(START + 1_000)],
    )
    def test_updates_pass_whose_time_is_later(self, after: Any) -> None:
        times = [START + 1_001, START + 1_000, None, START, START + 2_000]
        passed: list[int | None] = []
        updates = [update("x", 1, timestamp=time) for time in times]
        rx.from_iterable(updates).pipe(fresh(after)).subscribe(lambda item: passed.append(item.timestamp))
        assert passed == [START + 1_001, START + 2_000]

    @pytest.mark.parametrize("after", [None, True, 1.5, datetime(2026, 1, 1), update("x", 1, timestamp=None)])
    def test_other_times_raise_at_the_call(self, after: Any) -> None:
        with pytest.raises(ValueError, match="after must be an update with a time"):
            fresh(after)


def test_pulse_ids_are_the_bits_of_the_nanoseconds() -> None:
    shots = rx.of(update("x", 1, timestamp=START + (5 << 17) + 77), update("x", 2, timestamp=0), update("x", 3))
    assert all_of(shots.pipe(pulse_ids())) == [77, None, 0]
    invalid = update("x", 1, timestamp=START + 0x1FFFF)
    assert (invalid.pulse_id, update("x", 1, timestamp=START + 0x1FFFE).pulse_id) == (None, 0x1FFFE)
    without = PVUpdate(invalid.address, invalid.record._replace(value=pack({"x": {"value": 1}})))
    assert isinstance(error_of(rx.of(without).pipe(pulse_ids())), MissingFieldError)


def test_the_bits_of_a_pulse_id_are_those_of_the_environment() -> None:
    shot = update("x", 1, timestamp=START + (0b1011 << 4) + 5)
    address = replace(shot.address, pulse_id_mask=0xF0)
    assert address == shot.address
    assert PVUpdate(address, shot.record).pulse_id == 0b1011


def test_a_user_tag_is_that_of_the_time_stamp() -> None:
    tagged = update("x", 1, fields={"timeStamp": {"secondsPastEpoch": 1, "nanoseconds": 2, "userTag": 9}})
    assert (tagged.user_tag, update("x", 1).user_tag, PVData("x", {"value": 1}).user_tag) == (9, 0, None)


def test_valid_drops_values_without_meaning() -> None:
    readings = rx.from_iterable([update("x", severity, severity=severity) for severity in Severity])
    assert all_of(readings.pipe(valid(), value())) == [0, 1, 2]
