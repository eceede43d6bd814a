"""Rows in columns."""

from __future__ import annotations

from k2eg.cli.printing.columns import aligned


def test_cells_are_padded_to_their_column() -> None:
    assert aligned([["PV", "n"], ["a:b", "12"], ["", "3"]], right={1}) == ["PV    n", "a:b  12", "      3"]


def test_the_end_of_a_line_has_no_blanks() -> None:
    assert aligned([["a", "long"], ["b", ""]]) == ["a  long", "b"]


def test_least_widths_hold_for_rows_that_are_laid_out_one_by_one() -> None:
    assert aligned([["a", "1"]], right={1}, widths=[3, 4]) == ["a       1"]


def test_control_characters_are_escaped_before_they_are_measured() -> None:
    assert aligned([["a\x1b[2J", "b"]]) == ["a\\x1b[2J  b"]


def test_no_rows_give_no_lines() -> None:
    assert aligned([]) == []
