"""Scales and ticks."""

from __future__ import annotations

import pytest

from k2eg.cli.charts.scales import Scale, fitted, time_ticks


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.3, 9.2, ["0", "5", "10"]),
        (-48.0, 49.9, ["-50", "0", "50"]),
        (1.0001, 1.00038, ["1.0000", "1.0002", "1.0004"]),
        (5.0, 5.0, ["4.5", "5.0", "5.5"]),
        (0.0, 0.0, ["-1", "0", "1"]),
        (2e-9, 9e-9, ["0", "5e-09", "1e-08"]),
        (2e12, 9e12, ["0", "5e+12", "1e+13"]),
    ],
)
def test_scales_end_at_round_numbers(low: float, high: float, labels: list[str]) -> None:
    scale = fitted(low, high, 3)
    assert scale.low <= low
    assert high <= scale.high
    assert [label for _, label in scale.ticks(3)] == labels


def test_logarithmic_scales_have_powers_of_ten() -> None:
    scale = fitted(3e-8, 0.5, 4, is_log=True)
    assert (scale.low, scale.high) == (1e-8, 1.0)
    assert [label for _, label in scale.ticks(4)] == ["1e-8", "1e-5", "1e-2"]
    assert scale.place(1e-4) == pytest.approx(0.5)
    assert scale.place(0.0) is None


@pytest.mark.parametrize("extent", [(-1.7e308, 1.7e308), (5e-324, 5e-324), (1e308, 1e308), (float("nan"), 1.0)])
@pytest.mark.parametrize("is_log", [True, False])
def test_no_range_of_floats_has_no_scale(extent: tuple[float, float], is_log: bool) -> None:
    scale = fitted(*extent, 5, is_log=is_log)
    assert scale.ticks(5) is not None
    place = scale.place(scale.high)
    assert place == pytest.approx(1.0)


def test_values_outside_have_a_place_beyond() -> None:
    assert Scale(0.0, 10.0).place(20.0) == 2.0


def test_times_are_round_in_local_time(half_hour_zone: None) -> None:
    start = 1_767_225_600_000_000_000  # 05:30 there
    assert [text for _, text in time_ticks(start, start + 7200 * 10**9, 4)] == [
        "05:30",
        "06:00",
        "06:30",
        "07:00",
        "07:30",
    ]
    assert [text for _, text in time_ticks(start, start + 10**9, 4)][:2] == ["05:30:00.0", "05:30:00.5"]
    assert len(time_ticks(start, start + 400 * 86_400 * 10**9, 4)) in (4, 5)
