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
        self.source = UpdateSource(UpdateQueue(context), self._on_update, lambda: None)

    def _on_update(self, structure: Structure) -> None:
        self.deliveries.append((round(self.scheduler.now.timestamp(), 4), structure["value"]))

    def update_at(self, seconds: float, value: int) -> None:
        self.scheduler.advance_to(seconds)
        self.source.put({"value": value})


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
