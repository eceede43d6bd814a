"""CommandSource: order and backpressure."""

from __future__ import annotations

from reactivex.testing import TestScheduler

from k2eg_rx.gateway.commands.source import CommandSource
from k2eg_rx.transport.interfaces import Record


class Bench:
    def __init__(self) -> None:
        self.scheduler = TestScheduler()
        self.room = 3
        self.commands = CommandSource(self.scheduler, lambda: self.room)
        self.woken = 0
        self.commands.wake = self._wake
        self.taken: list[int] = []
        self.commands.records().subscribe(lambda record: self.taken.append(record.offset))

    def _wake(self) -> None:
        self.woken += 1

    def receive(self, *offsets: int) -> None:
        self.commands.receive([Record("commands", 0, offset, None, b"") for offset in offsets])


def test_records_are_emitted_in_order_on_the_scheduler() -> None:
    bench = Bench()
    bench.receive(*range(250))
    bench.receive(250)
    assert bench.taken == []
    bench.scheduler.advance_by(0.001)
    assert bench.taken == list(range(251))


def test_the_source_is_not_ready_while_enough_commands_wait() -> None:
    bench = Bench()
    bench.receive(1, 2)
    assert bench.commands.ready()
    bench.receive(3)
    assert not bench.commands.ready()
    bench.scheduler.advance_by(0.001)
    assert bench.woken == 1, "the waiting commands were emitted"
    assert bench.commands.ready()


def test_the_source_is_woken_once_when_capacity_returns() -> None:
    bench = Bench()
    bench.room = 0
    bench.commands.capacity_available()
    assert bench.woken == 0, "ready() was not called before"
    assert not bench.commands.ready()
    bench.commands.capacity_available()
    assert bench.woken == 0, "there is no capacity yet"
    bench.room = 1
    bench.commands.capacity_available()
    bench.commands.capacity_available()
    assert bench.woken == 1
