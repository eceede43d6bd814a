"""Routing of event records: by topic and key, without decoding."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, cast

import pytest

from k2eg_rx.client.router import EventRouter
from k2eg_rx.client.routes import PVRoute
from k2eg_rx.errors import OperationError
from k2eg_rx.protocol import (
    NOTICE_HEADERS,
    ConnectionEvent,
    Notice,
    PVState,
    connection_body,
    connection_headers,
    connection_key,
)
from k2eg_rx.protocol.messages import PVUpdate
from k2eg_rx.protocol.msgpack_codec import pack
from k2eg_rx.pv import PVAddress, monitor_topic
from k2eg_rx.transport.decode_errors import DecodeErrorCounter
from k2eg_rx.transport.interfaces import Partition, Record

HEADERS = [("k2eg-ser-type", b"Msgpack")]


class Recorder:
    """A subscriber that records its items."""

    def __init__(self, *, newest_only: bool = False) -> None:
        self.items: list[Any] = []
        self.newest_only = newest_only
        self.conflated = 0

    def count_conflated(self, count: int) -> None:
        self.conflated += count

    def offer(self, items: Sequence[PVUpdate]) -> None:
        self.items.extend(items)

    def finish(self, error: Exception | None = None) -> None:
        raise AssertionError(error)

    def cancel_and_drain(self) -> Sequence[PVUpdate]:
        raise AssertionError

    def reclaim_undelivered(self, is_wanted: Callable[[PVUpdate], bool]) -> Sequence[PVUpdate]:
        reclaimed = [item for item in self.items if is_wanted(item)]
        self.items = [item for item in self.items if not is_wanted(item)]
        return reclaimed

    def values(self) -> list[object]:
        return [item.value for item in self.items]


def event(
    name: str, value: object, offset: int = 0, key: bytes | None = b"", topic: str = "", *, timed: bool = False
) -> Record:
    body = pack({name: {"value": value, "alarm": {"severity": 0}} | ({"timeStamp": {}} if timed else {})})
    return Record(topic or monitor_topic(name), 0, offset, name.encode() if key == b"" else key, body, HEADERS)


@pytest.fixture
def decode_errors() -> DecodeErrorCounter:
    return DecodeErrorCounter()


@pytest.fixture
def router(decode_errors: DecodeErrorCounter) -> EventRouter:
    return EventRouter(decode_errors, lambda: True)


def add_route(router: EventRouter, uri: str, *, newest_only: bool = False) -> tuple[PVRoute, Recorder]:
    address = PVAddress.parse(uri)
    route, recorder = PVRoute(address, monitor_topic(address.name)), Recorder(newest_only=newest_only)
    router.add_pv(route)
    router.attach(route, recorder)
    return route, recorder


def test_an_event_reaches_all_subscribers_of_its_pv_and_no_others(router: EventRouter) -> None:
    route, one = add_route(router, "pva://x")
    two = Recorder()
    router.attach(route, two)
    _, other = add_route(router, "pva://y")
    router.receive([event("x", 1, 0), event("x", 2, 1)])
    assert one.values() == two.values() == [1, 2]
    assert other.items == []


def test_pvs_that_share_a_topic_are_distinguished_by_key(router: EventRouter) -> None:
    _, colon = add_route(router, "pva://a:b")
    _, under = add_route(router, "pva://a_b")
    router.receive([event("a:b", 1), event("a_b", 2), event("a-b", 3, topic="a_b")])
    assert (colon.values(), under.values()) == ([1], [2])


def test_an_event_without_a_key_is_routed_by_its_body(router: EventRouter) -> None:
    _, recorder = add_route(router, "pva://x")
    router.receive([event("x", 1, key=None)])
    assert recorder.values() == [1]


def test_a_later_subscriber_starts_with_the_last_update(router: EventRouter) -> None:
    route, _ = add_route(router, "pva://x")
    router.receive([event("x", 1), event("x", 2)])
    late = Recorder()
    router.attach(route, late)
    router.receive([event("x", 3)])
    assert late.values() == [2, 3]


def test_events_of_several_pvs_reach_one_subscriber_in_their_order(router: EventRouter) -> None:
    route, recorder = add_route(router, "pva://x")
    other = PVRoute(PVAddress.parse("pva://y"), "y")
    router.add_pv(other)
    router.attach(other, recorder)
    router.receive([event("x", 1), event("y", 2), event("x", 3)])
    assert recorder.values() == [1, 2, 3]
    assert router.detach(route, recorder) == 0


def test_a_repeated_event_is_routed_once(router: EventRouter) -> None:
    route, recorder = add_route(router, "pva://x")
    timed = {"x": {"value": 1, "timeStamp": {"secondsPastEpoch": 5, "nanoseconds": 0}}}
    records = [Record("x", 0, offset, b"x", pack(timed), HEADERS) for offset in range(2)]
    router.receive(records)
    assert recorder.values() == [1]
    late = Recorder()
    router.attach(route, late)
    assert late.values() == [1]
    router.receive([event("x", 2), event("x", 2)])
    assert recorder.values() == [1, 2, 2]


def connection(name: str, at: int, state: str, host: str = "", epoch: str = "") -> Record:
    change = ConnectionEvent(name, f"pva://{name}", PVState(state), at * 1_000_000, host)
    return Record(
        monitor_topic(name), 1, 0, connection_key(name), connection_body(change), connection_headers(epoch), at
    )


def at(record: Record, milliseconds: int) -> Record:
    return record._replace(timestamp_ms=milliseconds)


def seen(recorder: Recorder) -> list[Any]:
    """Returns values, and states of connections with their times in milliseconds."""
    return [
        (item.state.value, item.since // 1_000_000) if isinstance(item, ConnectionEvent) else item.value
        for item in recorder.items
    ]


def test_a_connection_record_marks_its_pv_as_lost_and_is_no_update(
    router: EventRouter, decode_errors: DecodeErrorCounter
) -> None:
    route, recorder = add_route(router, "pva://a:b")
    other, _ = add_route(router, "pva://a_b")
    router.receive([at(event("a:b", 1), 100), connection("a:b", 100, "disconnected")])
    assert (route.is_lost(), other.is_lost()) == (True, False)
    router.receive([connection("a:b", 200, "connected")])
    assert not route.is_lost()
    assert recorder.values() == [1]
    assert not decode_errors.counts()


def test_a_newer_event_shows_that_another_gateway_has_the_pv(router: EventRouter) -> None:
    route, _ = add_route(router, "pva://x")
    watcher = Recorder()
    router.attach(route, watcher, values=False, connections=True)
    router.receive([connection("x", 100, "disconnected")])
    assert route.is_lost()
    router.receive([at(event("x", 1), 100)])
    assert route.is_lost(), "an event of the same time may be older"
    router.receive([at(event("x", 2, offset=1), 101)])
    assert not route.is_lost()
    assert seen(watcher) == [("disconnected", 100), ("connected", 101)]


def test_connections_come_in_order_with_the_updates_and_repeated_ones_once(router: EventRouter) -> None:
    route, values = add_route(router, "pva://x")
    both, watcher = Recorder(), Recorder()
    router.attach(route, both, connections=True)
    router.attach(route, watcher, values=False, connections=True)
    lost = connection("x", 120, "disconnected")
    router.receive([connection("x", 100, "connected"), at(event("x", 1), 100), at(event("x", 2), 110), lost, lost])
    router.receive([connection("x", 130, "connected"), at(event("x", 3), 130)])
    connections = [("connected", 100), ("disconnected", 120), ("connected", 130)]
    assert seen(both) == [connections[0], 1, 2, connections[1], connections[2], 3]
    assert seen(watcher) == connections
    assert values.values() == [1, 2, 3]
    assert {(item.name, item.uri) for item in watcher.items} == {("x", "pva://x")}


@pytest.mark.parametrize("newest_only", [False, True])
def test_the_first_value_of_a_new_connection_is_handed_over_also_if_it_is_the_last_one(
    router: EventRouter, newest_only: bool
) -> None:
    route, values = add_route(router, "pva://x", newest_only=newest_only)
    both = Recorder(newest_only=newest_only)
    router.attach(route, both, connections=True)
    value = at(event("x", 1, timed=True), 100)
    router.receive([connection("x", 100, "connected"), value])
    router.receive([connection("x", 110, "connected"), value])  # a repeat for another client
    router.receive([connection("x", 120, "disconnected")])
    router.receive([connection("x", 120, "disconnected"), value])  # as well
    router.receive([connection("x", 130, "connected"), value])
    router.receive([connection("x", 130, "connected"), value])
    router.receive([at(event("x", 2, timed=True), 140)])
    first, lost = [("connected", 100), 1, ("connected", 110)], ("disconnected", 120)
    assert seen(both) == [*first, lost, ("connected", 130), 1, 2]
    assert values.values() == [1, 2]


def test_other_states_on_the_way_neither_hand_over_a_value_nor_forget_that_it_is_due(router: EventRouter) -> None:
    route, _ = add_route(router, "pva://x")
    both = Recorder()
    router.attach(route, both, connections=True)
    value = at(event("x", 1, timed=True), 100)
    router.receive([value, connection("x", 110, "disconnected"), connection("x", 120, "disconnected"), value])
    router.receive([connection("x", 130, "connected"), connection("x", 130, "connected", "ioc:5064"), value, value])
    assert [state for state in seen(both) if isinstance(state, int)] == [1, 1]
    assert seen(both)[-1] == 1


def test_a_newer_value_of_a_new_connection_is_not_followed_by_its_repeat(router: EventRouter) -> None:
    route, _ = add_route(router, "pva://x")
    both = Recorder()
    router.attach(route, both, connections=True)
    value = at(event("x", 1, timed=True), 120)
    router.receive([connection("x", 100, "disconnected"), connection("x", 110, "connected"), value, value])
    assert seen(both)[2:] == [1]


def test_a_subscriber_between_a_connection_and_its_first_value_gets_no_older_one(router: EventRouter) -> None:
    route, _ = add_route(router, "pva://x")
    value = at(event("x", 1, timed=True), 100)
    router.receive([value, connection("x", 110, "disconnected"), connection("x", 120, "connected")])
    both = Recorder()
    router.attach(route, both, connections=True)
    router.receive([value])
    assert seen(both) == [("connected", 120), 1]


def test_a_gateway_without_connection_records_connects_a_pv_by_its_first_event(router: EventRouter) -> None:
    route, _ = add_route(router, "pva://x")
    watcher = Recorder()
    router.attach(route, watcher, values=False, connections=True)
    router.receive([at(event("x", 1), 100), at(event("x", 2), 110)])
    assert seen(watcher) == [("connected", 100)]
    router.receive([connection("x", 90, "connected", "ioc:5064")])
    assert seen(watcher)[1:] == [("connected", 90)], "with the host"


def test_a_later_subscriber_learns_the_state_in_order_of_time(router: EventRouter) -> None:
    route, _ = add_route(router, "pva://x")
    router.receive([connection("x", 100, "connected"), at(event("x", 1), 100)])
    connected, lost, watcher = Recorder(), Recorder(), Recorder()
    router.attach(route, connected, connections=True)
    router.receive([connection("x", 120, "disconnected")])
    router.attach(route, lost, connections=True)
    router.attach(route, watcher, values=False, connections=True)
    assert seen(connected) == [("connected", 100), 1, ("disconnected", 120)]
    assert seen(lost) == [1, ("disconnected", 120)]
    assert seen(watcher) == [("disconnected", 120)]


def test_connections_of_a_gateway_that_another_one_has_replaced_are_dropped(router: EventRouter) -> None:
    route, _ = add_route(router, "pva://x")
    watcher = Recorder()
    router.attach(route, watcher, values=False, connections=True)
    router.receive([connection("x", 100, "connected", epoch="f:1"), connection("x", 200, "connected", epoch="f:2")])
    router.receive([connection("x", 210, "disconnected", epoch="f:1")])
    assert seen(watcher) == [("connected", 100), ("connected", 200)]
    assert router.superseded() == 1


def test_the_newest_update_of_a_batch_stays_before_a_loss(router: EventRouter) -> None:
    route, _ = add_route(router, "pva://x", newest_only=True)
    both = Recorder(newest_only=True)
    router.attach(route, both, connections=True)
    router.receive([at(event("x", 1), 100), at(event("x", 2), 110), connection("x", 120, "disconnected")])
    assert seen(both) == [("connected", 110), 2, ("disconnected", 120)]


def test_subscribers_of_connections_hold_back_no_conflation(router: EventRouter) -> None:
    route, recorder = add_route(router, "pva://x", newest_only=True)
    watcher = Recorder()
    router.attach(route, watcher, values=False, connections=True)
    assert route.newest_only
    router.receive([event("x", 1), event("x", 2)])
    assert (recorder.values(), watcher.conflated) == ([2], 0)
    assert router.detach(route, recorder) == 1
    assert router.detach(route, watcher) == 0


def test_routing_does_not_decode(router: EventRouter) -> None:
    _, recorder = add_route(router, "pva://x")
    router.receive([Record("x", 0, 0, b"x", b"\xc1", HEADERS)])
    assert len(recorder.items) == 1


def test_a_removed_route_gets_no_events(router: EventRouter) -> None:
    route, recorder = add_route(router, "pva://x")
    router.remove_pv(route)
    router.receive([event("x", 1)])
    assert recorder.items == []
    assert not router.reads("x")


def test_an_undecodable_record_is_counted_and_skipped(router: EventRouter, decode_errors: DecodeErrorCounter) -> None:
    _, recorder = add_route(router, "pva://x")
    router.receive([Record("x", 0, 0, None, b"\xc1", HEADERS), event("x", 1)])
    assert recorder.values() == [1]
    assert decode_errors.counts() == {("undecodable", "x"): 1}


def test_a_path_in_the_structure_is_selected_if_the_gateway_sends_the_record(router: EventRouter) -> None:
    _, recorder = add_route(router, "pva://x.alarm.severity")
    router.receive([event("x", 1, topic="x.alarm.severity")])
    assert recorder.items[0].name == "x.alarm.severity"
    assert recorder.values() == [0]


def test_the_records_value_is_never_taken_for_a_field(router: EventRouter) -> None:
    _, recorder = add_route(router, "pva://x.HIGH")
    router.receive([event("x", 1, topic="x.HIGH")])
    with pytest.raises(OperationError, match=r"x\.HIGH.*does not know record fields"):
        recorder.values()


def test_newest_only_conflates_a_batch_and_counts_replaced_events(
    router: EventRouter,
) -> None:
    _, recorder = add_route(router, "pva://x", newest_only=True)
    _, other = add_route(router, "pva://y", newest_only=True)
    router.receive([event("x", 1), event("y", 7), event("x", 2), event("x", 3)])
    router.receive([event("x", 4)])
    assert (recorder.values(), recorder.conflated) == ([3, 4], 2)
    assert (other.values(), other.conflated) == ([7], 0)


def test_a_repetition_is_neither_routed_nor_counted_as_conflated(router: EventRouter) -> None:
    _, recorder = add_route(router, "pva://x", newest_only=True)
    router.receive([event("x", 1, timed=True)])
    router.receive([event("x", value, timed=True) for value in (1, 2, 2, 3, 3)])
    router.receive([event("x", 3, timed=True)])
    assert (recorder.values(), recorder.conflated) == ([1, 3], 1)


def test_a_subscriber_of_all_events_prevents_conflation(router: EventRouter) -> None:
    route, newest = add_route(router, "pva://x", newest_only=True)
    every = Recorder()
    router.attach(route, every)
    router.receive([event("x", 1), event("x", 2)])
    router.detach(route, every)
    router.receive([event("x", 3), event("x", 4)])
    assert every.values() == [1, 2]
    assert (newest.values(), newest.conflated) == ([1, 2, 4], 1)  # its own queue conflates the 1


def test_an_event_without_a_key_is_not_conflated(router: EventRouter) -> None:
    _, recorder = add_route(router, "pva://x", newest_only=True)
    router.receive([event("x", 1), event("x", 2), event("x", 3, key=None), event("x", 4)])
    assert (recorder.values(), recorder.conflated) == ([2, 3, 4], 1)


def filtered_receive(router: EventRouter, records: Sequence[Record]) -> list[Record]:
    """Passes a batch through the router's filter to the router, as a source does; returns the filtered batch."""
    conflation_filter = router.conflation_filter()
    wanted = (
        None
        if conflation_filter is None
        else conflation_filter([record.key for record in records], lambda number: len(records[number].value or b""))
    )
    left = list(records) if wanted is None else [records[number] for number in wanted]
    router.receive(left)
    return left


