"""Routing of event records: by topic and key, without decoding."""

from collections.abc import Callable, Sequence

import pytest

from k2eg_rx.client.router import EventRouter
from k2eg_rx.client.routes import PVRoute
from k2eg_rx.errors import OperationError
from k2eg_rx.protocol.messages import PVUpdate
from k2eg_rx.protocol.msgpack_codec import pack
from k2eg_rx.pv import PVAddress, monitor_topic
from k2eg_rx.transport.decode_errors import DecodeErrorCounter
from k2eg_rx.transport.interfaces import Record

HEADERS = [("k2eg-ser-type", b"Msgpack")]


class Box:
    """An inlet that keeps what it is offered."""

    def __init__(self, *, newest_only: bool = False) -> None:
        self.items: list[PVUpdate] = []
        self.newest_only = newest_only
        self.left_out = 0

    def count_conflated(self, count: int) -> None:
        self.left_out += count

    def offer(self, items: Sequence[PVUpdate]) -> None:
        self.items.extend(items)

    def finish(self, error: Exception | None = None) -> None:
        raise AssertionError(error)

    def reclaim_undelivered(self, is_wanted: Callable[[PVUpdate], bool]) -> Sequence[PVUpdate]:
        recalled = [item for item in self.items if is_wanted(item)]
        self.items = [item for item in self.items if not is_wanted(item)]
        return recalled

    def values(self) -> list[object]:
        return [item.value for item in self.items]


def event(
    name: str, value: object, offset: int = 0, key: bytes | None = b"", topic: str = "", *, timed: bool = False
) -> Record:
    body = pack({name: {"value": value, "alarm": {"severity": 0}} | ({"timeStamp": {}} if timed else {})})
    return Record(topic or monitor_topic(name), 0, offset, name.encode() if key == b"" else key, body, HEADERS)


@pytest.fixture
def discards() -> DecodeErrorCounter:
    return DecodeErrorCounter()


@pytest.fixture
def router(discards: DecodeErrorCounter) -> EventRouter:
    return EventRouter(discards, lambda: True)


def open_route(router: EventRouter, uri: str, *, newest_only: bool = False) -> tuple[PVRoute, Box]:
    address = PVAddress.parse(uri)
    route, box = PVRoute(address, monitor_topic(address.name)), Box(newest_only=newest_only)
    router.add_pv(route)
    router.attach(route, box)
    return route, box


def test_an_event_reaches_every_subscriber_of_its_pv_and_nobody_else(router: EventRouter) -> None:
    route, one = open_route(router, "pva://x")
    two = Box()
    router.attach(route, two)
    _, other = open_route(router, "pva://y")
    router.receive([event("x", 1, 0), event("x", 2, 1)])
    assert one.values() == two.values() == [1, 2]
    assert other.items == []


def test_two_pvs_that_share_a_topic_are_told_apart(router: EventRouter) -> None:
    _, colon = open_route(router, "pva://a:b")
    _, under = open_route(router, "pva://a_b")
    router.receive([event("a:b", 1), event("a_b", 2), event("a-b", 3, topic="a_b")])
    assert (colon.values(), under.values()) == ([1], [2])


def test_an_event_without_a_key_is_routed_by_its_body(router: EventRouter) -> None:
    _, box = open_route(router, "pva://x")
    router.receive([event("x", 1, key=None)])
    assert box.values() == [1]


def test_a_later_subscriber_gets_the_last_update_and_then_the_next_ones(router: EventRouter) -> None:
    route, _ = open_route(router, "pva://x")
    router.receive([event("x", 1), event("x", 2)])
    late = Box()
    router.attach(route, late)
    router.receive([event("x", 3)])
    assert late.values() == [2, 3]


def test_events_of_several_pvs_reach_one_subscriber_in_their_order(router: EventRouter) -> None:
    route, box = open_route(router, "pva://x")
    other = PVRoute(PVAddress.parse("pva://y"), "y")
    router.add_pv(other)
    router.attach(other, box)
    router.receive([event("x", 1), event("y", 2), event("x", 3)])
    assert box.values() == [1, 2, 3]
    assert router.detach(route, box) == 0


