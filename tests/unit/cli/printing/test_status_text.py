"""The state of a client in one line."""

from __future__ import annotations

from k2eg.cli.printing.status_text import status_text
from k2eg_rx import ConnectionState, Status


def test_a_client_that_keeps_up_has_a_lag_only() -> None:
    assert status_text(Status(ConnectionState.UP)) == "lag 0"


def test_the_state_names_what_is_wrong() -> None:
    status = Status(ConnectionState.DOWN, reason="broker\x1b away", disconnected=("pva://x",), lost={"y": 2}, dropped=3)
    assert status_text(status) == r"broker\x1b away, 1 not connected, lag 0, replaced 3, lost 2"
