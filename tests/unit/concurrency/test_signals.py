"""Signals that end a program."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from k2eg_rx.concurrency import TerminationSignals

NUMBERS = [number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in NUMBERS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in NUMBERS:
        if number != signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)  # the tests may run under nohup, which ignores SIGHUP
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_signal_interrupts_and_later_ones_do_not(number: signal.Signals) -> None:
    with TerminationSignals() as signals:
        assert not signals.wait(0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        signal.raise_signal(signal.SIGTERM)
        assert signals.wait(0.0)
        assert signals.received == number


@pytest.mark.parametrize("number", NUMBERS)
def test_a_deferred_signal_only_ends_the_wait(number: signal.Signals) -> None:
    with TerminationSignals() as signals:
        signals.defer()
        signal.raise_signal(number)
        assert signals.wait(10.0)


def test_handlers_are_restored() -> None:
    before = [signal.getsignal(number) for number in NUMBERS]
    with TerminationSignals():
        assert [signal.getsignal(number) for number in NUMBERS] != before
    assert [signal.getsignal(number) for number in NUMBERS] == before


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_nohup_keeps_its_effect() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with TerminationSignals() as signals:
        signal.raise_signal(signal.SIGHUP)
        assert signals.received is None


def test_outside_the_main_thread_nothing_is_handled() -> None:
    before = [signal.getsignal(number) for number in NUMBERS]
    during: list[object] = []

    def run() -> None:
        with TerminationSignals() as signals:
            during.extend(signal.getsignal(number) for number in NUMBERS)
            assert not signals.wait(0.0)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert during == before
