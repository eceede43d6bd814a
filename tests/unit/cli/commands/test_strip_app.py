"""The strip chart on a terminal of textual's, with keys."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
from textual.pilot import Pilot

from k2eg.cli.charts.series import Curve, SeriesBook
from k2eg.cli.charts.view import View
from k2eg.cli.commands.strip_app import StripApp
from k2eg_rx import ConnectionState, Status
from k2eg_rx.testing import update

from .conftest import ended, piloted, press, settled

SECOND = 1_000_000_000
START = 1_767_225_600 * SECOND
NOW = START + 60 * SECOND
SIZE = (80, 20)


def made(folder: Path | None = None) -> StripApp:
    book = SeriesBook([Curve("pva://x", "x"), Curve("pva://y", "y")])
    for at in range(0, 60, 5):
        book.take(update("x", float(at), timestamp=START + at * SECOND, units="A"))
    return StripApp(book, View(60.0), lambda: Status(ConnectionState.UP, lag=7), clock=lambda: NOW, folder=folder)


def screen(app: StripApp) -> str:
    return "\n".join("".join(segment.text for segment in line) for line in app.screen._compositor.render_strips())


def test_it_shows_chart_state_and_keys() -> None:
    app = made()

    async def act(pilot: Pilot[None]) -> None:
        await settled(pilot)
        text = screen(app)
        assert ">a x  55 A" in text
        assert "└" in text
        assert "live  60 s wide  one scale  lag 7 " in text
        assert "pause" in text

    piloted(app, act, SIZE)


def test_keys_change_the_view() -> None:
    app = made()

    async def act(pilot: Pilot[None]) -> None:
        await press(pilot, "space")
        assert app.view.end == NOW
        await press(pilot, "space", "plus")
        assert (app.view.end, app.view.span) == (None, 30.0)
        await press(pilot, "minus", "minus", "left")
        assert (app.view.span, app.view.end) == (120.0, NOW - 30 * SECOND)
        await press(pilot, "right", "tab", "o", "l", "comma")
        assert app.view == View(120.0, NOW, NOW - 60 * SECOND, own=True, is_log=True, selected=1)
        await press(pilot, "full_stop", "escape")
        assert (app.view.end, app.view.cursor) == (None, None)

    piloted(app, act, SIZE)


def test_what_is_shown_is_exported(tmp_path: Path) -> None:
    app = made(tmp_path)

    async def act(pilot: Pilot[None]) -> None:
        await press(pilot, "plus", "e")

    piloted(app, act, SIZE)
    (path,) = tmp_path.glob("k2eg-strip-*.csv")
    rows = list(csv.reader(path.read_text().splitlines()))
    assert rows[:2] == [
        ["time", "pv", "value", "units", "severity"],
        ["2026-01-01T00:00:30.000000000Z", "x", "30.0", "A", "NO_ALARM"],
    ]
    assert len(rows) == 1 + 6


def note_after(app: StripApp, key: str) -> str:
    """Returns the only note that is shown after a key."""
    notes: list[str] = []

    async def act(pilot: Pilot[None]) -> None:
        await press(pilot, key)
        notes.extend(note.message for note in app._notifications)

    piloted(app, act, SIZE)
    (note,) = notes
    return note


def test_the_chart_is_written_as_a_picture(tmp_path: Path) -> None:
    assert note_after(made(tmp_path), "p").startswith("the chart is in ")
    (path,) = tmp_path.glob("k2eg-strip-*.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_picture_without_matplotlib_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert note_after(made(tmp_path), "p").endswith("pip install 'k2eg[examples]'")
    assert not list(tmp_path.iterdir())


def test_an_export_that_fails_ends_nothing(tmp_path: Path) -> None:
    assert note_after(made(tmp_path / "none"), "e").endswith("cannot be written: No such file or directory")


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
def test_it_is_left_by_key(key: str) -> None:
    app = made()

    async def act(pilot: Pilot[None]) -> None:
        await ended(pilot, key)

    piloted(app, act, SIZE)
    assert app.return_code == 0


def test_the_error_of_a_stream_ends_it() -> None:
    app = made()
    error = RuntimeError("no more")

    async def act(pilot: Pilot[None]) -> None:
        app.fail(error)
        await ended(pilot, "l")

    piloted(app, act, SIZE)
    assert app.error is error
    assert not app.is_running


def test_a_signal_ends_it() -> None:
    app = StripApp(
        SeriesBook([Curve("pva://x", "x")]), View(60.0), lambda: Status(ConnectionState.UP), is_over=lambda: True
    )

    async def act(pilot: Pilot[None]) -> None:
        await ended(pilot)

    piloted(app, act, SIZE)
    assert app.return_code == 0
