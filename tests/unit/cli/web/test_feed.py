"""What a browser is sent."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from k2eg.cli.values.pv_names import Target
from k2eg.cli.web.board import Board
from k2eg.cli.web.feed import Feed, with_gaps
from k2eg_rx import ConnectionEvent, PVState
from k2eg_rx.testing import update

SECOND = 1_000_000_000
START = 1_767_225_600


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock: Clock) -> Board:
    return Board([Target("x", "pva://x"), Target("y<b>", "pva://y")], lambda: "lag 0", clock)


Step = Callable[[], dict[str, Any]]


@pytest.fixture
def step(board: Board, clock: Clock) -> Step:
    feed = Feed(board, 60.0)

    def step() -> dict[str, Any]:
        clock.now += 0.5
        (message,) = feed.step(START * SECOND) or ["{}"]
        return json.loads(message)

    return step


def put(board: Board, at: float, value: object, pv: str = "x") -> None:
    item = update(pv, value, timestamp=START * SECOND + int(at * SECOND), units="A")
    board.book.take(item)
    board.take(item)


def test_the_first_message_names_the_pvs(board: Board) -> None:
    assert json.loads(Feed(board, 60.0).hello()) == {"names": ["x", "y<b>"], "span": 60.0}


def test_history_comes_first_then_what_is_new(board: Board, step: Step) -> None:
    put(board, 0, 1.0)
    put(board, 1, 2.0)
    assert step()["points"] == [{"pv": 0, "gap": None, "new": True, "t": [START, START + 1], "v": [1.0, 2.0]}]
    assert "points" not in step()
    put(board, 2, 3.0)
    assert step()["points"] == [{"pv": 0, "gap": None, "new": False, "t": [START + 2], "v": [3.0]}]


def test_a_value_between_others_makes_the_curve_anew(board: Board, step: Step) -> None:
    put(board, 0, 1.0)
    put(board, 2, 3.0)
    step()
    put(board, 1, 2.0)
    (points,) = step()["points"]
    assert (points["new"], points["v"]) == (True, [1.0, 2.0, 3.0])


def test_silence_and_lost_connections_are_gaps(board: Board, step: Step) -> None:
    for at in range(12):
        put(board, at, 1.0)
    step()
    put(board, 50, 2.0)
    (points,) = step()["points"]
    assert (points["gap"], points["v"]) == (10.0, [None, 2.0])
    board.book.take(ConnectionEvent("x", "pva://x", PVState.DISCONNECTED, (START + 51) * SECOND, "gone"))
    (points,) = step()["points"]
    assert points["v"] == [None]


def test_gaps_begin_behind_the_value_before_them() -> None:
    assert str(with_gaps([(5 * SECOND, 1.0)], SECOND, SECOND)) == str([(1.000001, math.nan), (5.0, 1.0)])
    assert with_gaps([(5 * SECOND, 1.0)], None, SECOND) == [(5.0, 1.0)]


def test_a_slow_browser_gets_few_points_and_the_newest_value(board: Board, step: Step) -> None:
    put(board, 0, 0.0)
    step()
    for number in range(20_000):
        put(board, 1 + number / 1000, float(number))
    message = step()
    (points,) = message["points"]
    assert len(points["t"]) <= 400
    assert (points["v"][-1], message["rows"][0]["value"]) == (19_999.0, "19999")
    assert len(json.dumps(message)) < 20_000


def test_a_long_history_of_many_pvs_comes_in_several_messages(clock: Clock) -> None:
    names = [f"q:{number}" for number in range(30)]
    many = Board([Target(name, f"pva://{name}") for name in names], lambda: "", clock)
    for number in range(2000):
        for name in names:
            many.book.take(update(name, float(number), timestamp=(START + number) * SECOND))
    feed = Feed(many, 60.0)
    came: list[int] = []
    while len(came) < len(names):
        message = feed.step(START * SECOND)[0]
        assert len(message) < 1_000_000
        came += [part["pv"] for part in json.loads(message)["points"]]
    assert came == list(range(30))
    answer = feed.answer(json.dumps({"from": START, "to": START + 2000}))
    assert answer is not None
    assert len(answer) < 1_000_000


def test_rows_are_sent_when_they_have_changed(board: Board, step: Step) -> None:
    first = step()
    assert [row["state"] for row in first["rows"]] == ["no value", "no value"]
    assert first["state"] == "lag 0"
    board.take(update("x", 1.5, severity=2, timestamp=START * SECOND, units="A"))
    message = step()
    (row,) = message["rows"]
    about = {"pv": 0, "value": "1.5", "units": "A", "severity": "MAJOR", "state": "", "since": START, "arrived": 0.5}
    assert about.items() <= row.items()
    assert "state" not in message
    assert step() == {}


def test_a_message_a_second_shows_that_the_server_is_there(step: Step) -> None:
    step()
    assert (step(), step()) == ({}, {"now": START})


def test_limits_are_sent_without_those_that_are_none(board: Board, step: Step) -> None:
    value_alarm = {"lowAlarmLimit": math.nan, "lowWarningLimit": 1.0, "highWarningLimit": 8.0, "highAlarmLimit": 9.0}
    board.book.take(update("x", 1.0, timestamp=START * SECOND, fields={"valueAlarm": value_alarm}))
    row = step()["rows"][0]
    assert (row["minor"], row["major"]) == ([1.0, 8.0], [9.0])


def test_an_interval_is_sent_in_detail_with_its_neighbours(board: Board) -> None:
    feed = Feed(board, 60.0)
    for number in range(100):
        put(board, number, float(number))
    answer = feed.answer(json.dumps({"from": START + 9.5, "to": START + 12.5}))
    assert answer is not None
    found = json.loads(answer)
    assert found["detail"][0]["v"] == [9.0, 10.0, 11.0, 12.0, 13.0]
    assert found["detail"][1] == {"t": [], "v": []}


@pytest.mark.parametrize(
    "request_", ["", "[]", "{}", '{"from": 1}', '{"from": "a", "to": 2}', '{"from": 1, "to": 1e999}', b"\xff", "1"]
)
def test_other_requests_have_no_answer(board: Board, request_: str | bytes) -> None:
    assert Feed(board, 60.0).answer(request_) is None
