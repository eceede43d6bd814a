"""How long a history query waits for a broker that does not answer; the test's own clock."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from k2eg_rx.errors import OperationTimeout
from k2eg_rx.history.reader import HistoryQuery, HistoryReader
from k2eg_rx.history.selection import Interval
from k2eg_rx.pv import PVAddress
from k2eg_rx.transport.decode_errors import DecodeErrorCounter
from k2eg_rx.transport.interfaces import Excerpt, Partition, Span

TIMEOUT = 12.0
PV = PVAddress.parse("pva://a")


class SilentBroker:
    """A history that locates nothing before `located` is set, and reads nothing."""

    located = False

    def locate(self, start_ms: int, stop_ms: int | None, timeout: float) -> dict[Partition, Span] | None:
        return {("a", 0): Span(0, 1)} if self.located else None

    def read(self, wanted: Mapping[Partition, int], timeout: float) -> Excerpt:
        return Excerpt([], {})

    def close(self) -> None: ...


class Harness:
    """A query of a silent broker, and its clock in seconds."""

    def __init__(self, *, patient: bool) -> None:
        self.now = 0.0
        self.broker = SilentBroker()
        reader = HistoryReader(
            lambda _: cast("Any", self.broker), DecodeErrorCounter(), max_bytes=10_000, timeout=TIMEOUT
        )
        reader.runner = cast(
            "Any", SimpleNamespace(clock=lambda: self.now, now=lambda: datetime.now(UTC), may_block=False)
        )
        self.query = HistoryQuery(reader, [PV], Interval(0), PV.uri, 100, patient=patient)


@pytest.mark.parametrize("located", [False, True])
def test_a_query_fails_when_the_broker_is_silent_for_the_timeout(located):
    harness = Harness(patient=False)
    harness.broker.located = located
    merge = harness.query.begin()

    def ask() -> None:
        harness.query.begin() if merge is None else harness.query.advance(merge)

    ask()
    harness.now = TIMEOUT - 0.1
    ask()
    harness.now = TIMEOUT
    with pytest.raises(OperationTimeout, match="replay of pva://a: nothing within 12 s"):
        ask()


def test_a_patient_query_waits_for_a_broker_that_does_not_locate_and_does_not_read():
    harness = Harness(patient=True)
    assert harness.query.begin() is None
    harness.now = 100 * TIMEOUT
    assert harness.query.begin() is None
    harness.broker.located = True
    merge = harness.query.begin()
    assert merge is not None
    harness.now = 200 * TIMEOUT
    assert harness.query.advance(merge) == []
    harness.now = 300 * TIMEOUT
    assert harness.query.advance(merge) == []
