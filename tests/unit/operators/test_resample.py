"""Points, values and counts of `resample`."""

import math
import re
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pytest
from reactivex import from_iterable
from reactivex import operators as ops
from reactivex.subject import Subject

from k2eg_rx.operators import DropReason, MissingFieldError, ResampleCounts, Resampled, resample
from k2eg_rx.protocol import PVUpdate, Samples, Snapshot
from k2eg_rx.testing import START, series, snapshot, structure, update

MS = 1_000_000
NAN = math.nan
DAY = 86_400_000  # ms


def at(pv: str, time: int, value: object = 1.0, **about: Any) -> PVUpdate:
    """Returns an update `time` milliseconds after START."""
    return update(pv, value, timestamp=START + time * MS, **about)


class Run:
    """A subscription to `resample` at 10 Hz, in chunks of a second, with a subject as source."""

    def __init__(self, pvs: Iterable[str] | None = ("a", "b"), rate: float = 10.0, **options: Any) -> None:
        self.counts = ResampleCounts()
        self.chunks: list[Resampled] = []
        self.errors: list[Exception] = []
        self.source: Subject[PVUpdate | Snapshot] = Subject()
        operator = resample(rate, pvs=pvs, counts=self.counts, **options)
        self.subscription = self.source.pipe(operator).subscribe(self.chunks.append, self.errors.append)

    def feed(self, *items: PVUpdate | Snapshot) -> None:
        for item in items:
            self.source.on_next(item)

    def end(self, *items: PVUpdate | Snapshot) -> "Run":
        self.feed(*items)
        self.source.on_completed()
        return self

    @property
    def times(self) -> list[float]:
        """Times of all points, in milliseconds after START."""
        return [(int(time) - START) / MS for chunk in self.chunks for time in chunk.times]

    def column(self, pv: str) -> list[Any]:
        """All values of a PV."""
        return list(chain.from_iterable(chunk.columns[pv].tolist() for chunk in self.chunks))

    def dropped(self) -> dict[str, int]:
        return {why.value: number for why, number in self.counts.dropped.items()}


PAIR = [at("a", 0, 0.0), at("a", 50, 1.0), at("a", 130, 2.0), at("a", 180, 3.0), at("a", 600, 8.0)]


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ({}, [1.0, 3.0, 3.0, 3.0, 3.0, 8.0]),
        ({"tolerance": 0.2}, [1.0, 3.0, 3.0, NAN, NAN, 8.0]),
        ({"tolerance": math.inf}, [1.0, 3.0, 3.0, 3.0, 3.0, 8.0]),
        ({"fill": None}, [1.0, 3.0, NAN, NAN, NAN, 8.0]),
        ({"fill": None, "tolerance": math.inf}, [1.0, 3.0, NAN, NAN, NAN, 8.0]),
        ({"fill": "linear"}, [1.625, 3 + 5 * 20 / 420, 3 + 5 * 120 / 420, 3 + 5 * 220 / 420, 3 + 5 * 320 / 420, 8.0]),
        ({"fill": "linear", "tolerance": 0.3}, [1.625, NAN, NAN, NAN, NAN, 8.0]),
    ],
)
def test_values_at_the_points(options: dict[str, Any], values: Sequence[float]):
    run = Run(["a"], **options).end(*PAIR)
    assert run.times == [100, 200, 300, 400, 500, 600]
    assert run.column("a") == pytest.approx(values, nan_ok=True)
    missing = sum(map(math.isnan, values))
    filled = 6 - 3 - missing + (options.get("tolerance") == 0.3)  # there a point has a sample of its own, but no line
    assert (run.counts.points, run.counts.missing, run.counts.filled) == (6, missing, filled)
    assert (run.counts.used, run.dropped(), run.counts.carried) == (3, {"superseded": 1}, 1)


