"""Recurring snapshots from a gateway that numbers its messages; the test publishes them, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from reactivex import operators as ops

from k2eg.dml import dml
from k2eg_rx import (
    Client,
    OperationTimeout,
    Snapshot,
    SnapshotData,
    SnapshotHeader,
    SnapshotProperties,
    SnapshotTail,
    first,
)
from k2eg_rx.protocol.msgpack_codec import pack
from k2eg_rx.testing import ScriptedGateway

NAME = "snap"
HEADERS = [("k2eg-ser-type", b"Msgpack")]
BEGIN = 1_795_335_216_000_000_000  # nanoseconds
Body = dict[str, Any]


@pytest.fixture
def gateway() -> Iterator[ScriptedGateway]:
    with ScriptedGateway() as gateway:
        gateway.go_down()  # the test publishes in its place
        yield gateway


@pytest.fixture
def client(gateway: ScriptedGateway) -> Iterator[Client]:
    with gateway.client() as client:
        yield client


def properties(**fields: Any) -> SnapshotProperties:
    return SnapshotProperties(NAME, ["pva://a", "ca://b"], **fields)


def iteration(index: int, values: Sequence[int], **tags: str) -> list[Body]:
    """Returns the messages of an iteration with two partial pushes, as the newest gateways write them."""
    common = {"timestamp": BEGIN + index * 10**9, "iter_index": index}
    named = {"snapshot_name": NAME, **common}
    header = {"message_type": 0, **named, "msg_seq": 1, "submission_seq": 1} | ({"tags": tags} if tags else {})
    half = len(values) // 2
    data = [
        {"message_type": 1, **common, "ab"[n % 2]: {"value": value}}
        | {
            "msg_seq": n + 2,
            "submission_seq": 1 + (n >= half),
            "last_submission_data": n in (half - 1, len(values) - 1),
        }
        for n, value in enumerate(values)
    ]
    total = len(values) + 2
    last = {"msg_seq": total, "total_messages": total, "submission_seq": 2}
    return [header, *data, {"message_type": 2, "error": 0, **named, **last}]


def publish(gateway: ScriptedGateway, *bodies: Body) -> None:
    gateway.broker.create_topic(NAME, 1)
    for body in bodies:
        gateway.broker.append(NAME, pack(body), NAME.encode(), HEADERS)
    gateway.settle()


def subscribed(gateway: ScriptedGateway, stream: Any) -> list[Any]:
    seen: list[Any] = []
    stream.subscribe(seen.append, on_completed=lambda: seen.append("completed"))
    gateway.settle()
    return seen


def values(snapshots: Sequence[Snapshot]) -> list[list[int]]:
    return [[structure["value"] for samples in s.data.values() for structure in samples] for s in snapshots]


def test_shuffled_and_overlapping_iterations_are_handed_over_whole_and_in_order(
    gateway: ScriptedGateway, client: Client
) -> None:
    seen = subscribed(gateway, client.snapshot_recurring_stream(properties()))
    chance = random.Random(1)
    parts = [iteration(index, range(10 * index, 10 * index + 6)) for index in range(1, 20)]
    order: list[Body] = []
    for earlier, later in zip(parts[::2], [*parts[1::2], []], strict=True):
        rest = [*earlier[1:], *later[1:]]
        chance.shuffle(rest)  # data after the tail, and after the next iteration's
        order += [*earlier[:1], *later[:1], *rest]
    publish(gateway, *order)
    assert [(snapshot.iteration, snapshot.complete) for snapshot in seen] == [(n, True) for n in range(1, 20)]
    assert [sorted(found) for found in values(seen)] == [list(range(10 * n, 10 * n + 6)) for n in range(1, 20)]
    assert values(seen)[0] == [10, 12, 14, 11, 13, 15]
    assert seen[0].timestamp == BEGIN + 10**9
    assert client.status.snapshot_drops == {}


def test_an_iteration_with_missing_messages_is_handed_over_after_its_window(
    gateway: ScriptedGateway, client: Client
) -> None:
    seen = subscribed(gateway, client.snapshot_recurring_stream(properties(time_window=3000)))
    lost = iteration(1, range(4))
    publish(gateway, *lost[:2], *lost[3:], *iteration(2, range(2)))
    gateway.advance(2.9)
    assert seen == []
    gateway.advance(0.2)
    assert [(snapshot.iteration, snapshot.complete, snapshot.missing) for snapshot in seen] == [
        (1, False, 1),
        (2, True, 0),
    ]
    assert client.status.snapshot_drops == {"incomplete": 1}
    publish(gateway, lost[2], *iteration(3, range(2)))
    assert [snapshot.iteration for snapshot in seen] == [1, 2, 3]
    assert client.status.snapshot_drops == {"incomplete": 1, "old": 1}


@pytest.mark.parametrize(("window", "wait", "expected"), [(100, None, 1.0), (5000, 0.5, 0.5)])
def test_the_wait_is_a_second_at_least_or_an_option(
    gateway: ScriptedGateway, window: int, wait: float | None, expected: float
) -> None:
    with gateway.client(snapshot_wait=wait) as client:
        seen = subscribed(gateway, client.snapshot_recurring_stream(properties(time_window=window)))
        publish(gateway, *iteration(1, range(2))[::2], *iteration(1, range(2))[3:])
        gateway.advance(expected - 0.01)
        assert seen == []
        gateway.advance(0.02)
        assert len(seen) == 1


def test_a_wait_that_is_no_duration_is_refused(gateway: ScriptedGateway) -> None:
    for wait in (0, -1.0, float("inf"), "1", True):
        with pytest.raises(ValueError, match="snapshot_wait must"):
            gateway.client(snapshot_wait=wait)
        with pytest.raises(ValueError, match="snapshot_wait must"):
            dml("test", "test", snapshot_wait=wait)  # pyright: ignore[reportArgumentType]


def test_while_a_slow_subscriber_holds_reading_back_an_iteration_has_more_time(
    gateway: ScriptedGateway, client: Client
) -> None:
    seen = subscribed(gateway, client.snapshot_recurring_stream(properties()))
    router = client._core.recurring._router  # pyright: ignore[reportPrivateUsage]
    first_, *others = iteration(1, range(2))
    publish(gateway, first_, others[-1])
    router.ready = lambda: False
    gateway.advance(5.0)
    assert seen == []
    router.ready = lambda: True
    publish(gateway, *others[:-1])
    assert [snapshot.complete for snapshot in seen] == [True]


def test_after_reading_was_held_back_an_iteration_waits_once_more(gateway: ScriptedGateway, client: Client) -> None:
    seen = subscribed(gateway, client.snapshot_recurring_stream(properties()))
    router = client._core.recurring._router  # pyright: ignore[reportPrivateUsage]
    publish(gateway, *iteration(1, range(2))[::3])
    router.ready = lambda: False
    gateway.advance(1.5)
    router.ready = lambda: True
    gateway.advance(1.0)
    assert seen == []
    gateway.advance(1.0)
    assert [snapshot.missing for snapshot in seen] == [2]


def test_a_restart_of_the_gateway_hands_over_what_was_open(gateway: ScriptedGateway, client: Client) -> None:
    seen = subscribed(gateway, client.snapshot_recurring_stream(properties()))
    restarted = [body | {"timestamp": body["timestamp"] + 10**12} for body in iteration(1, range(2))]
    publish(gateway, *iteration(1, range(2)), *iteration(2, range(2))[:2], *restarted)
    assert [(snapshot.iteration, snapshot.missing) for snapshot in seen] == [(1, 0), (2, 1), (1, 0)]


def test_a_group_reads_on_from_the_first_message_of_what_is_open(gateway: ScriptedGateway, client: Client) -> None:
    seen = subscribed(gateway, client.snapshot_recurring_stream(properties()))
    router = client._core.recurring._router  # pyright: ignore[reportPrivateUsage]
    restarted = [body | {"timestamp": body["timestamp"] + 10**12} for body in iteration(1, range(2))]
    publish(gateway, *iteration(1, range(2)), *iteration(2, range(2)), *restarted[:2], iteration(2, [])[0])
    assert router.reclaim_undelivered([(NAME, 1)]) == {}
    assert router.reclaim_undelivered([(NAME, 0)]) == {(NAME, 0): 8}
    assert router.reclaim_undelivered([(NAME, 0)]) == {}
    gateway.advance(10.0)
    assert [snapshot.iteration for snapshot in seen] == [1, 2], "what is open is left to the next reader"


def test_events_show_the_numbers_as_they_arrive(gateway: ScriptedGateway, client: Client) -> None:
    seen = subscribed(gateway, client.snapshot_events_stream(properties()))
    header, *data, tail = iteration(1, range(3), shot="7")
    publish(gateway, header, tail, *data)
    shown: list[Any] = []
    for message in seen:
        match message:
            case SnapshotHeader():
                shown.append(("header", message.msg_seq, message.submission_seq, message.tags))
            case SnapshotData():
                shown.append((message.msg_seq, message.submission_seq, message.last_submission_data))
            case SnapshotTail():
                shown.append(("tail", message.msg_seq, message.submission_seq, message.total_messages))
    assert shown == [
        ("header", 1, 1, {"shot": "7"}),
        ("tail", 5, 2, 5),
        (2, 1, True),
        (3, 2, False),
        (4, 2, True),
    ]


def test_tags_reach_the_snapshot(gateway: ScriptedGateway, client: Client) -> None:
    seen = subscribed(gateway, client.snapshot_recurring_stream(properties()))
    publish(gateway, *iteration(1, range(2), shot="7"), *iteration(2, range(2)))
    assert [snapshot.tags for snapshot in seen] == [{"shot": "7"}, {}]


def test_the_end_of_a_stream_ends_its_timer(gateway: ScriptedGateway, client: Client) -> None:
    seen: list[Snapshot] = []
    subscription = client.snapshot_recurring_stream(properties()).subscribe(seen.append)
    gateway.settle()
    publish(gateway, *iteration(1, range(2))[::3])
    subscription.dispose()
    gateway.advance(10.0)
    assert seen == []
    assert client.status.snapshot_drops == {}


@pytest.mark.parametrize("kind", ["snapshots", "messages", "dml"])
def test_a_stop_adds_no_iteration_to_those_of_the_triggers(kind: str) -> None:
    with ScriptedGateway() as gateway, dml("test", "test") as client:
        gateway.pv("a", 1)
        gateway.pv("b", 2)
        triggered = properties(triggered=True)
        seen: list[Any] = []
        if kind == "dml":
            client.snapshot_recurring(triggered, lambda _, data: seen.append(data["iteration"]))
        elif kind == "snapshots":
            client.snapshot_recurring_stream(triggered).subscribe(lambda each: seen.append(each.iteration))
        else:
            tails = ops.filter(lambda message: isinstance(message, SnapshotTail))
            stream: Any = client.snapshot_events_stream(triggered)
            stream.pipe(tails).subscribe(lambda each: seen.append(each.iter_index))
        gateway.settle()
        for _ in range(3):
            client.snapshot_trigger(NAME)
        client.snapshot_stop(NAME)
        gateway.advance(5.0)
        assert seen == [1, 2, 3]
        published = [record for record in gateway.broker.records(NAME) if b"total_messages" in (record.value or b"")]
        assert len(published) == 4, "the gateway did publish one more"


def test_iterations_of_triggers_that_are_on_their_way_at_a_stop_are_handed_over(
    gateway: ScriptedGateway, client: Client
) -> None:
    seen = subscribed(gateway, client.snapshot_recurring_stream(properties(triggered=True)))
    triggers: list[Any] = []
    for _ in range(2):
        client.snapshot_trigger_stream(NAME, 60.0).subscribe(triggers.append, triggers.append)
    publish(gateway, *iteration(1, [1]))
    stop: list[Any] = []
    client.snapshot_stop_stream(NAME, 60.0).subscribe(stop.append, stop.append)
    publish(gateway, *iteration(2, [2]), *iteration(3, [3]))
    assert [snapshot.iteration for snapshot in seen] == [1, 2]


def test_a_stop_that_fails_changes_nothing(gateway: ScriptedGateway, client: Client) -> None:
    seen = subscribed(gateway, client.snapshot_recurring_stream(properties(triggered=True)))
    publish(gateway, *iteration(1, [1]))  # of another client's trigger
    errors: list[Exception] = []
    client.snapshot_stop_stream(NAME, 1.0).subscribe(on_error=errors.append)
    publish(gateway, *iteration(2, [2]))
    gateway.advance(2.0)
    assert isinstance(errors[0], OperationTimeout)
    publish(gateway, *iteration(3, [3]))
    assert [snapshot.iteration for snapshot in seen] == [1, 3]


def test_a_trigger_that_fails_does_not_count(gateway: ScriptedGateway, client: Client) -> None:
    seen = subscribed(gateway, client.snapshot_recurring_stream(properties(triggered=True)))
    with pytest.raises(OperationTimeout):
        first(client.snapshot_trigger_stream(NAME, 1.0))
    client.snapshot_stop_stream(NAME, 60.0).subscribe(on_error=lambda _: None)
    publish(gateway, *iteration(1, [1]))
    assert seen == []


def test_callbacks_get_milliseconds_and_incomplete_iterations_are_logged(
    gateway: ScriptedGateway, caplog: pytest.LogCaptureFixture
) -> None:
    with dml("test", "test") as client:
        calls: list[Body] = []
        gateway.come_up()
        client.snapshot_recurring(properties(triggered=True), lambda _, data: calls.append(data))
        gateway.go_down()
        publish(gateway, *iteration(1, range(2))[::3])
        gateway.advance(2.0)
        assert [data["timestamp"] for data in calls] == [BEGIN // 10**6 + 1000]
        assert "snapshot iteration incomplete: name=snap iteration=1 missing=2 messages" in caplog.text


def test_messages_of_a_gateway_that_was_replaced_are_left_out(gateway: ScriptedGateway, client: Client) -> None:
    seen = subscribed(gateway, client.snapshot_recurring_stream(properties()))
    gateway.broker.create_topic(NAME, 1)

    def publish_from(epoch: int, *bodies: Body) -> None:
        for body in bodies:
            headers = [*HEADERS, ("k2eg-epoch", b"fleet:%d" % epoch)]
            gateway.broker.append(NAME, pack(body), NAME.encode(), headers)
        gateway.settle()

    publish_from(5, *iteration(1, [1, 2]))
    publish_from(7, *iteration(2, [3, 4]))
    publish_from(5, *iteration(2, [1, 2]))
    publish_from(5, *iteration(9, [1, 2]))
    publish_from(7, *iteration(3, [5, 6]))
    assert [snapshot.iteration for snapshot in seen] == [1, 2, 3]
    assert client.status.snapshot_drops == {"superseded": 8}
