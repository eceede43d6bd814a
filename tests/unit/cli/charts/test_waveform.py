"""Arrays as curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

from k2eg.cli.charts.canvas import plain
from k2eg.cli.charts.waveform import waveform_lines


def drawn(numbers: Sequence[float]) -> list[str]:
    return [plain(line).rstrip() for line in waveform_lines(list(enumerate(numbers)), 40, 6)]


def test_lines_join_the_elements_and_the_axis_has_their_indices() -> None:
    assert drawn([0.0, 1.0, 0.0]) == [
        "1 ┤              ⣀⡤⠴⠚⠉⠓⠦⢤⣀",
        "  │         ⢀⣠⠴⠒⠋⠁       ⠈⠉⠓⠦⢤⣀",
        "  │    ⢀⣠⠤⠖⠋⠉                 ⠈⠙⠒⠦⣄⣀",
        "0 ┤⣀⡤⠖⠋⠉                           ⠈⠙⠒⠦⣄",
        "  └┬─────────────────┬─────────────────┬",
        "   0                 1                 2",
    ]


def test_gaps_stay_gaps() -> None:
    assert drawn([1.0, 1.0, math.nan, 1.0, 1.0])[2] == "1.0 ┤⠉⠉⠉⠉⠉⠉⠉⠉⠉                 ⠉⠉⠉⠉⠉⠉⠉⠉⠉"


def test_arrays_without_a_number_and_of_one_element_are_drawn() -> None:
    assert len(drawn([math.nan])) == len(drawn([5.0])) == 6


def test_a_long_array_keeps_its_peaks() -> None:
    numbers = [0.0] * 100_000
    numbers[77_777] = 1.0
    assert drawn(numbers)[0] == f"1 ┤{' ' * 28}⢸"
