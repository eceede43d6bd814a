"""The age of a command: by Kafka's clock, by its arrival, or by its sender's clock."""

from __future__ import annotations

from typing import Any

import pytest

from k2eg_rx.gateway.commands.claims import Claims
from k2eg_rx.gateway.commands.requests import Clock, CommandRequest, Written, when_written
from k2eg_rx.protocol import ReplyTo, Serialization
from k2eg_rx.transport import Record

NOW = 1_700_000_000.0
REMEDY = "message.timestamp.type=LogAppendTime"


@pytest.mark.parametrize(
    ("is_append_time", "is_live", "age", "clock", "refusal"),
    [
        (True, False, 1.0, Clock.KAFKA, ""),
        (True, False, 29.0, Clock.KAFKA, ""),
        (True, False, 35.0, Clock.KAFKA, "waited 35.0 s"),
        (True, True, 35.0, Clock.KAFKA, "waited 35.0 s"),
        (True, False, -4.0, Clock.KAFKA, ""),
        (True, False, -6.0, Clock.KAFKA, "6.0 s in the future"),
        (False, True, 35.0, Clock.ARRIVAL, ""),
        (False, True, 3600.0, Clock.ARRIVAL, ""),
        (False, True, -120.0, Clock.ARRIVAL, ""),
        (False, False, 29.0, Clock.SENDER, ""),
        (False, False, 35.0, Clock.SENDER, "waited 35.0 s"),
        (False, False, -4.0, Clock.SENDER, ""),
        (False, False, -120.0, Clock.SENDER, "120.0 s in the future"),
    ],
)
def test_the_age_of_a_command(is_append_time: bool, is_live: bool, age: float, clock: Clock, refusal: str) -> None:
    record = Record("commands", 0, 0, None, b"", (), round((NOW - age) * 1000), is_append_time)
    written = when_written(record, NOW, is_live=is_live)
    assert written.clock is clock
    text = _request(written).too_late(NOW, 30.0, "put")
    assert refusal in text
    assert bool(text) == bool(refusal)
    assert (REMEDY in text) == (clock is Clock.SENDER and bool(refusal)), "the remedy is named where it is one"


def test_a_command_that_arrived_live_grows_old_in_the_gateway() -> None:
    record = Record("commands", 0, 0, None, b"", (), round((NOW - 3600) * 1000))
    request = _request(when_written(record, NOW, is_live=True))
    assert request.too_late(NOW + 29.0, 30.0, "put") == ""
    assert "waited 31.0 s" in request.too_late(NOW + 31.0, 30.0, "put")


def test_the_age_of_a_record_without_time_stamp_is_unknown() -> None:
    written = when_written(Record("commands", 0, 0, None, b""), NOW, is_live=False)
    assert _request(written).too_late(NOW, 30.0, "put") == ""


def _request(written: Written) -> CommandRequest[Any]:
    claim = Claims().of(Record("commands", 0, 0, None, b""))
    return CommandRequest(None, ReplyTo("replies", "id", Serialization.JSON), claim, written)