def test_the_filter_keeps_the_newest_event_of_each_pv_and_counts_the_others(router: EventRouter) -> None:
    _, recorder = add_route(router, "pva://x", newest_only=True)
    _, other = add_route(router, "pva://y", newest_only=True)
    batch = [event("x", 1), event("y", 7), event("x", 2), event("y", 8), event("x", 3)]
    assert filtered_receive(router, batch) == batch[3:]
    filtered_receive(router, [event("x", 4)])
    assert (recorder.values(), recorder.conflated) == ([3, 4], 2)
    assert (other.values(), other.conflated) == ([8], 1)
    assert filtered_receive(router, [event("x", 5), event("x", 6)]) == [event("x", 6)]
    assert (recorder.values(), recorder.conflated) == ([3, 4, 6], 3)


def test_an_oversized_record_replaces_no_other_in_the_filter(decode_errors: DecodeErrorCounter) -> None:
    sizes = [5, 11, 5]
    router = EventRouter(decode_errors, lambda: True, limit=10)
    _, recorder = add_route(router, "pva://x", newest_only=True)
    conflation_filter = router.conflation_filter()
    assert conflation_filter is not None
    assert conflation_filter([b"x", b"x"], sizes.__getitem__) is None
    assert conflation_filter([b"x", b"x", b"x"], sizes.__getitem__) == [2]
    router.receive([event("x", 1)])
    assert recorder.conflated == 2


