"""Playback without a scheduler: its thread ends with the subscription."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

from k2eg_rx.history.pacing import play

PATIENCE = 100.0
HOUR = 3_600_000_000_000


class Items:
    """Ever more items, an hour from each to the next."""

    def __init__(self) -> None:
        self.count = 0
        self.closed = threading.Event()
        self.threads: set[str] = set()

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        self.threads.add(threading.current_thread().name)
        self.count += 1
        return self.count - 1

    def close(self) -> None:
        self.threads.add(threading.current_thread().name)
        self.closed.set()


def until_ended() -> None:
    for thread in threading.enumerate():
        if thread.name == "k2eg-playback":
            thread.join(PATIENCE)
            assert not thread.is_alive()


def test_unsubscribing_ends_a_thread_that_waits():
    items, got = Items(), threading.Event()
    subscription = play(items, lambda item: item * HOUR, 1).subscribe(lambda item: got.set())
    assert got.wait(PATIENCE)
    assert not items.closed.is_set()
    subscription.dispose()
    assert items.closed.wait(PATIENCE)
    until_ended()
    assert items.threads == {"k2eg-playback"}
    assert items.count == 2


def test_a_slow_subscriber_delays_the_iterable():
    items, gate, third = Items(), threading.Event(), threading.Event()

    def take(item: int) -> None:
        if item == 2:
            third.set()
            gate.wait(PATIENCE)

    subscription = play(items, lambda item: None).subscribe(take)
    assert third.wait(PATIENCE)
    assert items.count == 3
    subscription.dispose()
    gate.set()
    assert items.closed.wait(PATIENCE)
    until_ended()


def test_a_subscriber_that_raises_ends_the_playback_and_is_logged(caplog: pytest.LogCaptureFixture):
    items = Items()

    def refuse(item: int) -> None:
        raise RuntimeError("no more of this")

    with caplog.at_level(logging.ERROR):
        play(items, lambda item: None).subscribe(refuse)
        assert items.closed.wait(PATIENCE)
        until_ended()
    assert "no more of this" in caplog.text
    assert items.count == 1


def test_it_completes_after_the_last():
    done, got = threading.Event(), []
    play([1, 2, 3], lambda item: None).subscribe(got.append, on_completed=done.set)
    assert done.wait(PATIENCE)
    assert got == [1, 2, 3]
    until_ended()
