"""Lays out rows in columns, as text of fixed width."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from k2eg_rx.texts import printable


def aligned(rows: Sequence[Sequence[str]], right: Collection[int] = (), widths: Sequence[int] = ()) -> list[str]:
    """Returns a line for each row; cells are escaped, and padded to the width of their column.

    Args:
        rows: The cells; each row has the same number.
        right: The columns that are aligned at their right end, such as those of numbers.
        widths: The least width of each column, for rows that are laid out one by one.
    """
    cells = [[printable(cell, None) for cell in row] for row in rows]
    wanted = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if widths:
        wanted = [max(pair) for pair in zip(wanted, widths, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, wanted, strict=True))
        ).rstrip()
        for row in cells
    ]
