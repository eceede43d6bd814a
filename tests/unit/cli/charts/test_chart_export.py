"""Charts as pictures: what is drawn of each PV."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from k2eg.cli.charts import chart_export
from k2eg.cli.charts.chart_export import export_png
from k2eg.cli.charts.series import Curve, SeriesBook
from k2eg.cli.charts.view import View
from k2eg_rx.testing import update

SECOND = 1_000_000_000
START = 1_767_225_600 * SECOND
NOW = START + 60 * SECOND


@pytest.fixture
def book() -> SeriesBook:
    """Two PVs: one with a gap of 30 s, one with a range of its own."""
    book = SeriesBook([Curve("pva://x", "x"), Curve("pva://y", "$y_1$", (-5.0, 5.0), is_log=False)], gap=10.0)
    for at in (0, 10, 40, 50):
        book.take(update("x", float(at), timestamp=START + at * SECOND, units="A"))
    for at in range(0, 70, 10):
        book.take(update("y", 1.0, timestamp=START + at * SECOND))
    return book


def drawn(book: SeriesBook, view: View, path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns the figure that is written."""
    figures: list[Any] = []
    save = chart_export.save_png
    monkeypatch.setattr(chart_export, "save_png", lambda figure, path: (figures.append(figure), save(figure, path)))
    export_png(book, view, NOW, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    return figures[0]


def test_values_hold_until_the_next_one_except_in_gaps(
    book: SeriesBook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (axes,) = drawn(book, View(60.0), tmp_path / "chart.png", monkeypatch).axes
    values = [value for value in axes.lines[0].get_ydata() if not math.isnan(value)]
    assert values == [0.0, 0.0, 10.0, 40.0, 40.0, 50.0, 50.0]
    assert sum(map(math.isnan, axes.lines[0].get_ydata())) == 1
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a x  A", "b $y_1$"]
    assert axes.get_xlim()[1] - axes.get_xlim()[0] == pytest.approx(60 / 86_400)


def test_pvs_with_scales_of_their_own_are_below_each_other(
    book: SeriesBook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = drawn(book, View(60.0, own=True), tmp_path / "chart.png", monkeypatch).axes
    assert (len(first.lines), len(second.lines)) == (1, 1)
    assert second.get_ylim() == (-5.0, 5.0)


def test_a_file_that_exists_is_kept(book: SeriesBook, tmp_path: Path) -> None:
    path = tmp_path / "chart.png"
    path.write_text("kept")
    with pytest.raises(FileExistsError):
        export_png(book, View(60.0, is_log=True), NOW, path)
    assert path.read_text() == "kept"
