"""CommandSource: order and backpressure."""

from __future__ import annotations

from reactivex.testing import TestScheduler

from k2eg_rx.gateway.commands.source import CommandSource
from k2eg_rx.transport.interfaces import Record


class SourceUnderTest:
    def __init__(self) -> None:
        self.scheduler = TestScheduler()
        self.room = 3
        self.commands = CommandSource(self.scheduler, lambda: self.room)
        self.woken = 0
        self.commands.wake = self._wake
        self.emitted: list[int] = []
        self.commands.commands().subscribe(lambda command: self.emitted.append(command.record.offset))

    def _wake(self) -> None:
        self.woken += 1

    def receive(self, *offsets: int) -> None:
        self.commands.receive([Record("commands", 0, offset, None, b"") for offset in offsets])


def test_records_are_emitted_in_order_on_the_scheduler() -> None:
    source = SourceUnderTest()
    source.receive(*range(250))
    source.receive(250)
    assert source.emitted == []
    source.scheduler.advance_by(0.001)
    assert source.emitted == list(range(251))


def test_the_source_is_not_ready_while_enough_commands_wait() -> None:
    source = SourceUnderTest()
    source.receive(1, 2)
    assert source.commands.ready()
    source.receive(3)
    assert not source.commands.ready()
    source.scheduler.advance_by(0.001)
    assert source.woken == 1, "the waiting commands were emitted"
    assert source.commands.ready()


def test_the_source_is_woken_once_when_capacity_returns() -> None:
    source = SourceUnderTest()
    source.room = 0
    source.commands.capacity_available()
    assert source.woken == 0, "ready() was not called before"
    assert not source.commands.ready()
    source.commands.capacity_available()
    assert source.woken == 0, "there is no capacity yet"
    source.room = 1
    source.commands.capacity_available()
    source.commands.capacity_available()
    assert source.woken == 1
