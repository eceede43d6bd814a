"""Braille canvases, as text."""

from __future__ import annotations

from k2eg.cli.charts.canvas import Canvas, plain


def text(canvas: Canvas) -> list[str]:
    return [plain(line) for line in canvas.lines()]


def test_a_cell_has_two_by_four_dots() -> None:
    canvas = Canvas(3, 1)
    canvas.dot(0, 0)
    canvas.dot(3, 3)
    canvas.upright(4, 0, 3)
    canvas.upright(5, 3, 0)
    assert text(canvas) == ["⠁⢀⣿"]


def test_dots_outside_are_left_out() -> None:
    canvas = Canvas(1, 1)
    for x, y in ((-1, 0), (0, -1), (2, 0), (0, 4)):
        canvas.dot(x, y)
    canvas.upright(0, -1_000_000_000, 1_000_000_000)
    assert text(canvas) == ["⡇"]


def test_the_cursor_stands_where_no_dots_are() -> None:
    canvas = Canvas(3, 2)
    canvas.dashes(0, "minor")
    canvas.cursor(1, "cursor")
    assert canvas.lines() == [[("⠁⠁⠁", "minor")], [(" ", ""), ("│", "cursor"), (" ", "")]]