def test_the_filter_handles_runs_of_equal_keys(router: EventRouter) -> None:
    """Kafka returns many events of one PV, then many of the next."""
    recorders = {name: add_route(router, f"pva://{name}", newest_only=True)[1] for name in "xyz"}
    names = "xxxyyyyxzzw"
    batch = [event(name, number, number) for number, name in enumerate(names)]
    assert [record.offset for record in filtered_receive(router, batch)] == [6, 7, 9, 10]
    assert {name: recorder.values() for name, recorder in recorders.items()} == {"x": [7], "y": [6], "z": [9]}
    assert {name: recorder.conflated for name, recorder in recorders.items()} == {"x": 3, "y": 3, "z": 1}


def test_the_filter_keeps_events_of_other_pvs_and_without_a_key(router: EventRouter) -> None:
    _, newest = add_route(router, "pva://x", newest_only=True)
    _, every = add_route(router, "pva://y")
    batch = [event("x", 1), event("y", 1), event("x", 2), event("x", 3, key=None), event("y", 2)]
    assert filtered_receive(router, batch) == batch[1:]
    assert (newest.values(), newest.conflated) == ([2, 3], 1)
    assert every.values() == [1, 2]
    assert filtered_receive(router, [event("y", 3), event("y", 4)]) == [event("y", 3), event("y", 4)]


