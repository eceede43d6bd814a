"""Schema and column types of data frames, and the precision of their values."""

from __future__ import annotations

import doctest
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import reactivex as rx
from hypothesis import given, settings
from hypothesis import strategies as st
from reactivex import operators as ops
from reactivex.subject import Subject

import k2eg_rx.frames.to_frames
from k2eg_rx import ColumnBatch, OperationTimeout, PVData, Snapshot
from k2eg_rx.client.batch import GetResult
from k2eg_rx.frames import to_dataframe, to_xarray
from k2eg_rx.frames.pandas_frames import column
from k2eg_rx.operators import Aligned, alarms, align, window_statistics
from k2eg_rx.protocol import EPICS_EPOCH
from k2eg_rx.protocol.snapshots import Samples
from k2eg_rx.protocol.value_arrays import array_of, stacked, times
from k2eg_rx.testing import START, ScriptedGateway, series, snapshot, update

SECOND = 1_000_000_000
COLUMNS = ["time", "pv", "value", "severity", "status", "enum_index", "snapshot", "iteration", "error"]


def frame_of(*items: Any, **options: Any) -> pd.DataFrame:
    return to_dataframe(items, **options)


def missing(column: pd.Series[Any]) -> list[bool]:
    return list(column.isna())


# --- the long form ---


def test_a_stream_emits_one_frame_on_completion() -> None:
    seen: list[Any] = []
    source: Subject[Any] = Subject()
    source.pipe(ops.take(2), to_dataframe()).subscribe(seen.append, seen.append, lambda: seen.append("end"))
    source.on_next(update("x", 1.5))
    assert seen == []
    source.on_next(update("y", 2.5))
    frame, end = seen
    assert end == "end"
    assert list(frame["value"]) == [1.5, 2.5]


def test_each_subscription_gets_its_own_frame() -> None:
    frames = rx.of(update("x", 1)).pipe(to_dataframe())
    assert len(frames.run()) == len(frames.run()) == 1


def test_the_schema_is_always_the_same() -> None:
    empty: Any = rx.empty().pipe(to_dataframe()).run()
    full = frame_of(update("x", 1.5))
    assert list(empty.columns) == list(full.columns) == COLUMNS
    assert len(empty) == 0
    assert [str(empty[name].dtype) for name in COLUMNS if name != "value"] == [
        str(full[name].dtype) for name in COLUMNS if name != "value"
    ]
    assert str(full["time"].dtype) == "datetime64[ns, UTC]"
    assert [str(full[name].dtype) for name in ("status", "enum_index", "iteration")] == ["Int64"] * 3
    assert full["pv"].dtype == pd.Series(["a"], dtype="str").dtype


def test_time_is_exact_to_the_nanosecond() -> None:
    stamp = 1_795_333_367_084_080_827  # a float would make it ...848
    frame = frame_of(update("x", 1, timestamp=stamp), update("x", 2, timestamp=stamp + 1))
    assert [time.value for time in frame["time"]] == [stamp, stamp + 1]
    assert frame["time"][0].tz is UTC or str(frame["time"][0].tz) == "UTC"
    assert frame["time"][0].to_pydatetime(warn=False) == datetime.fromtimestamp(stamp // SECOND, UTC).replace(
        microsecond=84080
    )


def test_missing_and_unrepresentable_times_are_nat() -> None:
    far = PVData("x", {"value": 1, "timeStamp": {"secondsPastEpoch": 2**50, "nanoseconds": 0}})
    assert missing(frame_of(update("x", 1, timestamp=None), far, update("x", 1))["time"]) == [True, True, False]


def test_a_failed_get_is_a_row_with_the_error() -> None:
    results = [
        GetResult("pva://x", PVData("x", {"value": 5})),
        GetResult("ca://y.HIGH", error=OperationTimeout("get", "ca://y.HIGH", 2.0)),
    ]
    frame = to_dataframe(results)
    assert list(frame["pv"]) == ["x", "y.HIGH"]
    assert missing(frame["error"]) == [True, False]
    assert frame["error"][1] == "Timeout: get of ca://y.HIGH: no reply within 2 s"
    assert str(frame["value"].dtype) == "Int64"
    assert frame["value"][0] == 5
    assert missing(frame["value"]) == missing(frame["severity"]) == [False, True]


