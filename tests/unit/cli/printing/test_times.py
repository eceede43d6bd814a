"""The column of times."""

from __future__ import annotations

import itertools

import pytest

from k2eg.cli.printing.formatting import local_time
from k2eg.cli.printing.times import TimeColumn
from k2eg_rx import PVAddress, PVData, PVUpdate
from k2eg_rx.protocol.msgpack_codec import pack
from k2eg_rx.transport import Record

SECOND = 1_000_000_000


def at(seconds: float) -> PVData:
    whole = int(seconds)
    stamp = {"secondsPastEpoch": whole, "nanoseconds": round((seconds - whole) * SECOND)}
    return PVData("x", {"value": 1, "timeStamp": stamp})


def test_the_time_is_that_of_epics_or_of_the_arrival() -> None:
    assert TimeColumn("server").text(at(1000.5)) == local_time(int(1000.5 * SECOND))
    assert TimeColumn("client", lambda: 7 * SECOND).text(at(1000.5)) == local_time(7 * SECOND)


@pytest.mark.parametrize(("kind", "texts"), [("relative", [1.0, 1.5]), ("delta", [0.0, 0.5])])
def test_relative_times_are_in_seconds(kind: str, texts: list[float]) -> None:
    column = TimeColumn(kind, itertools.repeat(1000 * SECOND).__next__)
    assert [float(column.text(at(seconds))) for seconds in (1001.0, 1001.5)] == texts
    assert column.text(PVData("x", {"value": 1})) == "<undefined>"


def test_the_time_of_kafka_is_that_of_the_record() -> None:
    record = Record("x", 0, 0, b"x", pack({"x": {"value": 1}}), [("k2eg-ser-type", b"Msgpack")], 5000)
    assert TimeColumn("kafka").text(PVUpdate(PVAddress.parse("pva://x"), record)) == local_time(5 * SECOND)
    assert "<undefined>" in TimeColumn("kafka").text(at(1.0))