def test_ambiguous_keys_are_not_filtered(router: EventRouter) -> None:
    """A record's name is also the key of its fields if the gateway does not support fields."""
    add_route(router, "ca://x", newest_only=True)
    route, _ = add_route(router, "ca://x.RVAL", newest_only=True)
    batch = [event("x", 1), event("x", 2, topic="x.RVAL"), event("x", 3)]
    assert filtered_receive(router, batch) == batch
    assert filtered_receive(router, [event("x.RVAL", 1), event("x.RVAL", 2)]) == [event("x.RVAL", 2)]
    router.remove_pv(route)
    assert filtered_receive(router, [event("x", 4), event("x", 5)]) == [event("x", 5)]


def test_there_is_no_filter_with_a_snapshot_or_without_newest_only(router: EventRouter) -> None:
    route, recorder = add_route(router, "pva://x", newest_only=True)
    router.add_messages("snap", cast(Any, route))  # any route: its topic has no records
    assert router.conflation_filter() is None
    router.remove_messages("snap")
    assert router.conflation_filter() is not None
    every = Recorder()
    router.attach(route, every)
    assert router.conflation_filter() is None
    router.detach(route, every)
    router.detach(route, recorder)
    assert router.conflation_filter() is None


def test_an_event_after_a_filtered_one_is_no_repetition(router: EventRouter) -> None:
    """The filtered event may have had another value."""
    _, recorder = add_route(router, "pva://x", newest_only=True)
    filtered_receive(router, [event("x", 1, timed=True)])
    filtered_receive(router, [event("x", value, timed=True) for value in (2, 1)])
    filtered_receive(router, [event("x", 1, timed=True)])
    assert (recorder.values(), recorder.conflated) == ([1, 1], 1)