def test_a_value_published_again_for_another_client_is_passed_on_once(router: EventRouter) -> None:
    route, box = open_route(router, "pva://x")
    timed = {"x": {"value": 1, "timeStamp": {"secondsPastEpoch": 5, "nanoseconds": 0}}}
    records = [Record("x", 0, offset, b"x", pack(timed), HEADERS) for offset in range(2)]
    router.receive(records)
    assert box.values() == [1]
    late = Box()
    router.attach(route, late)
    assert late.values() == [1]
    router.receive([event("x", 2), event("x", 2)])
    assert box.values() == [1, 2, 2]


def test_routing_does_not_decode(router: EventRouter) -> None:
    _, box = open_route(router, "pva://x")
    router.receive([Record("x", 0, 0, b"x", b"\xc1", HEADERS)])
    assert len(box.items) == 1


def test_a_closed_route_gets_nothing(router: EventRouter) -> None:
    route, box = open_route(router, "pva://x")
    router.remove_pv(route)
    router.receive([event("x", 1)])
    assert box.items == []
    assert not router.reads("x")


def test_a_record_that_cannot_be_routed_is_counted_and_the_next_ones_come(
    router: EventRouter, discards: DecodeErrorCounter
) -> None:
    _, box = open_route(router, "pva://x")
    router.receive([Record("x", 0, 0, None, b"\xc1", HEADERS), event("x", 1)])
    assert box.values() == [1]
    assert discards.counts() == {("undecodable", "x"): 1}


def test_a_path_in_the_structure_is_selected_where_the_gateway_answers_with_the_record(router: EventRouter) -> None:
    _, box = open_route(router, "pva://x.alarm.severity")
    router.receive([event("x", 1, topic="x.alarm.severity")])
    assert box.items[0].name == "x.alarm.severity"
    assert box.values() == [0]


def test_the_records_value_never_passes_for_its_fields(router: EventRouter) -> None:
    _, box = open_route(router, "pva://x.HIGH")
    router.receive([event("x", 1, topic="x.HIGH")])
    with pytest.raises(OperationError, match=r"x\.HIGH.*does not know record fields"):
        box.values()


def test_where_only_the_newest_is_wanted_a_batch_comes_down_to_it_and_what_was_left_out_is_counted(
    router: EventRouter,
) -> None:
    _, box = open_route(router, "pva://x", newest_only=True)
    _, other = open_route(router, "pva://y", newest_only=True)
    router.receive([event("x", 1), event("y", 7), event("x", 2), event("x", 3)])
    router.receive([event("x", 4)])
    assert (box.values(), box.left_out) == ([3, 4], 2)
    assert (other.values(), other.left_out) == ([7], 0)


def test_a_repetition_is_neither_passed_on_nor_counted_as_left_out(router: EventRouter) -> None:
    _, box = open_route(router, "pva://x", newest_only=True)
    router.receive([event("x", 1, timed=True)])
    router.receive([event("x", value, timed=True) for value in (1, 2, 2, 3, 3)])
    router.receive([event("x", 3, timed=True)])
    assert (box.values(), box.left_out) == ([1, 3], 1)


def test_who_wants_every_event_gets_it_beside_one_who_wants_the_newest(router: EventRouter) -> None:
    route, newest = open_route(router, "pva://x", newest_only=True)
    every = Box()
    router.attach(route, every)
    router.receive([event("x", 1), event("x", 2)])
    router.detach(route, every)
    router.receive([event("x", 3), event("x", 4)])
    assert every.values() == [1, 2]
    assert (newest.values(), newest.left_out) == ([1, 2, 4], 1)  # its own mailbox leaves out the 1


def test_an_event_without_a_key_keeps_its_place_among_the_newest(router: EventRouter) -> None:
    _, box = open_route(router, "pva://x", newest_only=True)
    router.receive([event("x", 1), event("x", 2), event("x", 3, key=None), event("x", 4)])
    assert (box.values(), box.left_out) == ([2, 3, 4], 1)


