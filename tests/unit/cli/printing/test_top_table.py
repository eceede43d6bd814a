"""The table of `k2eg top`, as text."""

from __future__ import annotations

import math

from k2eg.cli.printing.top_rows import TopRow
from k2eg.cli.printing.top_table import table_lines
from k2eg_rx import Severity

NOW = 100_000_000_000
ROWS = [
    TopRow("gun:current", "12.5", 12.5, "mA", Severity.NO_ALARM, 0.2, 10.0, "▁▄█", "", None),
    TopRow("gun:vacuum", "1e-6", 1e-6, "mbar", Severity.MAJOR, 1.0, 1.0, "▁▁█", "", 10_000_000_000),
    TopRow("gun:dead", "", math.nan, "", Severity.UNDEFINED, math.inf, 0.0, "", "no value", None),
]


def test_a_wide_terminal_has_all_columns() -> None:
    assert table_lines(ROWS, NOW, 100) == [
        ("PV           value  units  severity  since    age    rate  trend", "heading"),
        ("gun:current   12.5  mA                      0.2 s   10 Hz  ▁▄█", ""),
        ("gun:vacuum    1e-6  mbar   MAJOR      90 s  1.0 s  1.0 Hz  ▁▁█", "major"),
        ("gun:dead                   no value", "dim"),
    ]


def test_a_narrow_terminal_keeps_name_and_value() -> None:
    assert [line for line, _ in table_lines(ROWS, NOW, 40)] == [
        "PV           value  severity    age",
        "gun:current   12.5            0.2 s",
        "gun:vacuum    1e-6  MAJOR     1.0 s",
        "gun:dead            no value",
    ]
    assert [line for line, _ in table_lines(ROWS, NOW, 14)] == [
        "PV       value",
        "gun:cu…   12.5",
        "gun:va…   1e-6",
        "gun:de…",
    ]


def test_nothing_to_show_is_a_heading() -> None:
    assert table_lines([], NOW, 80) == [("PV  value", "heading")]


def test_names_cannot_control_the_terminal() -> None:
    row = TopRow("x\x1b[2J", "1", 1.0, "", Severity.NO_ALARM, 0.0, 0.0, "", "", None)
    assert table_lines([row], NOW, 80)[1][0].startswith(r"x\x1b[2J")