@dataclass
class CustomResult:
    """A result that is recognised by its attributes."""

    uri: str
    data: PVData | None
    error: Exception | None


def test_a_result_is_recognised_by_its_attributes() -> None:
    assert list(frame_of(CustomResult("pva://x", None, KeyError()))["error"]) == ["KeyError"]


def test_a_snapshot_has_a_row_per_sample_and_per_pv_without_samples() -> None:
    orbit = snapshot(
        "orbit",
        {"a": [update("a", 1, timestamp=SECOND + 5), update("a", 2, timestamp=SECOND + 6)], "b": None},
        iteration=7,
    )
    frame = to_dataframe(orbit)
    assert list(frame["pv"]) == ["a", "a", "b"]
    assert list(frame["snapshot"]) == ["orbit"] * 3
    assert list(frame["iteration"]) == [7, 7, 7]
    assert missing(frame["value"]) == [False, False, True]
    assert [time.value for time in frame["time"][:2]] == [SECOND + 5, SECOND + 6]
    assert frame["error"][2] == "no data in this snapshot"
    assert list(to_dataframe([orbit, orbit])["pv"]) == ["a", "a", "b"] * 2
    assert missing(frame_of(update("x", 1))["iteration"]) == [True]


def test_a_pv_without_data_in_an_incomplete_snapshot_says_what_it_lacks() -> None:
    frame = to_dataframe([snapshot("s", {"a": None, "b": 1}, missing=3)])
    assert frame["error"][0] == "no data in this snapshot, messages missing: 3"
    assert missing(frame["error"]) == [False, True]


def test_rows_have_the_error_of_their_snapshot() -> None:
    frame = to_dataframe(snapshot("s", {"a": 1, "b": None}, error=-1, error_message="cut"))
    assert list(frame["error"]) == ["cut", "cut"]
    assert list(to_dataframe(snapshot("s", {"b": None}, error=-3))["error"]) == ["error -3"]


def test_severities_compare_and_may_be_missing() -> None:
    frame = frame_of(update("x", 1, severity=0), update("x", 2, severity=2), CustomResult("pva://y", None, KeyError()))
    assert list((frame["severity"] >= "MINOR").fillna(False)) == [False, True, False]
    assert list(frame["severity"])[:2] == ["NO_ALARM", "MAJOR"]
    assert list(frame["severity"].cat.codes) == [0, 2, -1]


def test_status_is_the_number_from_the_gateway() -> None:
    data = [{"value": 1, "alarm": {"severity": 1, "status": status}} for status in (3, 2**70)]
    frame = to_dataframe([*(PVData("x", one) for one in data), PVData("x", {"value": 1})])
    assert frame["status"][0] == 3
    assert missing(frame["status"]) == [False, True, True]


def test_enums_are_labels_with_an_index_column() -> None:
    frame = frame_of(
        update("mode", 1, choices=["Off", "Ramping"]),
        PVData("mode", {"value": {"index": 5, "choices": ["Off"]}}),
        PVData("mode", {"value": {"index": -1, "choices": ["Off"]}}),
    )
    assert list(frame["value"]) == ["Ramping", "5", "-1"]
    assert list(frame["enum_index"]) == [1, 5, -1]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 2**63 - 1], "int64"),
        ([1, 2**64 - 1], "uint64"),
        ([1, None, 2**60 + 1], "Int64"),
        ([1, None, 2**64 - 1], "UInt64"),
        ([-1, 2**64 - 1], "object"),
        ([True, False], "bool"),
        ([True, None], "boolean"),
        ([1.5, 2.5], "float64"),
        ([1.5, None], "float64"),
        ([1, 2.5], "float64"),
        ([1, None, 2.5], "float64"),
        ([2**53 + 1, 2.5], "object"),
        ([True, 1], "object"),
        (["a", 1], "object"),
        ([b"a"], "object"),
        ([None], "object"),
        ([], "object"),
    ],
)
def test_a_column_has_the_type_of_its_values_without_loss(values: list[Any], dtype: str) -> None:
    series = pd.Series(column(values))
    assert str(series.dtype) == dtype
    kept = list(series)
    for value, was in zip(values, kept, strict=True):
        assert pd.isna(was) if value is None else ((was == value and isinstance(was, type(value))) or was == value)


