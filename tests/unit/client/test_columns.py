"""`Client.monitor_columns` in virtual time: when batches are emitted, what they have, and what is counted."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import reactivex as rx
from reactivex.testing import TestScheduler

from k2eg_rx import Client, ColumnBatch, OperationError, Status
from k2eg_rx.client.columns import ColumnCollector
from k2eg_rx.delivery import RecordRun
from k2eg_rx.protocol import EventReader
from k2eg_rx.protocol.msgpack_codec import pack
from k2eg_rx.pv import PVAddress
from k2eg_rx.testing import ScriptedGateway
from k2eg_rx.transport import Record

URIS = ["pva://x", "ca://y"]
MSGPACK: Any = [("k2eg-ser-type", b"Msgpack")]


@pytest.fixture
def gateway() -> Iterator[ScriptedGateway]:
    with ScriptedGateway() as gateway:
        yield gateway


class Seen:
    """A subscriber that records values by PV of each batch, and the end."""

    def __init__(self, stream: rx.Observable[ColumnBatch], scheduler: Any = None) -> None:
        self.batches: list[ColumnBatch] = []
        self.end: list[object] = []
        self.subscription = stream.subscribe(
            self.batches.append, self.end.append, lambda: self.end.append("completed"), scheduler=scheduler
        )

    @property
    def values(self) -> list[dict[str, list[Any]]]:
        return [{uri: column.value.tolist() for uri, column in batch.items()} for batch in self.batches]


def test_a_batch_for_each_interval_with_the_pvs_that_have_events(gateway: ScriptedGateway) -> None:
    x, _ = gateway.pv("x", 1.5, units="mm"), gateway.pv("y", 7)
    with gateway.client() as client:
        seen = Seen(client.monitor_columns(URIS, every=1.0))
        gateway.advance(0.4)
        x.post(2.5)
        assert seen.values == []
        gateway.advance(0.6)
        assert seen.values == [{"pva://x": [1.5, 2.5], "ca://y": [7]}]
        gateway.advance(5.0)
        assert len(seen.batches) == 1, "none without events"
        x.post(3.5)
        gateway.advance(1.0)
        assert seen.values[1:] == [{"pva://x": [3.5]}]
        assert seen.batches[1]["pva://x"].last.units == "mm"
        assert (seen.batches[0].events, len(seen.batches[0])) == (3, 2)
    assert seen.end == ["completed"]


def test_a_batch_of_a_number_of_events_and_the_rest_at_the_end(gateway: ScriptedGateway) -> None:
    x, y = gateway.pv("x", 0), gateway.pv("y", 0)
    with gateway.client() as client:
        seen = Seen(client.monitor_columns(URIS, count=4))
        for value in range(1, 5):
            x.post(value)
            y.post(value)
        gateway.advance(100.0)
        assert [batch.events for batch in seen.batches] == [4, 4]
    assert [batch.events for batch in seen.batches] == [4, 4, 2]
    assert [value for values in seen.values for value in values["pva://x"]] == [0, 1, 2, 3, 4]
    assert seen.end == ["completed"]


def test_whichever_comes_first(gateway: ScriptedGateway) -> None:
    x = gateway.pv("x", 0)
    with gateway.client() as client:
        seen = Seen(client.monitor_columns(["pva://x"], count=3, every=1.0))
        x.post(1)
        x.post(2)
        x.post(3)
        assert seen.values == [{"pva://x": [0, 1, 2]}]
        gateway.advance(1.0)
        assert seen.values[1:] == [{"pva://x": [3]}]


def test_it_shares_the_monitor_and_begins_with_the_last_update(gateway: ScriptedGateway) -> None:
    x = gateway.pv("x", 0)
    with gateway.client() as client:
        updates: list[Any] = []
        first = client.monitor_stream("pva://x", overflow="latest").subscribe(
            lambda update: updates.append(update.value)
        )
        x.post(1)
        seen, other = (Seen(client.monitor_columns(["pva://x"], count=2)) for _ in range(2))
        x.post(2)
        assert client.status.monitors == 1
        first.dispose()
        x.post(3)
        x.post(4)
        assert seen.values == other.values == [{"pva://x": [1, 2]}, {"pva://x": [3, 4]}]
        assert updates == [0, 1, 2]
        seen.subscription.dispose()
        other.subscription.dispose()
        assert client.status.monitors == 0
        gateway.advance(5.0)


def event(transport: Any, *values: object, **changes: Any) -> None:
    """Publishes values of PV `x`."""
    records = [
        Record("x", 0, 0, b"x", pack({"x": {"value": value}}), [("k2eg-ser-type", b"Msgpack")])._replace(**changes)
        for value in values
    ]
    transport.event_source.receiver.receive(records)


def test_a_slow_subscriber_gets_the_events_of_several_intervals_together(
    timers: TestScheduler, client: Client, transport: Any
) -> None:
    busy = TestScheduler()
    seen = Seen(client.monitor_columns(["pva://x"], every=1.0), busy)
    transport.reply(transport.commands[0])
    for value in range(3):
        event(transport, value)
        timers.advance_by(1.0)
    busy.start()
    assert seen.values == [{"pva://x": [0]}], "one tick waits at a time"
    timers.advance_by(1.0)
    busy.start()
    assert seen.values == [{"pva://x": [0]}, {"pva://x": [1, 2]}]


def test_a_full_queue_blocks_or_drops_the_oldest_and_counts_them(client: Client, transport: Any) -> None:
    busy = TestScheduler()
    blocking = Seen(client.monitor_columns(["pva://x"], count=1, capacity=4), busy)
    dropping = Seen(client.monitor_columns(["pva://x"], count=1, capacity=4, overflow="drop_oldest"), busy)
    transport.reply(transport.commands[0])
    ready = transport.event_source.receiver.ready
    event(transport, 0, 1, 2)
    assert ready()
    event(transport, 3, 4, 5)
    assert not ready(), "Kafka is the buffer"
    assert client.status.dropped == 2
    busy.start()
    assert ready()
    assert blocking.values == [{"pva://x": [value]} for value in range(6)]
    assert dropping.values == [{"pva://x": [value]} for value in range(2, 6)]


def test_an_undecodable_event_is_left_out_counted_and_logged(
    client: Client, transport: Any, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Seen(client.monitor_columns(["pva://x"], count=2), busy := TestScheduler())
    transport.reply(transport.commands[0])
    with caplog.at_level(logging.WARNING):
        event(transport, 0)
        event(transport, 1, value=b"\xc1")
        event(transport, 2, 3)
        busy.start()
    assert seen.values == [{"pva://x": [0, 2]}]
    assert client.status.decode_errors == {("undecodable", "pva://x"): 1}
    assert "skipped a record: source=pva://x" in caplog.text


def test_an_event_of_the_other_protocol_activates_the_pv_again(client: Client, transport: Any) -> None:
    Seen(client.monitor_columns(["pva://x"], count=1), busy := TestScheduler())
    transport.reply(transport.commands[0])
    event(transport, 1, headers=[("k2eg-ser-type", b"Msgpack"), ("k2eg-protocol", b"ca")])
    busy.start()
    assert len(transport.commands) == 2
    assert client.status.decode_errors == {("protocol", "pva://x"): 1}


def test_a_refusal_follows_what_was_collected(client: Client, transport: Any) -> None:
    seen = Seen(client.monitor_columns(["pva://x"], count=9), busy := TestScheduler())
    event(transport, 1)
    transport.reply(transport.commands[0], error=-1, message="no such PV")
    busy.start()
    assert seen.values == [{"pva://x": [1]}]
    (error,) = seen.end
    assert isinstance(error, OperationError)


def test_a_gateway_that_ignores_a_field_fails_the_stream(client: Client, transport: Any) -> None:
    seen = Seen(client.monitor_columns(["pva://x.HIGH"], count=1), busy := TestScheduler())
    transport.reply(transport.commands[0])
    topic = transport.event_source.topics[0]
    event(transport, 1, topic=topic)
    busy.start()
    (error,) = seen.end
    assert isinstance(error, OperationError)
    assert client.status.monitors == 0


def test_an_exception_of_the_subscriber_ends_its_own_subscription(gateway: ScriptedGateway) -> None:
    x = gateway.pv("x", 0)

    def fail(_: object) -> None:
        raise LookupError("mine")

    with gateway.client() as client:
        errors: list[Exception] = []
        client.monitor_columns(["pva://x"], count=2).subscribe(fail, errors.append)
        seen = Seen(client.monitor_columns(["pva://x"], count=2))
        for value in range(1, 4):
            x.post(value)
        assert [str(error) for error in errors] == ["mine"]
        assert seen.values == [{"pva://x": [0, 1]}, {"pva://x": [2, 3]}]


def test_arguments(client: Client, transport: Any) -> None:
    with pytest.raises(ValueError, match=r"every .seconds. or count .updates., got neither"):
        client.monitor_columns(URIS)
    with pytest.raises(ValueError, match=r"overflow must be 'block' or 'drop_oldest' .* got 'latest'"):
        client.monitor_columns(URIS, every=1.0, overflow="latest")
    for wrong in ({"every": 0.0}, {"every": "1"}, {"count": 0}, {"count": 1.5}, {"capacity": 0, "count": 1}):
        with pytest.raises(ValueError, match="must be"):
            client.monitor_columns(URIS, **wrong)  # pyright: ignore[reportArgumentType]
    with Client("scripted", "test", group_name="workers", settings=client.settings, transport=transport) as member:
        with pytest.raises(ValueError, match="needs a client without group_name, got 'workers'"):
            member.monitor_columns(URIS, every=1.0)
        assert isinstance(member.status, Status)


@pytest.mark.parametrize("count", [1, 50, 1000])
def test_runs_that_were_read_together_and_others_are_one_column(count: int) -> None:
    address = PVAddress.parse("pva://x")
    reader = EventReader(address)

    def run(begin: int, end: int, *, is_read: bool) -> RecordRun:
        bodies = [
            pack({"x": {"value": n + 0.5, "timeStamp": {"secondsPastEpoch": 1000 + n, "nanoseconds": 0}}})
            for n in range(begin, end)
        ]
        records = [Record("x", 0, begin + n, b"x", body, MSGPACK) for n, body in enumerate(bodies)]
        read = reader.read(bodies, records[0]) if is_read else None
        return RecordRun(address, records, are_usual=True, read=read)

    collector = ColumnCollector([address], count, lambda _, error: pytest.fail(str(error)))
    parts = [(0, 40, True), (40, 50, False), (50, 130, True), (130, 150, False)]
    batches = [batch for begin, end, is_read in parts for batch in collector.feed(run(begin, end, is_read=is_read))]
    batches += collector.finish()
    assert [batch.events for batch in batches] == [count] * (150 // count) + [150 % count] * (150 % count > 0)
    values = [value for batch in batches for value in batch["pva://x"].value.tolist()]
    assert values == [n + 0.5 for n in range(150)]
    ends = [batch["pva://x"].last.record.offset for batch in batches]
    assert ends == [min((number + 1) * count, 150) - 1 for number in range(len(batches))]
