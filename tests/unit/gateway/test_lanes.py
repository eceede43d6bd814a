"""Turns of commands to one PV: reads together, writes alone, nobody overtakes."""

from __future__ import annotations

from k2eg_rx.gateway.lanes import Lanes, Turn


class Table:
    def __init__(self) -> None:
        self.lanes = Lanes()
        self.started: list[str] = []
        self.turns: dict[str, Turn] = {}

    def enter(self, name: str, *, alone: bool, pv: str = "pv") -> None:
        self.turns[name] = Turn(lambda: self.started.append(name), alone=alone)
        self.lanes.enter(pv, self.turns[name])

    def leave(self, name: str, pv: str = "pv") -> None:
        self.lanes.leave(pv, self.turns[name])


def test_reads_run_together_and_a_write_alone() -> None:
    table = Table()
    for name, alone in [("r1", False), ("r2", False), ("w1", True), ("r3", False), ("w2", True), ("w3", True)]:
        table.enter(name, alone=alone)
    assert table.started == ["r1", "r2"]
    table.leave("r2")
    assert table.started == ["r1", "r2"]
    table.leave("r1")
    assert table.started[2:] == ["w1"]
    table.leave("w1")
    assert table.started[3:] == ["r3"]
    table.leave("r3")
    assert table.started[4:] == ["w2"]
    table.leave("w2")
    table.leave("w3")
    assert table.started[5:] == ["w3"]
    assert len(table.lanes) == 0


def test_pvs_do_not_wait_for_each_other() -> None:
    table = Table()
    table.enter("a", alone=True, pv="a")
    table.enter("b", alone=True, pv="b")
    assert table.started == ["a", "b"]


def test_a_turn_that_is_not_wanted_any_more_is_passed_over() -> None:
    table = Table()
    for name in ("w1", "w2", "w3"):
        table.enter(name, alone=True)
    table.leave("w2")
    table.leave("w2")
    table.leave("w1")
    assert table.started == ["w1", "w3"]


def test_turns_that_end_while_they_start_do_not_pile_up() -> None:
    lanes = Lanes()
    ended = 0

    def enter() -> None:
        def start() -> None:
            nonlocal ended
            ended += 1
            lanes.leave("pv", turn)

        turn = Turn(start, alone=True)
        lanes.enter("pv", turn)

    first = Turn(lambda: None, alone=True)
    lanes.enter("pv", first)
    for _ in range(5000):
        enter()
    lanes.leave("pv", first)
    assert ended == 5000
    assert len(lanes) == 0