def sift(router: EventRouter, records: Sequence[Record]) -> list[Record]:
    """Has the router receive what its sieve leaves of a batch, as a source does; returns that."""
    conflation_filter = router.conflation_filter()
    wanted = (
        None
        if conflation_filter is None
        else conflation_filter([record.key for record in records], lambda number: len(records[number].value or b""))
    )
    left = list(records) if wanted is None else [records[number] for number in wanted]
    router.receive(left)
    return left


def test_a_sieve_leaves_the_newest_of_each_pv_and_counts_the_others(router: EventRouter) -> None:
    _, box = open_route(router, "pva://x", newest_only=True)
    _, other = open_route(router, "pva://y", newest_only=True)
    batch = [event("x", 1), event("y", 7), event("x", 2), event("y", 8), event("x", 3)]
    assert sift(router, batch) == batch[3:]
    sift(router, [event("x", 4)])
    assert (box.values(), box.left_out) == ([3, 4], 2)
    assert (other.values(), other.left_out) == ([8], 1)
    assert sift(router, [event("x", 5), event("x", 6)]) == [event("x", 6)]
    assert (box.values(), box.left_out) == ([3, 4, 6], 3)


def test_what_is_too_large_takes_nobodys_place_in_a_sieve(discards: DecodeErrorCounter) -> None:
    sizes = [5, 11, 5]
    router = EventRouter(discards, lambda: True, limit=10)
    _, box = open_route(router, "pva://x", newest_only=True)
    conflation_filter = router.conflation_filter()
    assert conflation_filter is not None
    assert conflation_filter([b"x", b"x"], sizes.__getitem__) is None
    assert conflation_filter([b"x", b"x", b"x"], sizes.__getitem__) == [2]
    router.receive([event("x", 1)])
    assert box.left_out == 2


def test_a_sieve_tells_runs_apart(router: EventRouter) -> None:
    """Of a flood of several PVs, in the order in which Kafka gives it: many of one, then many of the next."""
    boxes = {name: open_route(router, f"pva://{name}", newest_only=True)[1] for name in "xyz"}
    names = "xxxyyyyxzzw"
    batch = [event(name, number, number) for number, name in enumerate(names)]
    assert [record.offset for record in sift(router, batch)] == [6, 7, 9, 10]
    assert {name: box.values() for name, box in boxes.items()} == {"x": [7], "y": [6], "z": [9]}
    assert {name: box.left_out for name, box in boxes.items()} == {"x": 3, "y": 3, "z": 1}


def test_a_sieve_keeps_all_of_which_every_event_is_wanted_or_nobody_knows(router: EventRouter) -> None:
    _, newest = open_route(router, "pva://x", newest_only=True)
    _, every = open_route(router, "pva://y")
    batch = [event("x", 1), event("y", 1), event("x", 2), event("x", 3, key=None), event("y", 2)]
    assert sift(router, batch) == batch[1:]
    assert (newest.values(), newest.left_out) == ([2, 3], 1)
    assert every.values() == [1, 2]
    assert sift(router, [event("y", 3), event("y", 4)]) == [event("y", 3), event("y", 4)]


def test_where_a_key_may_mean_several_things_nothing_is_sifted(router: EventRouter) -> None:
    """A record's own name is also the key of its fields where the gateway knows none."""
    open_route(router, "ca://x", newest_only=True)
    route, _ = open_route(router, "ca://x.RVAL", newest_only=True)
    batch = [event("x", 1), event("x", 2, topic="x.RVAL"), event("x", 3)]
    assert sift(router, batch) == batch
    assert sift(router, [event("x.RVAL", 1), event("x.RVAL", 2)]) == [event("x.RVAL", 2)]
    router.remove_pv(route)
    assert sift(router, [event("x", 4), event("x", 5)]) == [event("x", 5)]


