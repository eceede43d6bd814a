"""Assembly of snapshots: the state table, and its rules one by one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2eg_rx.errors import OperationError
from k2eg_rx.protocol.assembly_by_arrival import TRANSITIONS, Action, ArrivalAssembler, Event, State
from k2eg_rx.protocol.messages import Reply, SnapshotData, SnapshotHeader, SnapshotMessage, SnapshotTail
from k2eg_rx.protocol.snapshots import TRUNCATED, OneShotAssembler, Samples, Snapshot
from k2eg_rx.pv import PVAddress

A, B = PVAddress.parse("pva://variable:a"), PVAddress.parse("ca://variable:b")


def header(iteration: int = 1, time: int = 100, name: str = "snap") -> SnapshotHeader:
    return SnapshotHeader(name, time, iteration)


def sample(value: Any, pv: str = "variable:a", iteration: int = 1) -> SnapshotData:
    return SnapshotData(100, iteration, pv, {"value": value})


def tail(iteration: int = 1, time: int = 200, name: str = "snap", error: int = 0, text: str = "") -> SnapshotTail:
    return SnapshotTail(name, time, iteration, error, text)


def assembler(*addresses: PVAddress, **options: Any) -> ArrivalAssembler:
    return ArrivalAssembler("snap", addresses or (A, B), **options)


def feed(to: ArrivalAssembler, *messages: SnapshotMessage) -> list[Snapshot]:
    return [snapshot for message in messages if (snapshot := to.feed(message)) is not None]


def values(snapshot: Snapshot, pv: str = "variable:a") -> list[Any]:
    return [structure["value"] for structure in snapshot.data[pv]]


def test_the_table_covers_every_event_of_every_state() -> None:
    impossible = {(State.IDLE, Event.AGAIN), (State.IDLE, Event.DATA), (State.IDLE, Event.TAIL)}
    assert set(TRANSITIONS) == {(state, event) for state in State for event in Event} - impossible


def test_only_a_tail_of_an_open_iteration_emits() -> None:
    assert [key for key, (action, _) in TRANSITIONS.items() if action is Action.EMIT] == [(State.OPEN, Event.TAIL)]


def test_an_iteration_becomes_a_snapshot_of_every_requested_pv() -> None:
    (snapshot,) = feed(assembler(), header(), sample(1.5), tail())
    assert snapshot == Snapshot(
        name="snap",
        data={"variable:a": Samples([{"value": 1.5}]), "variable:b": Samples()},
        timestamp=200,
        iteration=1,
        header_timestamp=100,
        tail_timestamp=200,
    )


def test_tags_of_the_header_reach_the_snapshot() -> None:
    (snapshot,) = feed(assembler(), SnapshotHeader("snap", 100, 1, {"shot": "7"}), tail())
    assert (snapshot.tags, snapshot.complete, snapshot.missing) == ({"shot": "7"}, True, 0)


def test_samples_keep_the_order_of_arrival() -> None:
    parts = [header(), sample(1), sample(10, "variable:b"), sample(2), sample(3), tail()]
    (snapshot,) = feed(assembler(), *parts)
    assert values(snapshot) == [1, 2, 3]
    assert values(snapshot, "variable:b") == [10]


def test_iterations_share_nothing() -> None:
    first, second = feed(assembler(), header(1), sample(1), tail(1), header(2), tail(2))
    assert (values(first), values(second)) == ([1], [])
    assert (first.iteration, second.iteration) == (1, 2)


def test_a_late_joiner_drops_the_part_without_a_header() -> None:
    late = assembler()
    (snapshot,) = feed(late, sample(1), tail(1), header(2), sample(2, iteration=2), tail(2))
    assert (snapshot.iteration, values(snapshot)) == (2, [2])
    assert late.counts == {"stray": 2}


def test_a_header_drops_and_counts_the_open_iteration() -> None:
    one = assembler()
    (snapshot,) = feed(one, header(1), sample(1), header(2, 150), sample(2, iteration=2), tail(2))
    assert (snapshot.iteration, values(snapshot)) == (2, [2])
    assert one.counts == {"incomplete": 1}


def test_parts_of_another_iteration_are_dropped() -> None:
    one = assembler()
    (snapshot,) = feed(one, header(2), sample(1, iteration=1), tail(1), sample(2, iteration=2), tail(2))
    assert values(snapshot) == [2]
    assert one.counts == {"stray": 2}


def test_a_repeated_header_restarts_its_iteration() -> None:
    one = assembler()
    (snapshot,) = feed(one, header(), sample(1), header(), sample(1), sample(2), tail())
    assert values(snapshot) == [1, 2]
    assert not one.counts["incomplete"]


def test_an_iteration_that_is_read_twice_is_emitted_once() -> None:
    iteration = [header(), sample(1), tail()]
    one = assembler()
    assert len(feed(one, *iteration, *iteration)) == 1
    assert one.counts == {"old": 1, "stray": 2}


def test_a_replay_that_starts_in_the_iteration_before_changes_nothing() -> None:
    first = [header(1), sample(1), tail(1)]
    second = [header(2, 300), sample(2, iteration=2)]
    snapshots = feed(assembler(), *first, *second, *first, *second, tail(2, 400))
    assert [(snapshot.iteration, values(snapshot)) for snapshot in snapshots] == [(1, [1]), (2, [2])]


def test_a_restarted_snapshot_counts_from_one_again() -> None:
    parts = [header(1, 100), tail(1, 200), header(2, 200), tail(2, 300), header(1, 900), sample(9), tail(1, 950)]
    snapshots = feed(assembler(), *parts)
    assert [(snapshot.iteration, snapshot.timestamp) for snapshot in snapshots] == [(1, 200), (2, 300), (1, 950)]


def test_another_spelling_of_the_name_is_the_same_snapshot() -> None:
    (snapshot,) = feed(assembler(), header(name="SNAP"), sample(1), tail(name="SNAP"))
    assert snapshot.name == "snap"


def test_a_tail_of_another_snapshot_in_the_topic_ends_nothing() -> None:
    (snapshot,) = feed(assembler(), header(), tail(name="Snap"), sample(1), tail())
    assert values(snapshot) == [1]


def test_a_tail_with_an_error_gives_a_snapshot_with_it() -> None:
    (snapshot,) = feed(assembler(), header(), sample(1), tail(error=-5, text="no luck"))
    assert (snapshot.error, snapshot.error_message, values(snapshot)) == (-5, "no luck", [1])


def test_samples_beyond_the_bound_are_dropped_and_reported() -> None:
    one = assembler(max_samples=2)
    first, second = feed(
        one, header(), *[sample(n) for n in range(5)], tail(), header(2), sample(7, iteration=2), tail(2)
    )
    assert values(first) == [0, 1]
    assert (first.error, first.error_message) == (TRUNCATED, "3 samples beyond 2 were dropped")
    assert one.counts == {"excess": 3}
    assert (second.error, values(second)) == (0, [7])


def test_the_error_of_the_gateway_takes_precedence() -> None:
    (snapshot,) = feed(assembler(max_samples=1), header(), sample(1), sample(2), tail(error=-9, text="x"))
    assert (snapshot.error, snapshot.error_message) == (-9, "x")


def test_a_pv_that_was_not_requested_is_dropped() -> None:
    one = assembler()
    (snapshot,) = feed(one, header(), sample(1, "other"), tail())
    assert set(snapshot.data) == {"variable:a", "variable:b"}
    assert one.counts == {"unknown_pv": 1}


def test_a_path_is_selected_from_the_record_where_the_gateway_drops_it() -> None:
    status = PVAddress.parse("pva://variable:a.alarm.status")
    structure = {"value": 1, "alarm": {"severity": 2, "status": 3}}
    (snapshot,) = feed(assembler(A, status), header(), SnapshotData(1, 1, "variable:a", structure), tail())
    assert snapshot.data["variable:a"] == [structure]
    assert values(snapshot, "variable:a.alarm.status") == [3]


@pytest.mark.parametrize("record_first", [True, False])
def test_a_path_that_the_gateway_sends_is_added_once(record_first: bool) -> None:
    status = PVAddress.parse("pva://variable:a.alarm.status")
    record = SnapshotData(1, 1, "variable:a", {"value": 1, "alarm": {"severity": 2, "status": 3}})
    own = SnapshotData(1, 1, "variable:a.alarm.status", {"value": 3})
    parts = [record, own] if record_first else [own, record]
    (snapshot,) = feed(assembler(A, status), header(), *parts, tail())
    assert values(snapshot, "variable:a.alarm.status") == [3]
    assert values(snapshot) == [1]


def test_a_record_is_not_returned_for_its_field() -> None:
    high = PVAddress.parse("pva://variable:a.HIGH")
    one = assembler(high)
    (snapshot,) = feed(one, header(), sample(1), tail())
    assert snapshot.data == {"variable:a.HIGH": []}
    assert one.counts == {"unusable": 1}


def test_a_pv_over_both_protocols_is_one() -> None:
    both = [PVAddress.parse("pva://variable:a"), PVAddress.parse("ca://variable:a")]
    (snapshot,) = feed(assembler(*both), header(), sample(1), tail())
    assert snapshot.data == {"variable:a": [{"value": 1}]}


def test_the_dict_for_callbacks_has_times_iteration_and_samples() -> None:
    (snapshot,) = feed(assembler(), header(3, 100_000_000), sample(1, iteration=3), tail(3, 200_999_999))
    assert snapshot.as_dict() == {
        "timestamp": 200,
        "iteration": 3,
        "header_timestamp": 100,
        "tail_timestamp": 200,
        "variable:a": [{"value": 1}],
        "variable:b": [],
    }


def test_samples_take_an_index_or_a_field_of_the_newest() -> None:
    samples = Samples([{"value": 1}, {"value": 2, "alarm": {"severity": 1}}])
    assert samples[0]["value"] == 1
    assert samples["value"] == 2
    assert samples["alarm"]["severity"] == 1
    assert samples[-1:] == [{"value": 2, "alarm": {"severity": 1}}]
    assert [structure["value"] for structure in samples] == [1, 2]


def test_samples_without_the_field_raise_a_key_error() -> None:
    with pytest.raises(KeyError, match="no data of this PV"):
        Samples()["value"]
    with pytest.raises(KeyError, match="no such field; the fields are value"):
        Samples([{"value": 1}])["alarm"]
    with pytest.raises(IndexError):
        Samples()[0]


def reply(error: int, message: str = "", structures: dict[str, Any] | None = None) -> Reply:
    return Reply("id", error, message, {"error": error, "reply_id": "id", "message": message} | (structures or {}))


def test_a_one_shot_snapshot_is_complete_at_error_one() -> None:
    one = OneShotAssembler("id", [A, B])
    assert one.feed(reply(0, "", {"variable:a": {"value": 1}})) is None
    assert one.feed(reply(0, "", {"other": {"value": 1}})) is None
    snapshot = one.feed(reply(1))
    assert snapshot == Snapshot("id", {"variable:a": Samples([{"value": 1}]), "variable:b": Samples()})


def test_a_negative_reply_fails_a_one_shot_snapshot() -> None:
    one = OneShotAssembler("id", [A, B])
    with pytest.raises(OperationError, match=r"snapshot of pva://variable:a, ca://variable:b: .*malformed") as caught:
        one.feed(reply(-1, "PV 'bad' name malformed"))
    assert caught.value.error == -1


NAMES = st.sampled_from(["snap", "SNAP", "other"])
INDICES = st.integers(0, 3)
MESSAGES: st.SearchStrategy[SnapshotMessage] = st.one_of(
    st.builds(SnapshotHeader, NAMES, st.integers(0, 3), INDICES),
    st.builds(
        SnapshotData,
        st.integers(0, 3),
        INDICES,
        st.sampled_from(["variable:a", "variable:b", "variable:a.alarm.status", "", "variable:a.HIGH"]),
        st.dictionaries(st.text(max_size=2), st.integers() | st.dictionaries(st.text(max_size=2), st.none())),
    ),
    st.builds(SnapshotTail, NAMES, st.integers(0, 3), INDICES, st.integers(-2, 1), st.text(max_size=2)),
)


@given(st.lists(MESSAGES, max_size=40))
def test_any_messages_never_raise_nor_emit_without_a_header(messages: list[SnapshotMessage]) -> None:
    requested = [A, B, *map(PVAddress.parse, ["pva://variable:a.alarm.status", "pva://variable:a.HIGH"])]
    one = assembler(*requested, max_samples=5)
    headers: list[tuple[int, int]] = []
    for message in messages:
        snapshot = one.feed(message)
        if isinstance(message, SnapshotHeader):
            headers.append((message.iter_index, message.timestamp))
        if snapshot is not None:
            assert isinstance(message, SnapshotTail)
            assert (snapshot.iteration, snapshot.header_timestamp) in headers
            assert set(snapshot.data) == {address.name for address in requested}
            assert sum(map(len, snapshot.data.values())) <= 5 + len(requested)
