"""Notes about lost connections."""

from __future__ import annotations

import pytest

from k2eg.cli.stream_printer import ConnectionReporter
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