def test_nothing_is_sifted_beside_a_snapshot_or_without_anybody_who_wants_only_the_newest(router: EventRouter) -> None:
    route, box = open_route(router, "pva://x", newest_only=True)
    router.add_messages("snap", route)  # any route: nothing comes on its topic
    assert router.conflation_filter() is None
    router.remove_messages("snap")
    assert router.conflation_filter() is not None
    every = Box()
    router.attach(route, every)
    assert router.conflation_filter() is None
    router.detach(route, every)
    router.detach(route, box)
    assert router.conflation_filter() is None


def test_what_comes_after_something_was_sifted_out_is_news(router: EventRouter) -> None:
    """Nobody knows whether what was left out was the same."""
    _, box = open_route(router, "pva://x", newest_only=True)
    sift(router, [event("x", 1, timed=True)])
    sift(router, [event("x", value, timed=True) for value in (2, 1)])
    sift(router, [event("x", 1, timed=True)])
    assert (box.values(), box.left_out) == ([1, 1], 1)


def test_who_comes_between_sifting_and_receiving_begins_with_what_is_received(router: EventRouter) -> None:
    """Not with the last one before what was left out: it is promised every later one."""
    route, _ = open_route(router, "pva://x", newest_only=True)
    sift(router, [event("x", 1)])
    conflation_filter, batch = router.conflation_filter(), [event("x", 2), event("x", 3)]
    assert conflation_filter is not None
    assert list(conflation_filter([record.key for record in batch], lambda _: 0) or ()) == [1]
    every = Box()
    router.attach(route, every)
    router.receive(batch[1:])
    assert every.values() == [3]


def test_a_value_that_came_back_within_a_batch_is_news(router: EventRouter) -> None:
    _, box = open_route(router, "pva://x", newest_only=True)
    router.receive([event("x", 1, timed=True)])
    router.receive([event("x", value, timed=True) for value in (2, 1)])
    assert (box.values(), box.left_out) == ([1, 1], 1)


def test_what_a_sole_subscriber_has_not_had_is_recalled_of_the_partitions_that_go(router: EventRouter) -> None:
    _, box = open_route(router, "pva://x")
    y = PVRoute(PVAddress.parse("pva://y"), "y")
    router.add_pv(y)
    router.attach(y, box)
    router.receive([event("x", 1, 4), event("y", 2, 8), event("x", 3, 5), event("y", 4, 9)])
    assert router.reclaim_undelivered([("x", 0), ("x", 1), ("z", 0)]) == {("x", 0): 4}
    assert box.values() == [2, 4]
    assert router.reclaim_undelivered([("x", 0)]) == {}
    assert router.reclaim_undelivered([("y", 0)]) == {("y", 0): 8}
    assert box.items == []


def test_what_was_recalled_is_no_repetition_when_it_is_read_again(router: EventRouter) -> None:
    _, box = open_route(router, "pva://x")
    again = event("x", 1, 4, timed=True)
    router.receive([again])
    router.reclaim_undelivered([("x", 0)])
    router.receive([again])
    assert box.values() == [1]


def test_nothing_is_recalled_that_another_subscriber_may_have_had(router: EventRouter) -> None:
    route, one = open_route(router, "pva://x")
    two = Box()
    router.attach(route, two)
    _, colon = open_route(router, "pva://a:b")
    _, under = open_route(router, "pva://a_b")  # on the same topic
    router.receive([event("x", 1), event("a:b", 2), event("a_b", 3)])
    assert router.reclaim_undelivered([("x", 0), ("a_b", 0)]) == {}
    assert [box.values() for box in (one, two, colon, under)] == [[1], [1], [2], [3]]


def test_a_snapshot_says_itself_what_of_it_is_unused(router: EventRouter) -> None:
    class Snapshot:
        begin: Record | None = event("s", 0, 7, topic="s")

        def accept(self, record: Record, outgoing: object) -> None:
            raise AssertionError(record)

        def unused(self) -> Record | None:
            return self.begin

    snapshot = Snapshot()
    router.add_messages("s", snapshot)
    assert router.reclaim_undelivered([("s", 0), ("t", 0)]) == {("s", 0): 7}
    assert router.reclaim_undelivered([("s", 1)]) == {}
    snapshot.begin = None
    assert router.reclaim_undelivered([("s", 0)]) == {}