def test_a_subscriber_added_between_filter_and_receive_starts_with_the_received_event(router: EventRouter) -> None:
    """Not with the last one before the filtered events, as it would miss those."""
    route, _ = add_route(router, "pva://x", newest_only=True)
    filtered_receive(router, [event("x", 1)])
    conflation_filter, batch = router.conflation_filter(), [event("x", 2), event("x", 3)]
    assert conflation_filter is not None
    assert list(conflation_filter([record.key for record in batch], lambda _: 0) or ()) == [1]
    every = Recorder()
    router.attach(route, every)
    router.receive(batch[1:])
    assert every.values() == [3]


def test_a_value_that_returns_within_a_batch_is_no_repetition(router: EventRouter) -> None:
    _, recorder = add_route(router, "pva://x", newest_only=True)
    router.receive([event("x", 1, timed=True)])
    router.receive([event("x", value, timed=True) for value in (2, 1)])
    assert (recorder.values(), recorder.conflated) == ([1, 1], 1)


def test_undelivered_events_of_a_sole_subscriber_are_reclaimed_by_partition(router: EventRouter) -> None:
    _, recorder = add_route(router, "pva://x")
    y = PVRoute(PVAddress.parse("pva://y"), "y")
    router.add_pv(y)
    router.attach(y, recorder)
    router.receive([event("x", 1, 4), event("y", 2, 8), event("x", 3, 5), event("y", 4, 9)])
    assert router.reclaim_undelivered([("x", 0), ("x", 1), ("z", 0)]) == {("x", 0): 4}
    assert recorder.values() == [2, 4]
    assert router.reclaim_undelivered([("x", 0)]) == {}
    assert router.reclaim_undelivered([("y", 0)]) == {("y", 0): 8}
    assert recorder.items == []