def test_text_has_the_pandas_string_type_and_may_be_missing() -> None:
    texts = pd.Series(column(["a", None]))
    assert texts.dtype == pd.Series(["a"], dtype="str").dtype
    assert missing(texts) == [False, True]
    assert texts[0] == "a"


def test_waveforms_are_arrays() -> None:
    values = [[1.5, 2.5], [1, 2], [True], ["a\0", "bcd"], [], [2**64 - 1], [1, 2.5], [2**53 + 1, 0.5], [2**70], [None]]
    frame = to_dataframe([PVData("x", {"value": value}) for value in values])
    kinds = ["f", "i", "b", "O", "f", "u", "f", "O", "O", "O"]
    assert all(isinstance(one, np.ndarray) and one.ndim == 1 for one in frame["value"])
    assert [one.dtype.kind for one in frame["value"]] == kinds
    assert [one.tolist() for one in frame["value"]] == values


def test_tables_and_structures_are_dicts_of_arrays() -> None:
    table, structure, rows = to_dataframe(
        [
            update("t", {"s": [0.5, 1.5], "name": ["a", "b"]}),
            PVData("c", {"a": 1, "sub": {"x": [1, 2]}, "alarm": {"severity": 0}, "timeStamp": {}}),
            PVData("r", {"value": [{"k": [1]}, {"k": [2]}]}),
        ]
    )["value"]
    assert table["s"].tolist() == [0.5, 1.5]
    assert table["name"].dtype == object
    assert structure["a"] == 1
    assert structure["sub"]["x"].tolist() == [1, 2]
    assert set(structure) == {"a", "sub"}
    assert [row["k"].tolist() for row in rows] == [[1], [2]]


def test_numpy_scalars_become_python_scalars() -> None:
    assert str(to_dataframe(PVData("x", {"value": np.float64(1.5)}))["value"].dtype) == "float64"


def test_values_of_different_types_share_a_column() -> None:
    frame = frame_of(update("a", 1.5), update("b", "on"), update("c", [1, 2]), update("d", 2**60 + 1))
    assert frame["value"].dtype == object
    assert frame["value"][0] == 1.5
    assert frame["value"][1] == "on"
    assert frame["value"][3] == 2**60 + 1


# --- the wide form ---


def test_aligned_updates_are_wide_by_default() -> None:
    updates = [
        update("a", 1, timestamp=SECOND + 1000),
        update("b", "on", timestamp=SECOND + 1000),
        update("a", 2, timestamp=SECOND + 2000),
        update("b", "off", timestamp=SECOND + 2000),
    ]
    frame = rx.from_iterable(updates).pipe(align(["a", "b"]), to_dataframe()).run()
    assert frame.index.name == "time"
    assert str(frame.index.dtype) == "datetime64[ns, UTC]"
    assert [time.value for time in frame.index] == [SECOND + 1000, SECOND + 2000]
    assert list(frame.columns) == ["a", "b"]
    assert str(frame["a"].dtype) == "int64"
    assert list(frame["b"]) == ["on", "off"]
    long = rx.from_iterable(updates).pipe(align(["a", "b"]), to_dataframe(form="long")).run()
    assert list(long.columns) == COLUMNS
    assert list(long["pv"]) == ["a", "b", "a", "b"]


def test_partial_instants_have_missing_values() -> None:
    instants = [Aligned(5, None, {"a": update("a", 1)}, ("b",)), Aligned(6, None, {"b": update("b", 0.5)}, ("a",))]
    frame = to_dataframe(instants)
    assert str(frame["a"].dtype) == "Int64"
    assert missing(frame["a"]) == [False, True]
    assert missing(frame["b"]) == [True, False]


