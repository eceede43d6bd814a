"""When updates from EPICS are delivered to the event loop."""

from __future__ import annotations

from datetime import timedelta

import pytest
from reactivex.testing import TestScheduler

from k2eg_rx.gateway.commands.update_queue import UpdateQueue, UpdateSource
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.protocol import Structure


class Receiver:
    """A PV's updates, in virtual time."""

    def __init__(self) -> None:
        self.scheduler = TestScheduler()
        self.deliveries: list[tuple[float, object]] = []
        context = GatewayContext(self.scheduler, update_pace=timedelta(milliseconds=2))
        self.queue = UpdateQueue(context)
        self.source = UpdateSource(self.queue, self._on_update, lambda: None)

    def _on_update(self, structure: Structure) -> None:
        self.deliveries.append((round(self.scheduler.now.timestamp(), 4), structure["value"]))

    def update_at(self, seconds: float, value: int) -> None:
        self.scheduler.advance_to(seconds)
        self.source.put({"value": value})

    def check_at(self, seconds: float) -> None:
        self.scheduler.advance_to(seconds)
        self.queue.check()


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


def test_an_update_after_a_pause_is_delivered_at_once(receiver: Receiver) -> None:
    for number, seconds in enumerate((1.0, 1.0021, 1.5)):
        receiver.update_at(seconds, number)
    receiver.scheduler.advance_to(2.0)
    assert receiver.deliveries == [(1.0, 0), (1.0021, 1), (1.5, 2)]


def test_updates_in_quick_succession_are_delivered_together_every_two_milliseconds(receiver: Receiver) -> None:
    for number in range(7):
        receiver.update_at(1 + number * 0.0007, number)
    receiver.scheduler.advance_to(2.0)
    assert receiver.deliveries == [(1.0, 0), (1.002, 1), (1.002, 2), (1.004, 3), (1.004, 4), (1.004, 5), (1.006, 6)]


def test_a_burst_is_delivered_without_pauses(receiver: Receiver) -> None:
    for number in range(1200):
        receiver.update_at(1.0, number)
    receiver.scheduler.advance_to(2.0)
    assert receiver.deliveries == [(1.0, number) for number in range(1200)]


def test_updates_are_delivered_if_the_thread_that_was_to_wake_the_event_loop_is_held_up(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.check_at(1.0)
    with monkeypatch.context() as patch:
        patch.setattr(receiver.queue, "_wake", lambda: None)
        receiver.update_at(1.5, 1)
    wake = receiver.queue._wake
    receiver.check_at(2.0)
    receiver.update_at(2.5, 2)
    assert receiver.deliveries == []
    receiver.check_at(3.0)
    assert receiver.deliveries == [(3.0, 1), (3.0, 2)]
    assert caplog.text.count("the event loop was not woken") == 1
    receiver.update_at(3.5, 3)
    wake()  # the thread goes on
    receiver.update_at(3.5, 4)
    receiver.check_at(4.0)
    assert receiver.deliveries[2:] == [(3.5, 3), (3.5, 4)]


def test_updates_that_come_just_before_each_look_are_no_sign_of_a_thread_that_is_held_up(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    for second in range(1, 5):
        receiver.scheduler.advance_to(second - 0.1)
        receiver.source.put({"value": second})
        receiver.queue.check()  # before the delivery, which is due
    receiver.scheduler.advance_to(5.0)
    assert [value for _, value in receiver.deliveries] == [1, 2, 3, 4]
    assert "the event loop was not woken" not in caplog.text