def test_a_reclaimed_event_is_no_repetition_when_read_again(router: EventRouter) -> None:
    _, recorder = add_route(router, "pva://x")
    record = event("x", 1, 4, timed=True)
    router.receive([record])
    router.reclaim_undelivered([("x", 0)])
    router.receive([record])
    assert recorder.values() == [1]


def test_events_of_several_subscribers_are_not_reclaimed(router: EventRouter) -> None:
    route, one = add_route(router, "pva://x")
    two = Recorder()
    router.attach(route, two)
    _, colon = add_route(router, "pva://a:b")
    _, under = add_route(router, "pva://a_b")  # on the same topic
    router.receive([event("x", 1), event("a:b", 2), event("a_b", 3)])
    assert router.reclaim_undelivered([("x", 0), ("a_b", 0)]) == {}
    assert [recorder.values() for recorder in (one, two, colon, under)] == [[1], [1], [2], [3]]


def test_a_snapshots_unused_record_is_reclaimed(router: EventRouter) -> None:
    class Snapshot:
        begin: Record | None = event("s", 0, 7, topic="s")

        def accept(self, record: Record, outgoing: object) -> None:
            raise AssertionError(record)

        def give_up(self, partitions: Collection[Partition]) -> Record | None:
            return self.begin if ("s", 0) in partitions else None

    snapshot = Snapshot()
    router.add_messages("s", snapshot)
    assert router.reclaim_undelivered([("s", 0), ("t", 0)]) == {("s", 0): 7}
    assert router.reclaim_undelivered([("s", 1)]) == {}
    snapshot.begin = None
    assert router.reclaim_undelivered([("s", 0)]) == {}


def notice(name: str, topic: str = "a") -> Record:
    about = Notice(name, 3, "too large")
    return Record(topic, 1, 0, about.key, about.body, NOTICE_HEADERS)


def test_a_notice_about_a_monitored_pv_is_passed_on_and_is_no_event(decode_errors: DecodeErrorCounter) -> None:
    notices: list[Notice] = []
    router = EventRouter(decode_errors, lambda: True, on_notice=notices.append)
    route, recorder = add_route(router, "pva://a")
    route.heard = False
    router.receive([notice("a"), notice("other")])
    assert notices == [Notice("a", 3, "too large")]
    assert route.heard, "the gateway is there"
    assert recorder.items == []
    assert decode_errors.total == 0
    router.receive([notice("a")._replace(value=b"\x80")])
    assert decode_errors.total == 1


def timed(value: object, seconds: int | None, nanoseconds: int = 0, name: str = "x") -> Record:
    """An event with an EPICS time, or with none."""
    body: dict[str, object] = {"value": value}
    if seconds is not None:
        body["timeStamp"] = {"secondsPastEpoch": seconds, "nanoseconds": nanoseconds}
    return Record(monitor_topic(name), 0, 0, name.encode(), pack({name: body}), HEADERS)