def test_a_pv_without_values_has_a_column() -> None:
    frame = to_dataframe(Aligned(5, None, {"a": update("a", 1)}, ("b",)))
    assert list(frame.columns) == ["a", "b"]
    assert missing(frame["b"]) == [True]


def test_a_wide_frame_has_the_newest_sample_of_each_pv_per_snapshot() -> None:
    one = snapshot("s", {"a": [update("a", 1), update("a", 2)], "b": None}, timestamp=2 * SECOND, window=1.0)
    two = snapshot("s", {"a": 3, "b": 4.5}, timestamp=4 * SECOND, window=1.0)
    frame = to_dataframe([two, one], form="wide")
    assert [time.value for time in frame.index] == [3 * SECOND, 5 * SECOND]
    assert list(frame["a"]) == [2, 3]
    assert missing(frame["b"]) == [True, False]


def test_a_one_shot_snapshot_has_the_time_of_its_newest_sample() -> None:
    samples = {pv: Samples([update(pv, 1, timestamp=time).data]) for pv, time in (("a", SECOND + 5), ("b", SECOND + 9))}
    frame = to_dataframe([Snapshot("id", samples), Snapshot("id", {"a": Samples()})], form="wide")
    assert frame.index[0].value == SECOND + 9
    assert pd.isna(frame.index[1])


def test_updates_of_equal_time_share_a_row_and_none_is_lost() -> None:
    updates = [
        update("a", 1, timestamp=SECOND + 2000),
        update("b", 2, timestamp=SECOND + 1000),
        update("b", 3, timestamp=SECOND + 2000),
        update("a", 4, timestamp=SECOND + 2000),  # the same time twice
        update("a", 5, timestamp=None),
        update("b", 6, timestamp=None),
    ]
    frame = to_dataframe(updates, form="wide")
    assert [None if pd.isna(time) else time.value for time in frame.index] == [
        SECOND + 1000,
        SECOND + 2000,
        SECOND + 2000,
        None,
        None,
    ]
    assert [None if pd.isna(value) else value for value in frame["a"]] == [None, 1, 4, 5, None]
    assert [None if pd.isna(value) else value for value in frame["b"]] == [2, 3, None, None, 6]


@pytest.mark.parametrize("seconds", [0, EPICS_EPOCH])
def test_a_time_that_was_never_set_is_missing(seconds: int) -> None:
    frame = to_dataframe([update("a", 1, timestamp=seconds * SECOND)])
    assert pd.isna(frame["time"][0])


def test_a_failed_get_is_a_column_without_values() -> None:
    frame = to_dataframe(
        [GetResult("pva://x", PVData("x", {"value": 5})), CustomResult("pva://y", None, KeyError())], form="wide"
    )
    assert list(frame.columns) == ["x", "y"]
    assert missing(frame["y"]) == [True]


def test_an_empty_wide_frame_has_no_rows() -> None:
    frame = to_dataframe([], form="wide")
    assert (len(frame), list(frame.columns), str(frame.index.dtype)) == (0, [], "datetime64[ns, UTC]")


# --- xarray ---


def test_scalars_have_a_dimension_and_waveforms_two() -> None:
    data = to_xarray(
        [
            update("x", 1.5, timestamp=SECOND + 1000, units="mm"),
            update("w", [1, 2, 3], timestamp=SECOND + 1000, severity=2),
            update("x", 2.5, timestamp=SECOND + 2001),
            update("w", [4, 5, 6], timestamp=SECOND + 2001),
        ]
    )
    assert data["x"].dims == ("time",)
    assert data["x"].attrs == {"units": "mm"}
    assert data["w"].dims == ("time", "element")
    assert data["w"].dtype == np.int64
    assert data["w"].values.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert data["time"].dtype == "datetime64[ns]"
    assert data["time"].values.astype(np.int64).tolist() == [SECOND + 1000, SECOND + 2001]
    assert data["severity"].sel(pv="w").values.tolist() == [2, 0]
    assert data["status"].dims == ("time", "pv")


