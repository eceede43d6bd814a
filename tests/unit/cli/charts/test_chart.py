"""Whole charts, as text."""

from __future__ import annotations

import pytest

from k2eg.cli.charts.canvas import plain
from k2eg.cli.charts.chart import chart_lines
from k2eg.cli.charts.series import Curve, SeriesBook
from k2eg.cli.charts.view import View
from k2eg_rx import ConnectionEvent, PVState
from k2eg_rx.testing import update

pytestmark = pytest.mark.usefixtures("utc")

SECOND = 1_000_000_000
START = 1_767_225_600 * SECOND  # 2026-01-01T00:00Z
NOW = START + 60 * SECOND


def book_of(**values: list[tuple[float, float]]) -> SeriesBook:
    book = SeriesBook([Curve(f"pva://{name}", name) for name in values], gap=20.0)
    for name, pairs in values.items():
        for at, number in pairs:
            book.take(update(name, number, timestamp=START + int(at * SECOND)))
    return book


def drawn(book: SeriesBook, view: View, columns: int = 40, rows: int = 9) -> list[str]:
    return [plain(line).rstrip() for line in chart_lines(book, view, NOW, columns, rows)]


STEPS = [(0.0, 0.0), (15.0, 5.0), (30.0, 10.0), (55.0, 0.0)]


def test_a_curve_with_a_gap() -> None:
    assert drawn(book_of(x=STEPS), View(60.0)) == [
        "10 ┤                ⡇",
        "   │                ⡇",
        "   │                ⡇",
        "   │        ⡏⠉⠉⠉⠉⠉⠉⠉⠁",
        "   │        ⡇",
        " 0 ┤⣀⣀⣀⣀⣀⣀⣀⣀⡇                    ⣀⣀⣀ a",
        "   └┬───────────────┬──────────────┬",
        "    00:00:00    00:00:30    00:01:00",
        " a x  0",
    ]


def test_own_scales_show_that_of_the_selected_pv() -> None:
    book = book_of(x=[(0.0, 0.0), (10.0, 10.0), (20.0, 0.0)], y=[(0.0, 1000.0), (10.0, 2000.0)])
    assert drawn(book, View(60.0, own=True, selected=1), rows=10) == [
        "2000 ┤     ⡏⠉⠉⠉⠉⡇                    ab",
        "     │     ⡇    ⡇",
        "     │     ⡇    ⡇",
        "     │     ⡇    ⡇",
        "     │     ⡇    ⡇",
        "1000 ┤⣀⣀⣀⣀⣀⡇    ⡇",
        "     └┬──────────────┬─────────────┬",
        "      00:00:00   00:00:30   00:01:00",
        " a x  0",
        ">b y  2000",
    ]


def test_the_cursor_shows_the_values_there() -> None:
    lines = drawn(book_of(x=STEPS, y=[(20.0, 1.0)]), View(60.0, end=NOW, cursor=START + 16 * SECOND), rows=11)
    assert sum("│" in line[4:] for line in lines[:-4]) >= 3
    assert lines[-3:] == ["at 2026-01-01 00:00:16.000000", ">a x  5", " b y  no value"]


def test_limits_are_lines() -> None:
    book = SeriesBook([Curve("pva://x", "x")])
    limits = {"lowAlarmLimit": 1.0, "lowWarningLimit": 2.0, "highWarningLimit": 8.0, "highAlarmLimit": 9.0}
    for at, number in ((0, 0.0), (30, 10.0)):
        book.take(update("x", number, timestamp=START + at * SECOND, fields={"valueAlarm": limits}))
    lines = chart_lines(book, View(60.0), NOW, 40, 13)
    of_row = [{style for _, style in line if style in ("minor", "major")} for line in lines]
    assert [row for row, styles in enumerate(of_row) if "minor" in styles] == [2, 7]
    assert [row for row, styles in enumerate(of_row) if "major" in styles] == [1, 8]


def test_a_logarithmic_scale_leaves_out_what_has_no_logarithm() -> None:
    lines = drawn(book_of(x=[(0.0, 1e-3), (15.0, 10.0), (30.0, -1.0), (45.0, 0.1)]), View(60.0, is_log=True))
    assert lines == [
        "     │       ⢸⠉⠉⠉⠉⠉⠉⠉⡇",
        " 1e0 ┤       ⢸       ⡇",
        "     │       ⢸       ⡇",
        "     │       ⢸       ⡇      ⢸⠉⠉⠉⠉⠉⠉⠉ a",
        "     │       ⢸       ⡇      ⢸",
        "1e-3 ┤⣀⣀⣀⣀⣀⣀⣀⣸       ⡇      ⢸",
        "     └┬──────────────┬─────────────┬",
        "      00:00:00   00:00:30   00:01:00",
        " a x  0.1",
    ]


def test_what_is_known_of_pvs_without_values() -> None:
    book = book_of(x=STEPS, dead=[], silent=[])
    book.take(ConnectionEvent("dead", "pva://dead", PVState.NEVER_CONNECTED, START))
    book.take(ConnectionEvent("x", "pva://x", PVState.DISCONNECTED, NOW))
    assert drawn(book, View(60.0), rows=12)[-3:] == [
        ">a x       not connected, was 0",
        " b dead    not connected",
        " c silent  no value",
    ]


@pytest.mark.parametrize(("columns", "rows"), [(1, 1), (10, 4), (40, 5), (300, 80)])
@pytest.mark.parametrize("view", [View(60.0), View(0.1), View(1e7, own=True), View(60.0, is_log=True, end=0, cursor=0)])
def test_any_size_can_be_drawn(columns: int, rows: int, view: View) -> None:
    lines = drawn(book_of(x=STEPS, y=[], z=[(1.0, -5.0)]), view, columns, rows)
    assert lines
    if columns >= 40:
        assert max(map(len, lines)) <= columns


def test_names_cannot_control_the_terminal() -> None:
    book = SeriesBook([Curve("pva://x", "x\x1b[2J")])
    assert drawn(book, View(60.0))[-1] == r" a x\x1b[2J  no value"
