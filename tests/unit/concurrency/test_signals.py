"""Signals that end a program."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator

import pytest

from k2eg_rx.concurrency import TerminationSignals, wait_interruptibly

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


def test_a_signal_that_another_thread_received_ends_a_wait_on_the_main_thread() -> None:
    ended = threading.Event()
    slices: list[float] = []

    def wait(seconds: float) -> bool:
        slices.append(seconds)
        if len(slices) == 1:
            threading.Thread(target=lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT)).start()
        return ended.wait(seconds)

    with pytest.raises(KeyboardInterrupt):
        wait_interruptibly(wait, 60.0)
    assert max(slices) <= 0.25


def test_a_wait_ends_with_what_it_waits_for_or_at_its_time() -> None:
    results = iter([False, False, True])
    assert wait_interruptibly(lambda _: next(results), math.inf)
    assert not wait_interruptibly(threading.Event().wait, 0.3)
    assert not wait_interruptibly(threading.Event().wait, -1.0)


def test_a_wait_on_another_thread_is_not_interrupted() -> None:
    slices: list[float] = []
    waiting = threading.Thread(target=lambda: wait_interruptibly(lambda seconds: not slices.append(seconds), 60.0))
    waiting.start()
    waiting.join()
    assert slices == [60.0]