def test_missing_numbers_are_nan_and_missing_severities_minus_one() -> None:
    data = to_xarray(
        [
            update("a", 1, timestamp=SECOND + 1),
            update("w", [1, 2], timestamp=SECOND + 2),
            update("m", "on", timestamp=SECOND + 3),
        ]
    )
    assert [None if math.isnan(value) else value for value in data["a"].values] == [1, None, None]
    assert np.isnan(data["w"].values).tolist() == [[True, True], [False, False], [True, True]]
    assert data["m"].isnull().values.tolist() == [True, True, False]
    assert data["m"].values[2] == "on"
    assert data["severity"].sel(pv="a").values.tolist() == [0, -1, -1]


def test_waveforms_of_equal_length_share_a_dimension() -> None:
    aligned = Aligned(5, None, {name: update(name, [0.5] * length) for name, length in (("a", 3), ("b", 3), ("c", 2))})
    data = to_xarray(aligned)
    assert [data[name].dims[1] for name in "abc"] == ["element_3", "element_3", "element_2"]
    alike = to_xarray(Aligned(5, None, {name: update(name, [0.5] * 3) for name in "ab"}))
    assert [alike[name].dims[1] for name in "ab"] == ["element", "element"]


def test_ragged_waveforms_are_rejected_with_the_name_of_the_pv() -> None:
    with pytest.raises(ValueError, match=r"w: waveforms must have one length, got 2, 3.*to_dataframe"):
        to_xarray(series("w", [[1, 2], [1, 2, 3]]))


def test_a_pv_with_waveforms_and_scalars_is_an_array_of_objects() -> None:
    first, second = to_xarray(series("w", [[1, 2], "off"]))["w"].values
    assert first.tolist() == [1, 2]
    assert second == "off"


def test_enums_tables_and_snapshots_in_xarray() -> None:
    one = snapshot("s", {"m": update("m", 1, choices=["Off", "On"]), "t": {"s": [0.5]}, "b": True})
    data = rx.of(one).pipe(to_xarray()).run()
    assert data["m"].values.tolist() == ["On"]
    assert data["t"].values[0]["s"].tolist() == [0.5]
    assert data["b"].dtype == bool


def test_reserved_names_are_rejected() -> None:
    for name in ("time", "severity", "element_3"):
        with pytest.raises(ValueError, match=name):
            to_xarray(update(name, 1))


def test_an_empty_dataset_has_no_times() -> None:
    data: Any = rx.empty().pipe(to_xarray()).run()
    assert dict(data.sizes) == {"time": 0, "pv": 0}
    assert data["time"].dtype == "datetime64[ns]"


@given(
    st.lists(
        st.lists(st.integers(-(2**53), 2**53), min_size=3, max_size=3)
        | st.lists(st.floats(allow_nan=False), min_size=3, max_size=3)
        | st.none(),
        min_size=1,
    ).filter(any)
)
@settings(max_examples=50, deadline=None)
def test_stacking_keeps_all_values(rows: list[list[float] | None]) -> None:
    array = stacked([None if row is None else array_of(row) for row in rows])
    assert array.shape == (len(rows), 3)
    for row, was in zip(rows, array, strict=True):
        assert all(value is None or math.isnan(value) for value in was) if row is None else was.tolist() == row


def test_large_integers_are_stacked_as_objects_if_some_are_missing() -> None:
    array = stacked([array_of([2**60 + 1]), None])
    assert array.tolist() == [[2**60 + 1], [None]]


@given(st.integers(-(2**63) + 1, 2**63 - 1))
@settings(max_examples=50, deadline=None)
def test_each_time_is_kept_exactly(time: int) -> None:
    assert times([time, None]).view(np.int64).tolist() == [time, -(2**63)]


# --- errors ---