@pytest.mark.parametrize(
    ("rate", "times"),
    [
        (120.0, [0, 8_333_333, 16_666_666, 25_000_000]),
        (59.94, [0, 16_683_350, 33_366_700, 50_050_050]),
        (3, [0, 333_333_333, 666_666_666, 1_000_000_000]),
        (0.1, [0, 10_000_000_000, 20_000_000_000, 30_000_000_000]),
        (1e6, [0, 1000, 2000, 3000]),
    ],
)
def test_points_are_multiples_of_the_period(rate: float, times: list[int]):
    start = 3 * 10**9 * 50_000_000  # a multiple of all these periods
    end = start + times[-1]
    updates = [update("a", 1, timestamp=time) for time in (start - 1, start, end)]
    chunks: list[Resampled] = []
    from_iterable(updates).pipe(resample(rate, pvs=["a"], fill=None)).subscribe(chunks.append)
    found = [int(time) - start for chunk in chunks for time in chunk.times]
    assert found == times
    assert all(chunk.times.dtype == np.int64 and chunk.columns["a"].dtype == np.float64 for chunk in chunks)


def test_items_are_chunks_of_whole_multiples_and_come_after_the_grace():
    run = Run(["a"], grace=0.5)
    run.feed(*series("a", range(24), every=0.1, start=START + 750 * MS))
    assert [len(chunk) for chunk in run.chunks] == [1, 10]  # 900; 1000 to 1900; the rest waits
    run.feed(at("a", 3400))
    assert len(run.chunks) == 2
    run.feed(at("a", 3401))
    assert [len(chunk) for chunk in run.chunks] == [1, 10, 10]
    assert run.counts.waiting == 26 - run.counts.used - run.counts.carried - run.counts.dropped.total() > 0


def test_linear_waits_for_the_tolerance_too():
    run = Run(["a"], fill="linear", tolerance=2.0, grace=0.5)
    run.feed(*series("a", range(9), every=0.5), at("a", 4400))
    assert [len(chunk) for chunk in run.chunks] == [5]  # 500 to 900
    assert run.column("a") == pytest.approx([1.0, 1.2, 1.4, 1.6, 1.8])
    run.feed(at("a", 4401))
    assert [len(chunk) for chunk in run.chunks] == [5, 10]


def test_the_last_sample_of_a_window_fills_the_beginning_of_the_next():
    first = snapshot("s", {"a": [at("a", 0, 1.0), at("a", 950, 2.0)], "b": [at("b", 0, 5.0), at("b", 400, 6.0)]})
    second = snapshot("s", {"a": [at("a", 1250, 3.0)], "b": None})
    run = Run(None).end(first, second)
    assert run.times == [float(time) for time in range(400, 1400, 100)]
    assert run.column("a") == [1.0] * 6 + [2.0] * 3 + [3.0]
    assert run.column("b") == [6.0] * 10
    assert [chunk.filled for chunk in run.chunks] == [{"a": 6, "b": 5}, {"a": 2, "b": 4}]


def test_the_grid_begins_with_the_first_sample_that_is_not_a_current_value():
    old = at("b", -3 * DAY, 7.0)  # a setpoint
    run = Run(tolerance=math.inf).end(at("a", 20, 1.0), old, at("a", 120, 2.0), at("a", 220, 3.0))
    assert run.times == [200, 300]
    assert (run.column("a"), run.column("b")) == ([2.0, 3.0], [7.0, 7.0])
    assert (run.counts.carried, run.counts.used, run.counts.filled) == (2, 2, 2)


def test_single_samples_are_no_grid():
    run = Run().end(at("a", 0), at("b", 10))
    assert run.chunks == []
    assert run.dropped() == {"ended": 2}


def test_a_pv_that_never_comes_has_missing_values():
    run = Run(["a", "pva://never"]).end(*PAIR)
    assert run.column("never") == pytest.approx([NAN] * 6, nan_ok=True)
    assert run.chunks[0].missing == {"a": 0, "never": 6}


def test_updates_of_other_pvs_and_without_time_are_dropped():
    run = Run(["a"]).end(*PAIR, at("x", 0, "text"), update("a", 5.0, timestamp=0))
    assert run.dropped() == {"superseded": 1, "unnamed": 1, "no_time": 1}


def test_samples_out_of_order_within_the_grace_have_their_place():
    run = Run(["a"], fill=None).end(
        at("a", 0), at("a", 350, 4.0), at("a", 150, 2.0), at("a", 250, 3.0), at("a", 150, 9.0)
    )
    assert run.times == [200, 300, 400]
    assert run.column("a") == [9.0, 3.0, 4.0]  # the one that came last of those of 150
    assert run.dropped() == {"duplicate": 1}


