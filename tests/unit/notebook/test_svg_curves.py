"""Plots: what is drawn, what is kept, and that the picture is well formed whatever the values are."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as xml
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2eg_rx import PVData
from k2eg_rx.notebook.svg_curves import MOST_CURVES, MOST_POINTS, SvgCurves
from k2eg_rx.testing import START, series, update

SECOND = 1_000_000_000


def curves(values: Sequence[object], seconds: float = 1000.0, name: str = "pv") -> SvgCurves:
    """Returns the plot of a value for each second."""
    plot = SvgCurves(seconds)
    for number, value in enumerate(values):
        plot.add(update(name, value, units="mm", timestamp=START + number * SECOND))
    return plot


def paths(plot: SvgCurves) -> list[str]:
    """Returns the paths of the curves; parses the whole picture."""
    return [str(path.get("d")) for path in xml.fromstring(plot.html()).iter("{http://www.w3.org/2000/svg}path")]


def test_a_value_holds_until_the_next_and_the_newest_to_the_edge() -> None:
    (path,) = paths(curves([0.0, 10.0, 0.0], seconds=2.0))
    assert path == "M80 166.0H400V16.0H720V166.0H720"


def test_nan_is_a_gap() -> None:
    (path,) = paths(curves([0.0, math.nan, 1.0], seconds=2.0))
    assert path.count("M") == 2


def test_each_unit_has_a_panel() -> None:
    plot = SvgCurves(10.0)
    for name, units in (("a", "mm"), ("b", "mm"), ("c", "<A>")):
        for each in series(name, [1.0, 2.0], units=units):
            plot.add(each)
    html = plot.html()
    assert (html.count("<rect"), html.count("<path")) == (2, 3)
    assert "&lt;A&gt;" in html


def test_only_the_newest_seconds_are_kept() -> None:
    plot = curves([float(number) for number in range(1000)], seconds=10.0)
    assert 11 <= len(plot._curves["pv"].points) <= 12  # pyright: ignore[reportPrivateUsage]


def test_points_and_curves_are_bounded() -> None:
    plot = curves([1.0] * (MOST_POINTS + 100), seconds=1e6)
    assert len(plot._curves["pv"].points) == MOST_POINTS  # pyright: ignore[reportPrivateUsage]
    assert len(plot.html()) < 20_000
    for number in range(2 * MOST_CURVES):
        plot.add(update(f"pv{number}", 1.0))
    assert len(paths(plot)) == MOST_CURVES
    assert f"of more than {MOST_CURVES} PVs" in plot.html()


def test_what_is_no_number_is_counted() -> None:
    plot = curves(["text", [1.0]])
    plot.add(PVData("pv", {"value": 10**400, "timeStamp": {"secondsPastEpoch": 1_800_000_000, "nanoseconds": 0}}))
    plot.add(1.5)
    assert "not drawn: 4 items" in plot.html()


@settings(max_examples=100)
@given(
    st.lists(st.floats() | st.integers(-(2**63), 2**63 - 1) | st.booleans(), max_size=30),
    st.sampled_from([0.001, 5.0, 1e6]),
)
def test_all_numbers_give_a_picture(values: list[object], seconds: float) -> None:
    for path in paths(curves(values, seconds)):
        assert re.fullmatch(r"[MHV\d. -]*", path)
        assert all(15.0 <= float(y) <= 167.0 for y in re.findall(r"V(-?[\d.]+)", path))


@pytest.mark.parametrize("value", [0.0, 5.0, -1e-300, 1e17, 1.7e308, -1.7e308])
def test_a_constant_is_a_line_inside_the_panel(value: float) -> None:
    (path,) = paths(curves([value, value], seconds=1.0))
    assert 15.0 <= float(path.split("H")[0].split()[1]) <= 167.0
