"""The live table on a terminal of textual's, with keys."""

from __future__ import annotations

from textual.pilot import Pilot
from textual.widgets import Static

from k2eg.cli.commands.top_app import TopApp
from k2eg.cli.printing.top_rows import TopRows
from k2eg_rx import ConnectionState, Severity, Status
from k2eg_rx.testing import update

from .conftest import ended, piloted, press, settled

SECOND = 1_000_000_000
SIZE = (80, 12)


def made(count: int = 3, *, alarms: bool = False) -> TopApp:
    names = [f"q:{number}" for number in range(count)]
    rows = TopRows({f"pva://{name}": name for name in names})
    for number, name in enumerate(names):
        severity = Severity.MAJOR if number == 1 else Severity.NO_ALARM
        rows.add(update(name, float(number), timestamp=SECOND, severity=severity), 0.0)
    status = Status(ConnectionState.UP, lag=7, dropped=2)
    return TopApp(rows, lambda: status, alarms=alarms, clock=lambda: SECOND, monotonic=lambda: 0.0)


def text(app: TopApp, name: str = "table") -> str:
    return str(app.query_one(f"#{name}", Static).render())


def names(app: TopApp) -> list[str]:
    return [line.split()[0] for line in text(app).splitlines()[1:]]


def test_it_shows_rows_and_state() -> None:
    app = made()

    async def act(pilot: Pilot[None]) -> None:
        await settled(pilot)
        assert names(app) == ["q:0", "q:1", "q:2"]
        assert text(app, "state") == "3 of 3 PVs  as given  lag 7, replaced 2"

    piloted(app, act, SIZE)


def test_keys_sort_and_choose() -> None:
    app = made()

    async def act(pilot: Pilot[None]) -> None:
        await settled(pilot)
        await press(pilot, "s", "r")
        assert names(app) == ["q:2", "q:1", "q:0"]
        await press(pilot, "a")
        assert names(app) == ["q:1"]
        await press(pilot, "escape", "slash", "colon", "2")
        assert names(app) == ["q:2"]
        await press(pilot, "enter", "escape")
        assert len(names(app)) == 3

    piloted(app, act, SIZE)


def test_many_rows_scroll() -> None:
    app = made(100)

    async def act(pilot: Pilot[None]) -> None:
        await settled(pilot)
        assert names(app)[0] == "q:0"
        await press(pilot, "down", "pagedown")
        assert names(app)[0] == f"q:{1 + len(names(app))}"
        assert text(app, "state").startswith(f"{2 + len(names(app))}-{1 + 2 * len(names(app))} of 100 of 100 PVs")
        await press(pilot, *["pageup"] * 3)
        assert names(app)[0] == "q:0"

    piloted(app, act, SIZE)


def test_alarms_only_from_the_beginning() -> None:
    app = made(alarms=True)

    async def act(pilot: Pilot[None]) -> None:
        await settled(pilot)
        assert names(app) == ["q:1"]

    piloted(app, act, SIZE)


def test_it_is_left_by_key_and_by_an_error() -> None:
    app = made()

    async def leave(pilot: Pilot[None]) -> None:
        await ended(pilot, "q")

    piloted(app, leave, SIZE)
    assert app.return_code == 0
    failed = made()

    async def fail(pilot: Pilot[None]) -> None:
        failed.fail(RuntimeError("no more"))
        await ended(pilot, "s")

    piloted(failed, fail, SIZE)
    assert not failed.is_running
