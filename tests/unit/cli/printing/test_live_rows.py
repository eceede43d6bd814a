from typing import Any

import msgpack
import pytest

from k2eg.cli.printing.live_rows import LiveRows, format_age, format_rate, sparkline
from k2eg_rx import PVAddress, PVUpdate
from k2eg_rx.transport.interfaces import Record


def update(name: str, value: Any) -> PVUpdate:
    body = msgpack.packb({name: {"value": value}})
    return PVUpdate(
        PVAddress.parse(f"pva://{name}"), Record(name, 0, 0, None, body, headers=[("k2eg-ser-type", b"Msgpack")])
    )


def test_rows_keep_their_order_and_the_newest_update() -> None:
    rows = LiveRows(["b", "a"])
    rows.add(update("a", 1), 0.0)
    rows.add(update("a", 2), 0.1)
    first, second = rows.rows(0.1)
    assert (first.name, first.data, first.rate) == ("b", None, 0.0)
    assert second.name == "a"
    assert second.data is not None
    assert second.data.value == 2


def test_the_rate_is_computed_from_the_intervals_between_updates() -> None:
    rows = LiveRows(["a"])
    rows.add(update("a", 0), 0.0)
    assert rows.rows(0.0)[0].rate == 0.0
    for number in range(1, 4):
        rows.add(update("a", number), float(number))
    assert rows.rows(3.9)[0].rate == pytest.approx(1.0)


def test_the_rate_of_a_pv_without_updates_drops_to_zero() -> None:
    rows = LiveRows(["a"])
    rows.add(update("a", 0), 0.0)
    rows.add(update("a", 1), 0.1)
    assert rows.rows(1.0)[0].rate > 0
    assert rows.rows(6.0)[0].rate == 0.0


def test_updates_with_the_same_time_have_rate_zero() -> None:
    rows = LiveRows(["a"])
    rows.add(update("a", 0), 1.0)
    rows.add(update("a", 1), 1.0)
    assert rows.rows(1.0)[0].rate == 0.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-0.01, "0.0 s"), (0.04, "0.0 s"), (9.94, "9.9 s"), (59.0, "59 s"), (600.0, "10 min"), (36_000.0, "10 h")],
)
def test_ages_are_formatted_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert format_age(seconds) == text


@pytest.mark.parametrize(("rate", "text"), [(0.0, ""), (1.004, "1.0 Hz"), (9.98, "10 Hz"), (99.6, "100 Hz")])
def test_rates_are_formatted_in_hertz(rate: float, text: str) -> None:
    assert format_rate(rate) == text


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([1.0], "▁"),
        ([3.0, 3.0], "▁▁"),
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], "▁▂▃▄▅▆▇█"),
        ([0.0, float("nan"), 7.0, float("inf")], "▁ █ "),
        ([float("nan")], ""),
    ],
)
def test_a_sparkline_is_scaled_to_its_range(values: list[float], line: str) -> None:
    assert sparkline(values, 8) == line


def test_a_long_array_is_sampled_evenly() -> None:
    assert sparkline([float(number) for number in range(800)], 8) == "▁▂▃▄▅▆▇█"