def test_items_of_other_types_are_rejected() -> None:
    errors: list[Exception] = []
    rx.of(update("x", 1), 2.5).pipe(to_dataframe()).subscribe(on_error=errors.append)  # pyright: ignore[reportArgumentType]
    assert "got float" in str(errors[0])
    with pytest.raises(ValueError, match="got str"):
        to_xarray(["x"])  # pyright: ignore[reportArgumentType]
    errors.clear()
    rx.from_iterable(series("w", [[1, 2], [1]])).pipe(to_xarray()).subscribe(on_error=errors.append)
    assert "must have one length" in str(errors[0])


def test_a_stream_as_items_is_rejected() -> None:
    with pytest.raises(ValueError, match="must not be a stream"):
        to_dataframe(rx.of(update("x", 1)))  # pyright: ignore[reportCallIssue, reportArgumentType]


def test_an_unknown_form_is_rejected() -> None:
    with pytest.raises(ValueError, match="'long' or 'wide', got 'tall'"):
        to_dataframe([], form="tall")  # pyright: ignore[reportCallIssue, reportArgumentType]


def test_an_error_of_the_source_fails_the_stream() -> None:
    errors: list[Exception] = []
    rx.throw(KeyError("source")).pipe(to_dataframe()).subscribe(on_error=errors.append)
    assert [type(error) for error in errors] == [KeyError]


def test_start_is_the_time_of_the_examples() -> None:
    assert frame_of(update("x", 1))["time"][0].value == START


def test_the_examples_of_the_documentation_work() -> None:
    assert doctest.testmod(k2eg_rx.frames.to_frames) == (0, 12)


def test_instants_that_are_joined_by_pulse_id_have_it_in_a_column_and_a_coordinate() -> None:
    shots = [update(pv, 1.0, timestamp=START + 77 + step * SECOND) for step in range(2) for pv in "ab"]
    instants: Any = rx.from_iterable(shots).pipe(align(["a", "b"], on="pulse_id"), ops.to_list()).run()
    assert len(instants) == 1, "one pulse id, twice"
    frame = to_dataframe(instants)
    assert list(frame.columns) == ["pulse_id", "a", "b"]
    assert (str(frame["pulse_id"].dtype), list(frame["pulse_id"])) == ("Int64", [77])
    assert list(to_xarray(instants)["pulse_id"].values) == [77]
    by_time: Any = rx.from_iterable(shots).pipe(align(["a", "b"]), ops.to_list()).run()
    assert "pulse_id" not in to_dataframe(by_time).columns
    assert "pulse_id" not in to_xarray(by_time).coords


# --- units, windows and transitions ---


def test_units_are_attributes_of_frames_and_of_their_parquet_files(tmp_path: Path) -> None:
    updates = [update("x", 1.5, units="mm"), update("y", 2), update("x", 2.5, units="um", timestamp=START + SECOND)]
    for form in ("long", "wide"):
        frame = frame_of(*updates, form=form)
        assert frame.attrs == {"units": {"x": "um"}}
        frame.to_parquet(tmp_path / form)
        assert pd.read_parquet(tmp_path / form).attrs == {"units": {"x": "um"}}


def test_windows_are_a_table_of_their_statistics() -> None:
    updates = [*series("x", [1.0, 3.0, math.nan, 5.0]), *series("w", [[1, 2], [3, 4]])]
    frame = rx.from_iterable(updates).pipe(window_statistics(count=2), to_dataframe()).run()
    assert list(frame["pv"]) == ["x", "x", "w"]
    assert [time.value for time in frame["start"]] == [START, START + 2 * SECOND, START]
    assert list(frame["count"]) == [2, 2, 2]
    assert list(frame["excluded"]) == [0, 1, 0]
    assert list(frame["mean"])[:2] == [2.0, 5.0]
    assert frame["max"][2].tolist() == [3, 4]
    numbers = rx.from_iterable(updates[:2]).pipe(window_statistics(count=2), to_dataframe()).run()
    assert [str(numbers[name].dtype) for name in ("mean", "std", "min", "max", "rate")] == ["float64"] * 5


