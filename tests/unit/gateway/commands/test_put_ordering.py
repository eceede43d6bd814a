"""Turns of commands to one PV: a write holds up what comes behind it, and nobody overtakes."""

from __future__ import annotations

from k2eg_rx.gateway.commands.put_ordering import KeyedQueue, Ticket


class Table:
    def __init__(self) -> None:
        self.lanes = KeyedQueue()
        self.started: list[str] = []
        self.turns: dict[str, Ticket] = {}

    def enter(self, name: str, *, holds: bool, pv: str = "pv") -> None:
        self.turns[name] = Ticket(lambda: self.started.append(name), holds=holds)
        self.lanes.enter(pv, self.turns[name])

    def leave(self, name: str, pv: str = "pv") -> None:
        self.lanes.leave(pv, self.turns[name])


def test_a_write_holds_up_what_comes_behind_it_and_a_read_nothing() -> None:
    table = Table()
    for name in ("r1", "w1", "r2", "r3", "w2", "w3", "r4"):
        table.enter(name, holds=name.startswith("w"))
    assert table.started == ["r1", "w1"]
    table.leave("r1")
    assert table.started == ["r1", "w1"]
    table.leave("w1")
    assert table.started[2:] == ["r2", "r3", "w2"]
    table.leave("w2")
    assert table.started[5:] == ["w3"]
    table.leave("w3")
    assert table.started[6:] == ["r4"]
    assert len(table.lanes) == 0


def test_pvs_do_not_wait_for_each_other() -> None:
    table = Table()
    table.enter("a", holds=True, pv="a")
    table.enter("b", holds=True, pv="b")
    assert table.started == ["a", "b"]


def test_a_turn_that_is_not_wanted_any_more_is_passed_over() -> None:
    table = Table()
    for name in ("w1", "w2", "w3"):
        table.enter(name, holds=True)
    table.leave("w2")
    table.leave("w2")
    table.leave("w1")
    assert table.started == ["w1", "w3"]
    assert not table.turns["w2"].begun


def test_giving_back_twice_does_not_end_another_s_turn() -> None:
    table = Table()
    for name in ("w1", "w2", "w3"):
        table.enter(name, holds=True)
    table.leave("w1")
    table.leave("w1")
    assert table.started == ["w1", "w2"]


def test_turns_that_end_while_they_start_do_not_pile_up() -> None:
    lanes = KeyedQueue()
    ended = 0

    def enter() -> None:
        def start() -> None:
            nonlocal ended
            ended += 1
            lanes.leave("pv", turn)

        turn = Ticket(start, holds=True)
        lanes.enter("pv", turn)

    first = Ticket(lambda: None, holds=True)
    lanes.enter("pv", first)
    for _ in range(5000):
        enter()
    lanes.leave("pv", first)
    assert ended == 5000
    assert len(lanes) == 0
