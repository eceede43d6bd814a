"""Bounds per application and in all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2eg_rx.gateway.commands.limits import FairShares, Slot, Usage, too_many_names
from k2eg_rx.gateway.runtime.options import GatewayOptions


class Operations:
    """Enters operations; records the applications of those that start, in order."""

    def __init__(self, **options: int) -> None:
        self.turns: list[Callable[[], None]] = []
        self.shares = FairShares(GatewayOptions(**options), self.turns.append)  # pyright: ignore[reportArgumentType]
        self.started: list[str] = []
        self.slots: list[Slot] = []

    def enter(self, applications: str) -> Operations:
        for application in applications:
            self.slots.append(self.shares.enter(application, lambda application=application: self.start(application)))
        return self

    def start(self, application: str) -> None:
        self.started.append(application)

    def next_turn(self) -> str:
        """Runs the next turn of the event loop; returns the applications of the operations that start."""
        before, turns = len(self.started), len(self.turns)
        for _ in range(turns):
            self.turns.pop(0)()
        return "".join(self.started[before:])

    def running(self) -> Counter[str]:
        return Counter(slot.application for slot in self.slots if slot.running)

    def end(self, *numbers: int) -> str:
        """Ends operations by their number; returns the applications of those that start for them."""
        before = len(self.started)
        for number in numbers:
            self.shares.release(self.slots[number])
        return "".join(self.started[before:])


def test_an_application_at_its_bound_waits_and_others_start() -> None:
    operations = Operations(max_pending=100, max_pending_per_application=2).enter("aaaabab")
    assert operations.started == list("aabb")
    assert operations.end(0, 1) == "aa"
    assert operations.end(4, 4, 4) == ""
    assert operations.end(0, 1, 2) == "a"


def test_a_turn_of_the_event_loop_starts_a_few_of_each_application() -> None:
    operations = Operations().enter(50 * "a")
    assert operations.started == 20 * ["a"]
    assert operations.enter("ba").started[20:] == ["b"], "the others do not wait for the flood"
    assert operations.end(0, 1, 2) == ""
    assert operations.next_turn() == 20 * "a"
    assert operations.next_turn() == 11 * "a"
    assert operations.next_turn() == ""
    assert operations.enter("a").started[-1] == "a"


def test_those_that_end_while_they_wait_are_never_started() -> None:
    operations = Operations(max_pending_per_application=1).enter("aaa")
    assert operations.end(1) == ""
    assert operations.end(0) == "a"
    assert [slot.running for slot in operations.slots] == [False, False, True]
    assert operations.end(2) == ""
    assert operations.enter("a").started == list("aaa")


def test_applications_with_less_than_their_share_start_when_all_is_taken() -> None:
    operations = Operations(max_pending=10, max_pending_per_application=10).enter(10 * "a")
    assert operations.enter(8 * "b").running() == {"a": 10, "b": 5}
    assert operations.enter("c").running()["c"] == 1
    assert operations.end(0, 1, 2, 3, 4, 5) == "", "more than the bound run"
    assert operations.running() == {"a": 4, "b": 5, "c": 1}
    assert operations.end(6) == "b", "a place that is free goes to one that waits"


def test_one_that_ends_while_starting_makes_room_without_recursion() -> None:
    operations = Operations(max_pending_per_application=1)
    operations.enter("a" + 5000 * "a")

    def start(application: str) -> None:
        operations.started.append(application)
        number = len(operations.started) - 1
        if number < 5000:
            operations.shares.release(operations.slots[number])

    operations.start = start  # type: ignore[method-assign]
    operations.end(0)
    while operations.next_turn():
        pass
    assert len(operations.started) == 5001


def test_what_may_wait_is_bounded_by_application_and_in_all() -> None:
    operations = Operations(
        max_pending=100, max_pending_per_application=1, max_waiting_per_application=2, max_waiting=3
    ).enter("aa")
    assert operations.shares.refusal("a") == ""
    operations.enter("a")
    text = operations.shares.refusal("a")
    assert "application 'a' has 1 gets and puts under way and 2 waiting" in text
    assert "2 may wait ([gateway] max_waiting_per_application)" in text
    operations.enter("bb")
    assert "3 may wait ([gateway] max_waiting)" in operations.shares.refusal("b")
    assert operations.shares.refusal("c") == ""
    operations.end(1)
    assert operations.shares.refusal("a") == operations.shares.refusal("b") == ""


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 30)), max_size=60))
def test_every_operation_starts_once_in_the_order_of_its_application(steps: list[tuple[str, int]]) -> None:
    operations = Operations(max_pending=4, max_pending_per_application=3)
    starts: list[int] = []
    for number, (application, ended) in enumerate(steps):
        start: Callable[[], None] = lambda number=number: starts.append(number)  # noqa: E731
        operations.slots.append(operations.shares.enter(application, start))
        if ended < number:
            operations.shares.release(operations.slots[ended])
        running = operations.running()
        assert sum(running.values()) <= 8
        assert all(count <= 3 for count in running.values())
    for _ in steps:
        operations.next_turn()
        for slot in operations.slots:
            if slot.running:
                operations.shares.release(slot)
    assert len(starts) == len(set(starts))
    assert not any(slot.waiting or slot.running for slot in operations.slots)
    for application in "abcd":
        own = [number for number in starts if steps[number][0] == application]
        assert own == sorted(own)


def test_usage_names_the_bound_and_its_option() -> None:
    usage = Usage(GatewayOptions(max_pvs=10, max_pvs_per_application=6, max_topics=3, max_topics_per_application=2))
    assert usage.take("a", pvs=6, topics=1) == ""
    assert usage.take("a", pvs=1, topics=0) == (
        "monitors and snapshots of application 'a' may have 6 pvs ([gateway] max_pvs_per_application); "
        "6 are in use, 1 more were requested"
    )
    text = usage.take("b", pvs=5, topics=0)
    assert "monitors and snapshots may have 10 pvs ([gateway] max_pvs); 6 are in use, 5 more" in text
    assert usage.take("b", pvs=1, topics=2) == ""
    assert "2 topics ([gateway] max_topics_per_application)" in usage.take("b", pvs=0, topics=1)
    assert "3 topics ([gateway] max_topics)" in usage.take("c", pvs=0, topics=1)
    usage.give_back("a", pvs=6, topics=1)
    assert usage.take("c", pvs=6, topics=1) == ""


def test_a_command_has_a_bounded_number_of_names() -> None:
    options = GatewayOptions(max_names=2)
    assert too_many_names(2, options) == ""
    assert "at most 2 PV names ([gateway] max_names), got 3" in too_many_names(3, options)


@pytest.mark.parametrize(
    "command",
    [
        ("multi-monitor", {}),
        ("snapshot", {"time_window_msec": 1000}),
        ("repeating_snapshot", {"snapshot_name": "s", "repeat_delay_msec": 1000, "time_window_msec": 1000}),
    ],
    ids=lambda command: command[0],
)
def test_commands_with_too_many_names_are_refused(new_gateway: Any, command: tuple[str, dict[str, Any]]) -> None:
    name, fields = command
    gateway = new_gateway(max_names=2)
    gateway.command(name, pv_name_list=["pva://a", "pva://b", "pva://c"], **fields)
    refusal, *end = gateway.bodies()
    assert refusal["error"] == -10
    assert "[gateway] max_names" in refusal["message"]
    assert [body["error"] for body in end] == [1] * (name == "snapshot")  # which ends with a message
