"""The gate of a history stream, before and after it joins the common gate."""

import pytest

from k2eg_rx.delivery.gates import BackpressureGate, ReplayGate


class Bench:
    def __init__(self) -> None:
        self.common_opened = 0
        self.opened = 0
        self.common = BackpressureGate(self._on_common)
        self.gate = ReplayGate(self.common)
        self.gate.on_open = self._on_open

    def _on_common(self) -> None:
        self.common_opened += 1

    def _on_open(self) -> None:
        self.opened += 1


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_before_joining_only_the_history_is_paused(bench):
    bench.gate.pause()
    assert (bench.gate.is_open(), bench.common.is_open()) == (False, True)
    bench.gate.resume()
    assert (bench.gate.is_open(), bench.opened, bench.common_opened) == (True, 1, 0)


def test_joining_while_paused_pauses_the_common_gate(bench):
    bench.gate.pause()
    bench.gate.join()
    assert not bench.common.is_open()
    bench.gate.resume()
    assert bench.common.is_open()
    assert (bench.opened, bench.common_opened) == (0, 1)


def test_after_joining_the_common_gate_follows(bench):
    bench.gate.join()
    assert bench.common.is_open()
    bench.gate.pause()
    assert not bench.common.is_open()
    bench.gate.resume()
    assert bench.common.is_open()


def test_joining_twice_counts_once(bench):
    bench.gate.pause()
    bench.gate.join()
    bench.gate.join()
    bench.gate.resume()
    assert bench.common.is_open()


def test_pauses_are_counted(bench):
    """A queue resumes its gate after it releases its lock, so the next pause may come first."""
    bench.gate.pause()
    bench.gate.pause()
    bench.gate.resume()
    assert not bench.gate.is_open()
    bench.gate.resume()
    assert (bench.gate.is_open(), bench.opened) == (True, 1)
