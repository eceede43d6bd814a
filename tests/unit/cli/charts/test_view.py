"""Windows, pause, pan, zoom and cursor."""

from __future__ import annotations

from k2eg.cli.charts.view import View

SECOND = 1_000_000_000
NOW = 1000 * SECOND


def seconds(view: View, now: int = NOW) -> tuple[float, float]:
    start, stop = view.window(now)
    return start / SECOND, stop / SECOND


def test_a_view_moves_until_it_is_paused() -> None:
    view = View(60.0)
    assert seconds(view) == (940.0, 1000.0)
    still = view.paused(NOW)
    assert seconds(still, NOW + 5 * SECOND) == (940.0, 1000.0)
    assert still.paused(NOW + 5 * SECOND).end is None


def test_panning_goes_back_and_ends_at_the_present() -> None:
    back = View(60.0).panned(NOW, -0.5)
    assert seconds(back) == (910.0, 970.0)
    assert back.panned(NOW, 1.0).end is None


def test_zooming_keeps_the_right_end_or_the_cursor() -> None:
    assert seconds(View(60.0).zoomed(NOW, 0.5)) == (970.0, 1000.0)
    assert seconds(View(60.0, end=NOW, cursor=960 * SECOND).zoomed(NOW, 0.5)) == (950.0, 980.0)
    assert View(60.0).zoomed(NOW, 1e-9).span == 0.1


def test_the_cursor_begins_in_the_middle_and_stays_in_the_window() -> None:
    view = View(60.0).pointed(NOW, 0.01)
    assert (view.cursor, view.end) == (970 * SECOND, NOW)
    assert view.pointed(NOW, 0.1).cursor == 976 * SECOND
    assert view.pointed(NOW, -5.0).cursor == 940 * SECOND


def test_the_next_pv_after_the_last_is_the_first() -> None:
    assert [View(1.0, selected=selected).next(2).selected for selected in (0, 1)] == [1, 0]