def test_an_older_update_that_is_repeated_after_newer_ones_is_not_routed_again(router: EventRouter) -> None:
    """The deployed gateway does so when another client activates the PV."""
    route, recorder = add_route(router, "pva://x")
    router.receive([timed(1, 1001), timed(2, 1002), timed(1, 1001), timed(3, 1003)])
    router.receive([timed(2, 1002), timed(2, 1004)])
    assert recorder.values() == [1, 2, 3, 2]
    assert router.repeated() == 2
    router.remove_pv(route)
    assert router.repeated() == 2  # still counted


@pytest.mark.parametrize(
    "records",
    [
        [timed(1, 1001), timed(2, 1002), timed(3, 1001)],  # a clock was set back
        [timed(1, 1001), timed(2, 1002), timed(1, 1000)],
        [timed(1, 1001, 7), timed(2, 1002), timed(1, 1001, 6)],
        [timed(1, 1001), timed(2, 1001), timed(1, 1001)],  # within the resolution of a clock
        [timed(1, None), timed(2, None), timed(1, None)],  # without a time, it may be a new posting
        [timed(1, 0), timed(2, 1002), timed(1, 0)],  # a time that was never set
        [timed(1, 1001), timed(2, None), timed(1, 1001)],
    ],
)
def test_what_is_no_repetition_is_routed(router: EventRouter, records: list[Record]) -> None:
    _, recorder = add_route(router, "pva://x")
    router.receive(records)
    assert len(recorder.items) == len(records)
    assert router.repeated() == 0


def test_a_repetition_is_recognized_for_the_last_updates_only(router: EventRouter) -> None:
    _, recorder = add_route(router, "pva://x")
    router.receive([timed(number, 1000 + number) for number in range(100)])
    router.receive([timed(82, 1082), timed(10, 1010)])
    assert recorder.values() == [*range(100), 10]
    assert router.repeated() == 1


def test_a_repetition_replaces_no_newer_event_where_only_the_newest_counts(router: EventRouter) -> None:
    _, recorder = add_route(router, "pva://x", newest_only=True)
    router.receive([timed(1, 1001)])
    router.receive([timed(2, 1002), timed(3, 1003), timed(1, 1001)])
    router.receive([timed(1, 1001)])
    assert (recorder.values(), recorder.conflated, router.repeated()) == ([1, 3], 1, 2)


def test_reclaimed_events_are_no_repetitions_when_they_are_read_again(router: EventRouter) -> None:
    _, recorder = add_route(router, "pva://x")
    records = [timed(1, 1001), timed(2, 1002)]
    router.receive(records)
    router.reclaim_undelivered([("x", 0)])
    router.receive(records)
    assert recorder.values() == [1, 2]


@pytest.mark.parametrize("uri", ["pva://x.HIGH", "pva://x.alarm"])
def test_events_whose_time_cannot_be_read_are_no_repetitions(router: EventRouter, uri: str) -> None:
    """As of a gateway that sends the record where a field was requested; delivery reports it."""
    route, recorder = PVRoute(PVAddress.parse(uri), "x"), Recorder()
    router.add_pv(route)
    router.attach(route, recorder)
    router.receive([timed(1, 1001), timed(2, 1002), timed(1, 1001)])
    assert (len(recorder.items), router.repeated()) == (3, 0)


def test_events_of_a_gateway_that_was_replaced_are_left_out(router: EventRouter) -> None:
    def of_epoch(value: int, epoch: int) -> Record:
        headers = (HEADERS[0], ("k2eg-epoch", b"fleet:%d" % epoch), ("k2eg-protocol", b"pva"))
        return event("x", value)._replace(headers=headers)

    _, recorder = add_route(router, "pva://x")
    router.receive([of_epoch(1, 5), of_epoch(2, 7), of_epoch(3, 5), of_epoch(4, 7), event("x", 5)])
    assert recorder.values() == [1, 2, 4, 5]
    assert router.superseded() == 1
    newest, latest = add_route(router, "pva://y", newest_only=True)
    events = [of_epoch(0, 7), of_epoch(0, 5)]
    router.receive(
        [each._replace(topic="y", key=b"y", value=pack({"y": {"value": n}})) for n, each in enumerate(events)]
    )
    assert latest.values() == [0], "the newest one that counts"
    router.remove_pv(newest)
    assert router.superseded() == 2
