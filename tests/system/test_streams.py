"""`k2eg_rx.Client` against the real IOC, through gateway and Kafka."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import pairwise

import pytest
import reactivex as rx
from reactivex import operators as ops

from k2eg_rx import (
    Client,
    NTTable,
    OperationError,
    OperationTimeout,
    Overflow,
    PVUpdate,
    Severity,
    Snapshot,
    SnapshotProperties,
    SnapshotTail,
    SnapshotType,
    first,
)
from k2eg_rx.embedded import EmbeddedStack

from .conftest import Collected

TIMEOUT = 60.0


def assert_no_gap(ramp: Sequence[float]) -> None:
    """Asserts that the values of a demo ramp count up by one, modulo 100."""
    assert all((later - earlier) % 100 == 1 for earlier, later in pairwise(ramp)), ramp


@pytest.mark.parametrize("protocol", ["pva", "ca"])
def test_get_returns_value_units_limits_alarm_and_time(client: Client, protocol: str) -> None:
    data = first(client.get_stream(f"{protocol}://demo:sum"))
    assert data.name == "demo:sum"
    assert isinstance(data.value, float)
    assert data.units == "A"
    assert data.severity is Severity.NO_ALARM
    assert data.data["display"]["limitHigh"] == 20.0
    assert data.timestamp is not None
    assert data.timestamp > 1_700_000_000 * 10**9


def test_get_of_a_missing_pv_times_out(client: Client) -> None:
    with pytest.raises(OperationTimeout, match=r"get of pva://no:such:pv: no reply within 0\.\d+ s"):
        first(client.get_stream("pva://no:such:pv", timeout=0.5))


@pytest.mark.parametrize(("first_one", "other"), [("pva", "ca"), ("ca", "pva")])
def test_a_pv_is_monitored_over_both_protocols(
    client: Client, stack: EmbeddedStack, fresh_app_name: str, first_one: str, other: str
) -> None:
    pv = {"pva": "demo:ramp10", "ca": "demo:sine10"}[first_one]
    alone = Collected(client.monitor_stream(f"{first_one}://{pv}"))
    alone.until_count(2)
    both = Collected(client.monitor_many_stream([f"{first_one}://{pv}", f"{other}://{pv}"]))

    def has_all(collected: Collected[PVUpdate]) -> bool:
        protocols = [item.address.protocol for item in collected.items]
        return min(protocols.count("pva"), protocols.count("ca")) >= 5

    both.until(has_all)
    with Client("demo", f"{fresh_app_name}-2", settings=stack.settings(f"{fresh_app_name}-2")) as second:
        late = Collected(second.monitor_stream(f"{other}://{pv}"))
        late.until_count(3)
        assert {item.address.protocol for item in late.items} == {other}
    for protocol in ("pva", "ca"):
        times = [item.timestamp or 0 for item in both.items if item.address.protocol == protocol]
        assert times == sorted(set(times)), "updates repeat or are out of order"
    assert {item.address.protocol for item in alone.items} == {first_one}
    assert client.status.discarded == 0


def test_batches_of_columns_have_every_update_with_its_time(client: Client) -> None:
    uris = ["pva://demo:ramp10", "ca://demo:sine10"]
    batches = first(client.monitor_columns(uris, count=60).pipe(ops.take(2), ops.to_list()), timeout=TIMEOUT)
    assert [batch.events for batch in batches] == [60, 60]
    ramps = [batch["pva://demo:ramp10"] for batch in batches]
    assert_no_gap([value for ramp in ramps for value in ramp.value.tolist()])
    for uri in uris:
        times = [time for batch in batches for time in batch[uri].time.tolist()]
        assert times == sorted(set(times))
        assert times[0] > 1_700_000_000 * 10**9
        assert batches[0][uri].severity.dtype == "int8"


def test_a_put_is_visible_over_the_other_protocol(client: Client) -> None:
    for number, (write, read) in enumerate([("pva", "ca"), ("ca", "pva")]):
        first(client.put_stream(f"{write}://demo:setpoint1", 2.0 + number))
        assert first(client.get_stream(f"{read}://demo:setpoint1")).value == 2.0 + number


def test_an_enum_accepts_labels_and_indices_only(client: Client) -> None:
    first(client.put_stream("pva://demo:mode", "Ramping"))
    assert first(client.get_stream("ca://demo:mode")).value["index"] == 2
    first(client.put_stream("ca://demo:mode", 1))
    assert first(client.get_stream("pva://demo:mode")).value["index"] == 1
    for wrong in ("Flying", 9, 1.5):
        with pytest.raises(ValueError, match="demo:mode"):
            first(client.put_stream("pva://demo:mode", wrong))


def test_a_table_is_written_and_read_back(client: Client) -> None:
    before = first(client.get_stream("pva://demo:table"))
    table = NTTable(labels=before.data["labels"])
    table.wrap([["MARK1", "MARK:DEMO:1", 0.5, 0.0], ["MARK2", "MARK:DEMO:2", 1.5, 0.0]])
    first(client.put_stream("pva://demo:table", table))
    after = first(client.get_stream("pva://demo:table")).value
    assert list(after["element"]) == ["MARK1", "MARK2"]
    first(client.put_stream("pva://demo:table", before.value))
    assert first(client.get_stream("pva://demo:table")).value == before.value


def test_a_failure_reply_is_an_operation_error(client: Client) -> None:
    with pytest.raises(OperationError, match="demo:sum"):
        first(client.get_stream("pva://demo:sum.alarm.nothing"))


@pytest.mark.parametrize("protocol", ["pva", "ca"])
def test_updates_of_a_fast_pv_arrive_complete_and_in_order(client: Client, protocol: str) -> None:
    seen = Collected(client.monitor_stream(f"{protocol}://demo:ramp100"))
    values = [update.value for update in seen.until_count(300)]
    assert_no_gap(values)
    seen.subscription.dispose()


def test_the_first_event_of_a_constant_pv_is_received(client: Client, stack: EmbeddedStack) -> None:
    for _ in range(20):
        assert first(client.monitor_stream("ca://demo:setpoint2")).name == "demo:setpoint2"


def test_a_late_subscriber_of_many_pvs_receives_the_last_update_of_each(client: Client) -> None:
    uris = ["pva://demo:setpoint1", "ca://demo:setpoint2", "pva://demo:mode", "pva://demo:table"]
    seen = Collected(client.monitor_many_stream(uris))
    names = {"demo:setpoint1", "demo:setpoint2", "demo:mode", "demo:table"}
    seen.until(lambda collected: {item.name for item in collected.items} == names)
    late = Collected(client.monitor_many_stream(uris))
    late.until(lambda collected: {item.name for item in collected.items} == names)
    late.subscription.dispose()
    seen.subscription.dispose()


def test_updates_carry_alarms(client: Client) -> None:
    def alarming(update: PVUpdate) -> bool:
        return update.severity is not Severity.NO_ALARM

    first(client.put_stream("pva://demo:setpoint1", 1.0))
    seen = Collected(client.monitor_stream("pva://demo:setpoint1").pipe(ops.filter(alarming)))
    first(client.put_stream("pva://demo:setpoint1", 9.5))
    assert seen.until_count(1)[0].severity is Severity.MAJOR
    first(client.put_stream("pva://demo:setpoint1", 1.0))
    seen.subscription.dispose()


def test_a_one_shot_snapshot_has_all_pvs_and_does_not_affect_a_monitor(client: Client) -> None:
    seen = Collected(client.monitor_stream("pva://demo:ramp100"))
    seen.until_count(10)
    snapshot = first(client.snapshot_stream(["pva://demo:ramp100", "ca://demo:sum", "pva://no:such"], duration=0.5))
    assert len(snapshot.data["demo:ramp100"]) == 1
    assert len(snapshot.data["demo:sum"]) == 1
    assert snapshot.data["no:such"] == []
    values = [update.value for update in seen.until_more(50)]
    assert_no_gap(values)
    seen.subscription.dispose()


def test_a_recurring_snapshot_counts_its_iterations_until_it_is_stopped(client: Client, fresh_app_name: str) -> None:
    properties = SnapshotProperties(fresh_app_name, ["pva://demo:sum", "ca://demo:mode"], time_window=200)
    seen = Collected(client.snapshot_recurring_stream(properties))
    snapshots: list[Snapshot] = list(seen.until_count(3))
    assert [snapshot.iteration for snapshot in snapshots[:3]] == [1, 2, 3]
    assert all(len(snapshot.data["demo:sum"]) == 1 for snapshot in snapshots)
    assert first(client.snapshot_stop_stream(fresh_app_name)).error == 0
    seen.until_end()


def test_a_triggered_snapshot_has_an_iteration_per_trigger(client: Client, fresh_app_name: str) -> None:
    properties = SnapshotProperties(fresh_app_name, ["pva://demo:setpoint1"], triggered=True)
    seen = Collected(client.snapshot_recurring_stream(properties))
    first(client.snapshot_activation_stream(fresh_app_name))
    for count in (1, 2):
        first(client.snapshot_trigger_stream(fresh_app_name, tags={"shot": f"{count}"}))
        assert len(seen.until_count(count)) == count
    first(client.snapshot_stop_stream(fresh_app_name))
    seen.until_end()
    assert [(each.iteration, each.complete, each.tags) for each in seen.items] == [
        (1, True, {"shot": "1"}),
        (2, True, {"shot": "2"}),
    ]
    with pytest.raises(OperationError, match=fresh_app_name):
        first(client.snapshot_trigger_stream(fresh_app_name))


def test_sub_pushes_arrive_before_the_window_ends(client: Client, fresh_app_name: str) -> None:
    properties = SnapshotProperties(
        fresh_app_name,
        ["pva://demo:ramp100"],
        time_window=2000,
        sub_push_delay_msec=200,
        type=SnapshotType.TIMED_BUFFERED,
        pv_field_filter_list=["value", "timeStamp"],
    )
    seen = Collected(client.snapshot_events_stream(properties))
    whole = Collected(client.snapshot_recurring_stream(properties))
    early = seen.until_count(30)[:30]
    assert not any(isinstance(message, SnapshotTail) for message in early)
    assert [message.msg_seq for message in early] == list(range(1, 31))
    assert [message.submission_seq for message in early][:2] == [1, 1]
    snapshot = whole.until_count(1)[0]
    samples = snapshot.data["demo:ramp100"]
    assert len(samples) > 100
    assert set(samples[0]) == {"value", "timeStamp"}
    values = [sample["value"] for sample in samples]
    assert_no_gap(values)
    first(client.snapshot_stop_stream(fresh_app_name))


def test_a_filter_for_a_field_that_a_pv_lacks_is_rejected(client: Client, fresh_app_name: str) -> None:
    properties = SnapshotProperties(
        fresh_app_name, ["pva://demo:mode"], type=SnapshotType.TIMED_BUFFERED, pv_field_filter_list=["control"]
    )
    with pytest.raises(ValueError, match="demo:mode has no field 'control'"):
        first(client.snapshot_recurring_stream(properties))


def test_streams_compose(client: Client) -> None:
    sums = client.monitor_stream("pva://demo:ramp10").pipe(
        ops.map(lambda update: update.value),
        ops.buffer_with_count(5, 1),
        ops.map(lambda values: values[-1] - values[0]),
        ops.filter(lambda step: step > 0),
        ops.take(3),
        ops.to_list(),
    )
    assert first(sums) == [4.0, 4.0, 4.0]


def test_a_stream_can_get_a_pv_for_each_update(client: Client) -> None:
    pairs = client.monitor_stream("pva://demo:ramp10").pipe(
        ops.take(3),
        ops.flat_map(lambda update: client.get_stream("ca://demo:sum").pipe(ops.map(lambda data: data.value))),
        ops.to_list(),
    )
    assert len(first(pairs)) == 3


def test_two_clients_of_an_application_receive_their_own_replies_and_all_events(
    stack: EmbeddedStack, fresh_app_name: str
) -> None:
    settings = stack.settings(fresh_app_name)
    with (
        Client("demo", fresh_app_name, settings=settings) as one,
        Client("demo", fresh_app_name, settings=settings) as two,
    ):
        seen = [Collected(client.monitor_stream("pva://demo:ramp100")) for client in (one, two)]
        values = first(rx.zip(one.get_stream("pva://demo:setpoint1"), two.get_stream("pva://demo:mode")))
        assert [data.name for data in values] == ["demo:setpoint1", "demo:mode"]
        for collected in seen:
            items = [update.value for update in collected.until_count(100)]
            assert_no_gap(items)


def test_a_slow_subscriber_with_latest_skips_and_counts_updates(client: Client) -> None:
    go = threading.Event()
    seen: list[PVUpdate] = []

    def slow(update: PVUpdate) -> None:
        seen.append(update)
        go.wait(TIMEOUT)

    fast = Collected(client.monitor_stream("pva://demo:ramp100"))
    subscription = client.monitor_stream("pva://demo:ramp100", overflow=Overflow.LATEST).subscribe(slow)
    fast.until_count(100)
    go.set()
    fast.until_more(20)
    assert client.status.dropped > 10
    assert len(seen) < len(fast.items)
    subscription.dispose()


def test_the_status_has_connection_and_monitors(client: Client) -> None:
    seen = Collected(client.status_stream())
    first(client.ready_stream())
    monitor = Collected(client.monitor_stream("pva://demo:ramp10"))
    seen.until(
        lambda collected: any(status.connection.value == "up" and status.monitors == 1 for status in collected.items)
    )
    monitor.subscription.dispose()
    seen.subscription.dispose()
