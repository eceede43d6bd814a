"""Notes about lost connections."""

from __future__ import annotations

import pytest

from k2eg.cli.printing.stream_printer import ConnectionReporter, StreamPrinter
from k2eg_rx import ConnectionState, Status


def test_the_loss_and_the_return_of_broker_and_pvs_are_one_note_each(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = ConnectionReporter()
    up, down = ConnectionState.UP, ConnectionState.DOWN
    for status in (
        Status(up),
        Status(up, disconnected=("pva://a", "ca://b")),
        Status(up, disconnected=("pva://a", "ca://b"), lag=1),
        Status(down, reason="the broker is gone", disconnected=("ca://b",)),
        Status(up),
    ):
        reporter.on_status(status)
    assert capsys.readouterr().err.splitlines() == [
        "k2eg: pva://a is disconnected: its last value may be old",
        "k2eg: ca://b is disconnected: its last value may be old",
        "k2eg: the broker is gone",
        "k2eg: pva://a is connected again",
        "k2eg: the connection to the broker is back",
        "k2eg: ca://b is connected again",
    ]


def test_notes_about_pvs_can_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = ConnectionReporter(of_pvs=False)
    reporter.on_status(Status(ConnectionState.UP, disconnected=("pva://a",)))
    assert capsys.readouterr().err == ""


def test_items_that_do_not_count_are_shown() -> None:
    shown: list[object] = []
    printer = StreamPrinter(shown.append, 2, lambda item: isinstance(item, int))
    for item in (1, "lost", 2, 3):
        printer.on_next(item)
    assert (shown, printer.wait(0)) == ([1, "lost", 2], True)
