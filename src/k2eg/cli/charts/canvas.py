"""A canvas of braille characters: each cell of the terminal has two by four dots."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

Span = tuple[str, str]  # a text and the name of its style
Line = list[Span]

DOTS_ACROSS = 2
DOTS_DOWN = 4

_CODES = {  # of terminals, by style
    **{f"curve{number}": code for number, code in enumerate(("36", "33", "35", "32", "34", "31"))},
    "minor": "33",
    "major": "1;31",
    "invalid": "1;35",
    "strong": "1",
}
_BLANK = 0x2800
_BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # by row and column, as Unicode numbers them


def plain(line: Line) -> str:
    """Returns a line without styles."""
    return "".join(text for text, _ in line)


def coloured(line: Line) -> Line:
    """Returns a line with the codes of terminals in place of the names of styles."""
    return [(text, _CODES.get(style, "")) for text, style in line]


def axis_lines(ticks: Iterable[tuple[int, str]], columns: int, head: int) -> list[Line]:
    """Returns the two lines of the axis below a chart.

    Args:
        ticks: Column and label of each; those outside of the chart are left out.
        columns: Width of the chart.
        head: Width of the labels of the axis on its left.
    """
    bar, labels = ["─"] * columns, [" "] * columns
    for column, text in ticks:
        if 0 <= column < columns:
            bar[column] = "┬"
            first = min(max(column - len(text) // 2, 0), columns - len(text))
            labels[first : first + len(text)] = text
    space = " " * (head + 1)
    return [[(f"{space}└{''.join(bar)}", "axis")], [(f"{space} {''.join(labels)}".rstrip(), "axis")]]


class Canvas:
    """Dots and their styles.

    A cell has the style of its last dot. Dots outside of the canvas are left out.

    Args:
        columns: Width in cells.
        rows: Height in cells.
    """

    def __init__(self, columns: int, rows: int) -> None:
        self._columns = columns
        self._rows = rows
        self._dots = [[0] * columns for _ in range(rows)]
        self._styles = [[""] * columns for _ in range(rows)]
        self._upright: tuple[int, str] | None = None

    @property
    def width(self) -> int:
        """Width in dots."""
        return self._columns * DOTS_ACROSS

    @property
    def height(self) -> int:
        """Height in dots."""
        return self._rows * DOTS_DOWN

    def dot(self, x: int, y: int, style: str = "") -> None:
        """Sets a dot; 0, 0 is at the top left."""
        if 0 <= x < self.width and 0 <= y < self.height:
            row, column = y // DOTS_DOWN, x // DOTS_ACROSS
            self._dots[row][column] |= _BITS[y % DOTS_DOWN][x % DOTS_ACROSS]
            self._styles[row][column] = style

    def upright(self, x: int, top: int, bottom: int, style: str = "") -> None:
        """Sets the dots of a column from one height to another, which may be outside."""
        for y in range(max(min(top, bottom), 0), min(max(top, bottom), self.height - 1) + 1):
            self.dot(x, y, style)

    def dashes(self, y: int, style: str = "") -> None:
        """Sets every other dot of a row."""
        for x in range(0, self.width, 2):
            self.dot(x, y, style)

    def cursor(self, column: int, style: str = "") -> None:
        """Draws a line through the blank cells of a column."""
        self._upright = (column, style)

    def lines(self) -> list[Line]:
        """Returns the lines of the canvas."""
        return [self._line(dots, styles) for dots, styles in zip(self._dots, self._styles, strict=True)]

    def _line(self, dots: list[int], styles: list[str]) -> Line:
        cells = [(chr(_BLANK + bits) if bits else " ", style) for bits, style in zip(dots, styles, strict=True)]
        if self._upright is not None:
            column, style = self._upright
            if 0 <= column < self._columns and not dots[column]:
                cells[column] = ("│", style)
        return [("".join(text for text, _ in group), style) for style, group in groupby(cells, lambda cell: cell[1])]
