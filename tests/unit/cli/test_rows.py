from typing import Any

import msgpack
import pytest

from k2eg.cli.rows import Rows, format_age, format_rate, sparkline
from k2eg_rx import PVAddress, PVUpdate
from k2eg_rx.transport.interfaces import Record


def update(name: str, value: Any) -> PVUpdate:
    body = msgpack.packb({name: {"value": value}})
    return PVUpdate(
        PVAddress.parse(f"pva://{name}"), Record(name, 0, 0, None, body, headers=[("k2eg-ser-type", b"Msgpack")])
    )


def test_rows_keep_their_order_and_show_the_newest() -> None:
    rows = Rows(["b", "a"])
    rows.add(update("a", 1), 0.0)
    rows.add(update("a", 2), 0.1)
    first, second = rows.rows(0.1)
    assert (first.name, first.data, first.rate) == ("b", None, 0.0)
    assert second.name == "a"
    assert second.data is not None
    assert second.data.value == 2


def test_the_rate_is_that_between_the_updates() -> None:
    rows = Rows(["a"])
    rows.add(update("a", 0), 0.0)
    assert rows.rows(0.0)[0].rate == 0.0
    for number in range(1, 4):
        rows.add(update("a", number), float(number))
    assert rows.rows(3.9)[0].rate == pytest.approx(1.0)


def test_a_pv_that_stops_has_no_rate_after_a_while() -> None:
    rows = Rows(["a"])
    rows.add(update("a", 0), 0.0)
    rows.add(update("a", 1), 0.1)
    assert rows.rows(1.0)[0].rate > 0
    assert rows.rows(6.0)[0].rate == 0.0


def test_updates_at_one_instant_have_no_rate() -> None:
    rows = Rows(["a"])
    rows.add(update("a", 0), 1.0)
    rows.add(update("a", 1), 1.0)
    assert rows.rows(1.0)[0].rate == 0.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-0.01, "0.0 s"), (0.04, "0.0 s"), (9.94, "9.9 s"), (59.0, "59 s"), (600.0, "10 min"), (36_000.0, "10 h")],
)
def test_an_age_is_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert format_age(seconds) == text


@pytest.mark.parametrize(("rate", "text"), [(0.0, ""), (1.004, "1.0 Hz"), (9.98, "10 Hz"), (99.6, "100 Hz")])
def test_a_rate_is_short(rate: float, text: str) -> None:
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
def test_numbers_make_a_curve(values: list[float], line: str) -> None:
    assert sparkline(values, 8) == line


def test_a_long_array_is_thinned_out_evenly() -> None:
    assert sparkline([float(number) for number in range(800)], 8) == "▁▂▃▄▅▆▇█"