def test_transitions_are_a_table_of_severities() -> None:
    updates = [
        update("x", 1.0),
        update("x", 9.0, severity=2, message="HIHI", units="A", timestamp=START + SECOND),
        update("x", 1.0, timestamp=START + 3 * SECOND),
    ]
    frame = rx.from_iterable(updates).pipe(alarms(), to_dataframe()).run()
    assert list(frame["previous"]) == ["NO_ALARM", "MAJOR"]
    assert list(frame["current"]) == ["MAJOR", "NO_ALARM"]
    assert list(frame["seconds"]) == [1.0, 2.0]
    assert [frame["value"][0], frame["message"][0], frame.attrs] == [9.0, "HIHI", {"units": {"x": "A"}}]
    assert list(frame["current"] >= "MINOR") == [True, False]


def test_windows_and_updates_do_not_mix() -> None:
    one = rx.from_iterable(series("x", [1.0])).pipe(window_statistics(count=1)).run()
    with pytest.raises(ValueError, match="items of a frame of windows must all be such, got PVUpdate"):
        to_dataframe([one, update("x", 1)])


def columns_and_updates() -> tuple[list[Any], list[Any]]:
    """Returns batches of events of all kinds, and the same events as updates, ordered alike."""
    updates: list[Any] = []
    batches: list[Any] = []
    with ScriptedGateway() as gateway, gateway.client() as client:
        pvs = [
            gateway.pv("x", 1.5, units="mm"),
            gateway.pv("n", 3),
            gateway.pv("mode", "Off", choices=["Off", "On"]),
            gateway.pv("text", "a"),
            gateway.pv("w", [1.0, 2.0]),
        ]
        uris = [f"pva://{name}" for name in ("x", "n", "mode", "text", "w")]
        client.monitor_columns(uris, every=1.0).subscribe(batches.append)
        client.monitor_many_stream(uris).subscribe(updates.append)
        gateway.advance(0.5)
        for pv, value in zip(pvs, (2.5, 4, "On", "b", [3.0]), strict=True):
            pv.post(value, severity=2)
        gateway.advance(0.5)
    return batches, sorted(updates, key=lambda update: uris.index(update.address.uri))


def test_batches_of_columns_are_the_same_frame_as_their_updates() -> None:
    batches, updates = columns_and_updates()
    one, other = frame_of(*batches), frame_of(*updates)
    assert list(one) == COLUMNS
    assert one.dtypes.to_dict() == other.dtypes.to_dict()
    for name in COLUMNS:
        assert list(map(str, one[name])) == list(map(str, other[name])), name
    assert one.attrs == other.attrs == {"units": {"x": "mm"}}
    wide, other = to_dataframe(batches, form="wide"), to_dataframe(updates, form="wide")
    assert wide.astype(str).equals(other.astype(str))
    numbers = to_dataframe(ColumnBatch({"pva://x": batches[0]["pva://x"]}))
    assert str(numbers["value"].dtype) == "float64"
    assert len(to_dataframe(ColumnBatch({}))) == 0
    with pytest.raises(ValueError, match="items of a frame of columns must all be such, got PVUpdate"):
        to_dataframe([batches[0], update("x", 1)])


def test_batches_of_columns_are_arrow_tables_of_one_schema() -> None:
    (batch, *_), _ = columns_and_updates()
    table = batch.to_arrow()
    rows = table.to_pylist()
    assert [(row["pv"], row["value"], row["value_int"], row["text"], row["array"]) for row in rows] == [
        ("x", 1.5, None, None, None),
        ("x", 2.5, None, None, None),
        ("n", 3.0, 3, None, None),
        ("n", 4.0, 4, None, None),
        ("mode", 0.0, 0, "Off", None),
        ("mode", 1.0, 1, "On", None),
        ("text", None, None, "a", None),
        ("text", None, None, "b", None),
        ("w", None, None, None, [1.0, 2.0]),
        ("w", None, None, None, [3.0]),
    ]
    assert {(row["protocol"], row["severity"], row["status"]) for row in rows} == {("pva", 0, 0), ("pva", 2, 0)}
    assert [time.value for time in table["time"].to_pandas()[:2]] == batch["pva://x"].time.tolist()
    assert ColumnBatch({}).to_arrow().schema == table.schema
