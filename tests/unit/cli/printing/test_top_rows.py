"""Rows of `k2eg top`: rates, staleness, connections, order and choice."""

from __future__ import annotations

import pytest

from k2eg.cli.printing.top_rows import TopRow, TopRows, chosen
from k2eg_rx import ConnectionEvent, PVData, PVState, Severity
from k2eg_rx.testing import update

SECOND = 1_000_000_000


def rows_of(*names: str, stale: float | None = None) -> TopRows:
    return TopRows({f"pva://{name}": name for name in names}, stale)


def one(rows: TopRows, now: float) -> TopRow:
    return rows.rows(now)[0]


def test_a_row_has_value_age_rate_and_trend() -> None:
    rows = rows_of("x")
    for number in range(11):
        rows.add(update("x", float(number), timestamp=SECOND, units="A"), number / 10)
    row = one(rows, 1.5)
    assert (row.name, row.value, row.units, row.state) == ("x", "10", "A", "")
    assert (row.age, row.rate) == (pytest.approx(0.5), pytest.approx(10.0))
    assert row.trend[0] == "▁"
    assert row.trend[-1] in "▇█"


def test_a_pv_is_stale_after_ten_times_its_interval() -> None:
    rows = rows_of("x")
    for number in range(12):
        rows.add(update("x", 1.0, timestamp=SECOND), float(number))
    assert one(rows, 20.0).state == ""
    assert one(rows, 21.5).state == "stale"
    assert one(rows, 21.5).rate == 0.0


def test_a_pv_that_seldom_changes_is_not_stale_unless_asked() -> None:
    for stale, state in ((None, ""), (60.0, "stale")):
        rows = rows_of("x", stale=stale)
        rows.add(update("x", 1.0, timestamp=SECOND), 0.0)
        assert one(rows, 1000.0).state == state


def test_connections() -> None:
    rows = rows_of("x")
    assert one(rows, 0.0).state == "no value"
    rows.add(update("x", 1.0, timestamp=SECOND), 0.0)
    rows.add(ConnectionEvent("x", "pva://x", PVState.DISCONNECTED, SECOND), 1.0)
    assert one(rows, 1.0).state == "disconnected"
    rows.add(ConnectionEvent("x", "pva://x", PVState.CONNECTED, SECOND), 2.0)
    assert one(rows, 2.0).state == ""


def test_an_alarm_has_a_beginning() -> None:
    rows = rows_of("x")
    for at, severity in ((1, 0), (2, 1), (3, 2)):
        rows.add(update("x", 1.0, timestamp=at * SECOND, severity=severity), float(at))
    assert one(rows, 3.0).alarm_since == 2 * SECOND
    rows.add(update("x", 1.0, timestamp=4 * SECOND), 4.0)
    assert one(rows, 4.0).alarm_since is None


def test_two_uris_may_be_one_pv() -> None:
    rows = TopRows({"pva://x": "x", "ca://x": "x"})
    rows.add(update("ca://x", 1.0, timestamp=SECOND), 0.0)
    assert [row.value for row in rows.rows(0.0)] == ["1"]


def filled() -> list[TopRow]:
    rows = rows_of("b:low", "a:high", "c:text", "dead")
    rows.add(update("b:low", 1.0, timestamp=SECOND, severity=Severity.MINOR), 0.0)
    rows.add(update("a:high", 9.0, timestamp=SECOND), 1.0)
    rows.add(update("c:text", "hello", timestamp=SECOND, severity=Severity.MAJOR), 2.0)
    return rows.rows(2.0)


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        ("given", ["b:low", "a:high", "c:text", "dead"]),
        ("name", ["a:high", "b:low", "c:text", "dead"]),
        ("severity", ["dead", "c:text", "b:low", "a:high"]),
        ("value", ["a:high", "b:low", "c:text", "dead"]),
        ("age", ["c:text", "a:high", "b:low", "dead"]),
        ("rate", ["b:low", "a:high", "c:text", "dead"]),
    ],
)
def test_orders(sort: str, names: list[str]) -> None:
    assert [row.name for row in chosen(filled(), sort=sort)] == names
    assert [row.name for row in chosen(filled(), sort=sort, reverse=True)] == names[::-1]


def test_choices() -> None:
    assert [row.name for row in chosen(filled(), text="A:H")] == ["a:high"]
    assert [row.name for row in chosen(filled(), alarms=True)] == ["b:low", "c:text", "dead"]


def test_a_value_that_cannot_be_shown_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def text(data: PVData) -> str:  # as for values in too many levels, which depend on how deep the stack is
        if data.name == "x":
            raise RecursionError("maximum recursion depth exceeded")
        return "fine"

    monkeypatch.setattr("k2eg.cli.printing.top_rows.format_value", text)
    rows = rows_of("x", "y")
    for name in ("x", "y"):
        rows.add(update(name, 1.0, timestamp=SECOND), 0.0)
    assert [row.value for row in rows.rows(0.0)] == ["cannot be shown: maximum recursion depth exceeded", "fine"]
