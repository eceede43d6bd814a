"""Objects as HTML: what notebooks show, with all text of PVs and gateways escaped."""

from __future__ import annotations

import re

import pytest

from k2eg_rx import PVData, Snapshot, Status
from k2eg_rx.protocol import PVUpdate, Record, Samples
from k2eg_rx.pv import PVAddress
from k2eg_rx.testing import update
from k2eg_rx.transport import ConnectionState

ATTACK = "<script>alert('x')</script>\x1b[2J\u202e&"


def texts(html: str) -> list[str]:
    """Returns the texts of a table's cells."""
    return re.findall(r"<t[dh]\b[^>]*>(.*?)</t[dh]>", html)


def html_of(shown: object) -> str:
    """Returns what a notebook shows."""
    return shown._repr_html_()  # type: ignore[attr-defined]  # pyright: ignore


def test_a_value_has_units_severity_time_and_limits() -> None:
    structure = update("gun:current", 1.25, units="mA", severity=2).data
    structure["display"]["description"] = "of the gun"
    structure["control"] = {"limitLow": 0.0, "limitHigh": 5.0}
    html = html_of(PVData("gun:current", structure))
    assert texts(html)[:2] == ["gun:current", ""]
    found = texts(html)[2:]
    rows = dict(zip(found[::2], found[1::2], strict=True))
    assert rows["value"] == "1.25 mA"
    assert rows["severity"].startswith("MAJOR")
    assert rows["time"] == "2026-01-01 00:00:00.000Z"
    assert (rows["description"], rows["control limits"]) == ("of the gun", "0 to 5")
    assert "color:#dc322f" in html


@pytest.mark.parametrize(
    ("value", "choices", "text"),
    [
        ("On", ["Off", "On"], "On"),
        ("a text", None, "a text"),
        (7, None, "7"),
        ([1.0, 2.0], None, "array(2): 1, 2"),
        (list(range(1000)), None, "array(1000): 0, 1, 2, 3, 4, ..."),
        ([], None, "array(0):"),
    ],
)
def test_values_of_all_types_are_one_line(value: object, choices: list[str] | None, text: str) -> None:
    assert texts(html_of(update("pv", value, choices=choices)))[3].strip() == text


def test_the_rows_of_a_table_are_shown_up_to_a_bound() -> None:
    html = html_of(update("pv", {"n": list(range(30)), "name": ["x"] * 30}))
    assert texts(html)[-4:] == ["9", "x", "... and 20 more rows", ""]


@pytest.mark.parametrize(
    "shown",
    [
        PVData(ATTACK, {"value": ATTACK}),
        update("pv", 1.0, units=ATTACK),
        update("pv", ATTACK, choices=[ATTACK]),
        update("pv", [ATTACK]),
        update("pv", {ATTACK: [ATTACK]}),
        PVData("pv", {"value": 1, "alarm": {"severity": 1, "message": ATTACK}, "display": {"description": ATTACK}}),
        Snapshot(ATTACK, {ATTACK: Samples([{"value": ATTACK}])}, error=-1, error_message=ATTACK),
        Status(
            ConnectionState.DOWN,
            reason=ATTACK,
            disconnected=(ATTACK,),
            lost={ATTACK: 1},
            loss_reasons={"pv": ATTACK},
            decode_errors={("shape", ATTACK): 1},
        ),
    ],
    ids=lambda shown: type(shown).__name__,
)
def test_texts_from_outside_are_escaped(shown: object) -> None:
    html = html_of(shown)
    assert "<script" not in html
    assert not {"\x1b", "\u202e"} & set(html)
    assert "&amp;" in html


def test_texts_are_bounded() -> None:
    assert len(html_of(PVData("x" * 10_000, {"value": "y" * 10_000}))) < 2000


def test_an_undecodable_update_says_so() -> None:
    broken = PVUpdate(PVAddress("pva", "pv"), Record("pv", 0, 0, b"pv", b"\xff", (), 0))
    assert texts(html_of(broken)) == ["pv", "undecodable"]


def test_a_snapshot_shows_the_newest_sample_of_each_pv() -> None:
    samples = {"a": Samples([{"value": 1}, {"value": 2}]), "b": Samples()}
    html = html_of(Snapshot("orbit", samples, iteration=3, missing=1))
    assert "snapshot orbit, iteration 3, 1 messages missing" in html
    assert texts(html)[4:] == ["a", "2", "NO_ALARM", "", "b", "no data", "", ""]


def test_a_snapshot_of_many_pvs_is_bounded() -> None:
    html = html_of(Snapshot("all", {f"pv{number}": Samples() for number in range(5000)}))
    assert "... and 4800 more" in html


def test_a_status_shows_what_is_not_zero() -> None:
    status = Status(ConnectionState.UP, lag=3, lost={"a": 2}, disconnected=("pva://b", "pva://c"))
    shown = ["connection", "up", "lag", "3", "monitors", "0", "disconnected", "pva://b pva://c", "lost", "a: 2"]
    assert texts(html_of(status)) == ["client", "status", *shown]
