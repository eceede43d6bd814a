"""The valve of a mailbox that stands beside the common one until it is joined to it."""

import pytest

from k2eg_rx.delivery.gates import ReplayGate
from k2eg_rx.delivery.subscriber_queue import BackpressureGate


class Bench:
    def __init__(self) -> None:
        self.common_opened = 0
        self.opened = 0
        self.common = BackpressureGate(self._on_common)
        self.sluice = ReplayGate(self.common)
        self.sluice.on_open = self._on_open

    def _on_common(self) -> None:
        self.common_opened += 1

    def _on_open(self) -> None:
        self.opened += 1


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_alone_it_keeps_only_its_own_source_waiting(bench):
    bench.sluice.shut()
    assert (bench.sluice.is_open(), bench.common.is_open()) == (False, True)
    bench.sluice.release()
    assert (bench.sluice.is_open(), bench.opened, bench.common_opened) == (True, 1, 0)


def test_joined_while_shut_it_shuts_the_common_one_until_there_is_room(bench):
    bench.sluice.shut()
    bench.sluice.join()
    assert not bench.common.is_open()
    bench.sluice.release()
    assert bench.common.is_open()
    assert (bench.opened, bench.common_opened) == (0, 1)


def test_joined_while_open_it_follows_from_then_on(bench):
    bench.sluice.join()
    assert bench.common.is_open()
    bench.sluice.shut()
    assert not bench.common.is_open()
    bench.sluice.release()
    assert bench.common.is_open()


def test_joining_twice_counts_once(bench):
    bench.sluice.shut()
    bench.sluice.join()
    bench.sluice.join()
    bench.sluice.release()
    assert bench.common.is_open()


def test_it_may_be_shut_again_before_the_last_release_is_told(bench):
    """A mailbox tells of room after it has let go of its lock."""
    bench.sluice.shut()
    bench.sluice.shut()
    bench.sluice.release()
    assert not bench.sluice.is_open()
    bench.sluice.release()
    assert (bench.sluice.is_open(), bench.opened) == (True, 1)
