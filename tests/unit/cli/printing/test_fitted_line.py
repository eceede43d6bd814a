"""Lines of PVs on narrow terminals."""

from __future__ import annotations

import pytest

from k2eg.cli.printing.fitted_line import fitted_line

PARTS = ("linac:quad:17:current", "2026-11-29 06:30:00.123456", "12.5 A", "MAJOR (HIHI)")


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (None, "linac:quad:17:current     2026-11-29 06:30:00.123456  12.5 A  MAJOR (HIHI)"),
        (74, "linac:quad:17:current     2026-11-29 06:30:00.123456  12.5 A  MAJOR (HIHI)"),
        (62, "linac:quad:17:current  06:30:00.123456  12.5 A  MAJOR (HIHI)"),
        (54, "linac:quad:17:current  06:30:00  12.5 A  MAJOR (HIHI)"),
        (43, "linac:quad:17:current  12.5 A  MAJOR (HIHI)"),
        (5, "lin..ent  12.5 A  MAJOR (HIHI)"),
    ],
)
def test_the_value_is_the_last_to_go(width: int | None, line: str) -> None:
    assert fitted_line(*PARTS, name_width=24, width=width) == line


def test_the_middle_of_a_name_goes_before_the_value() -> None:
    found = fitted_line(*PARTS, name_width=24, width=40)
    assert len(found) == 40
    assert found.endswith("..:current  12.5 A  MAJOR (HIHI)")