def test_a_late_sample_is_dropped_and_a_repeated_one_is_a_duplicate():
    run = Run(["a", "b"], tolerance=0.5)
    run.feed(at("b", 900, 1.0), *series("a", range(40), every=0.1))
    assert len(run.times) == 19  # 100 to 1900
    run.feed(at("a", 1500, 77.0), at("b", 900, 2.0), at("b", 1000, 3.0), at("a", 3850, 5.0), at("a", 1900, 8.0))
    assert run.dropped() == {"late": 2, "duplicate": 2}  # b at 1000 is too old for the open points
    run.end()
    assert run.column("a")[14:16] == [15.0, 16.0]


def test_the_newest_known_value_fills_open_points_though_it_is_late():
    run = Run(["a", "b"], tolerance=math.inf)
    run.feed(*series("a", range(40), every=0.1), at("b", 1950, 4.0), at("b", 500, 1.0))
    assert run.dropped() == {}
    assert run.counts.carried == 2  # a at 0, b at 500
    run.end()
    assert run.column("b")[18:21] == pytest.approx([NAN, 4.0, 4.0], nan_ok=True)  # 1900, 2000, 2100


@pytest.mark.parametrize("hours", [1, -1])
def test_a_wrong_clock_of_a_few_pvs_affects_no_other(hours: int):
    run = Run(["a", "b", "c"])
    for step in range(60):
        run.feed(at("c", step * 100 + hours * DAY // 24, step), at("a", step * 100, step), at("b", step * 100, step))
    assert run.times == [float(time) for time in range(100, 3900 + 1, 100)]
    assert run.column("a") == run.column("b") == [float(step) for step in range(1, 39 + 1)]
    assert run.column("c") == pytest.approx([NAN] * 39, nan_ok=True)
    assert run.counts.dropped[DropReason.LATE] + run.counts.dropped[DropReason.SUPERSEDED] == (0 if hours > 0 else 59)


def test_a_full_queue_drops_what_comes_last():
    run = Run(["a"], capacity=3).end(*series("a", [1.0, 2.0, 3.0, 4.0, 5.0], every=0.1))
    assert run.column("a") == [2.0, 3.0]
    assert run.dropped() == {"overflow": 2}


def test_a_gap_of_a_million_points_is_left_out():
    later = 200 * DAY
    run = Run(["a"]).end(at("a", 0), at("a", 100, 1.0), at("a", later, 2.0), at("a", later + 100, 3.0))
    assert run.times[0] == 100
    assert run.times[-2:] == [later, later + 100]
    assert len(run.times) == 9 + 2  # the rest of the chunk before the gap
    assert run.counts.gaps == 1


def test_a_gap_below_that_is_missing_values():
    run = Run(["a"]).end(at("a", 0), at("a", 100, 1.0), at("a", 60_000, 2.0))
    assert len(run.times) == 600
    assert run.counts.missing == 600 - 11 - 1
    assert run.counts.gaps == 0


def test_a_subscriber_that_has_enough_gets_no_more_of_a_gap():
    run: list[Resampled] = []
    counts = ResampleCounts()
    source: Subject[PVUpdate | Snapshot] = Subject()
    source.pipe(resample(10, pvs=["a"], counts=counts), ops.take(2)).subscribe(run.append)
    for item in (at("a", 0), at("a", 100), at("a", DAY // 24)):
        source.on_next(item)
    assert len(run) == 2
    assert counts.points == 9 + 10


@pytest.mark.parametrize("fill", ["previous", "linear"])
def test_invalid_values_are_missing_and_do_not_let_older_ones_through(fill: str):
    invalid = at("a", 250, 5.0, severity=3)
    run = Run(["a"], fill=fill, tolerance=0.5).end(
        at("a", 0), at("a", 100, 1.0), invalid, at("a", 400, 2.0, severity=2)
    )
    assert run.times == [100, 200, 300, 400]
    values = [1.0, 1.0 if fill == "previous" else NAN, NAN, 2.0]
    assert run.column("a") == pytest.approx(values, nan_ok=True)


CHOICES = ["Off", "On"]


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ({}, [0.0, 0.0, 1.0, NAN]),
        ({"fill": "linear"}, [0.0, 0.0, 1.0, NAN]),
        ({"enum": "label"}, ["Off", "Off", "On", None]),
        ({"enum": "label", "fill": None}, ["Off", None, "On", None]),
    ],
)
def test_enums_are_indices_or_labels_and_never_interpolated(options: dict[str, Any], values: list[Any]):
    states = [("Off", 0, 0), ("Off", 100, 0), ("On", 300, 0), ("On", 400, 3)]
    items = [at("a", time, value, choices=CHOICES, severity=severity) for value, time, severity in states]
    run = Run(["a", "never"], **options).end(*items)
    assert run.column("a") == (pytest.approx(values, nan_ok=True) if "enum" not in options else values)
    assert run.chunks[0].columns["never"].dtype == np.float64


def test_an_enum_without_a_label_is_its_index_as_text():
    data = structure("Off", choices=CHOICES)
    data["value"]["index"] = 5
    sample = snapshot("s", {"a": None})
    first, second = (data | {"timeStamp": at("a", time).data["timeStamp"]} for time in (0, 100))
    run = Run(None, enum="label").end(Snapshot(sample.name, {"a": Samples([first, second])}))
    assert run.column("a") == ["5"]


def test_booleans_and_integers_are_numbers():
    run = Run(["a"]).end(at("a", 0, 2), at("a", 100, True), at("a", 200, 3))
    assert run.column("a") == [1.0, 3.0]


@pytest.mark.parametrize("value", ["text", [1.0, 2.0], {"column": [1.0]}])
def test_other_values_are_an_error_that_names_the_pv(value: object):
    run = Run(None)
    run.feed(snapshot("s", {"a:b": value}))
    (error,) = run.errors
    assert isinstance(error, TypeError)
    assert str(error).startswith("a:b: resample takes numbers and enums, got ")
    assert str(error).endswith("; leave it out of pvs")
    run = Run(["other"])
    run.feed(snapshot("s", {"a:b": value}))
    assert (run.errors, run.dropped()) == ([], {"unnamed": 1})


@pytest.mark.parametrize("field", ["value", "timeStamp"])
def test_a_filter_that_leaves_out_a_field_is_an_error(field: str):
    data = structure(1.0)
    del data[field]
    run = Run(None)
    run.feed(Snapshot("s", {"a": Samples([data])}))
    (error,) = run.errors
    assert isinstance(error, MissingFieldError)
    assert f"a has no field '{field}': it has " in str(error)


def test_updates_need_the_names_of_their_pvs():
    run = Run(None)
    run.feed(at("a", 0))
    (error,) = run.errors
    assert "pass pvs=[...]" in str(error)


def test_a_source_that_fails_drops_what_waits():
    run = Run(["a"])
    run.feed(*PAIR)
    run.source.on_error(OSError("broken"))
    assert (run.chunks, list(map(str, run.errors))) == ([], ["broken"])
    assert run.counts.waiting == 5


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rate": 0}, "rate must be a finite number above 0, got 0"),
        ({"rate": 2e6}, "rate must be a finite number above 0, 1e-09 to 1e+06, got 2000000.0"),
        ({"pvs": []}, "pvs must name at least one PV"),
        ({"pvs": "a"}, "pvs must be a list of PVs, got 'a'"),
        ({"fill": "nearest"}, "fill must be 'previous' or 'linear', got 'nearest'"),
        ({"enum": "text"}, "enum must be 'index' or 'label', got 'text'"),
        ({"fill": "linear", "tolerance": math.inf}, "tolerance must be a finite number above 0, got inf"),
        ({"tolerance": 0}, "tolerance must be a finite number above 0, got 0"),
        ({"grace": -1}, "grace must be a finite number of 0 or more, got -1"),
        ({"every": 0}, "every must be a finite number above 0, got 0"),
        ({"capacity": 0}, "capacity must be a whole number of at least 1, got 0"),
        ({"counts": {}}, "counts must be"),
    ],
)
def test_arguments_are_checked_at_the_call(options: dict[str, Any], text: str):
    with pytest.raises(ValueError, match=re.escape(text)):
        resample(**{"rate": 10.0, **options})
