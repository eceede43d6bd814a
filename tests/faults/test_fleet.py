"""Gateways of one group share PVs and snapshots, and remember them, on Apache Kafka."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic
from fleet_application import (
    PATIENCE,
    Application,
    assert_numbers_go_on,
    owners,
    wait_for_members,
    wait_for_owners,
)
from reactivex import operators as ops

from k2eg_rx import first

SECOND = 1_000_000  # the first value of the second gateway's PVs


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_restarted_gateway_goes_on(site: Any, application: Application, how: str) -> None:
    before = site.gateway()
    names = application.monitor(site.uris(3))
    topic = application.start(f"every-{site.name}", site.uris(3), time_window_msec=100)
    application.wait_until(lambda: len(application.iterations[topic]) > 2, "iterations")
    application.wait_until(lambda: all(len(application.values[name]) > 5 for name in names), "values")

    getattr(before, how)()
    with application.changed:
        number = len(application.iterations[topic])
    site.gateway(first=SECOND)

    application.wait_until(lambda: all(application.values[name][-1] > SECOND for name in names), "later values")
    application.wait_until(lambda: len(application.iterations[topic]) > number + 3, "later iterations")
    numbers = application.iterations[topic]
    assert_numbers_go_on(numbers)
    if how == "stop":
        assert numbers == list(range(1, len(numbers) + 1)), "the next number is used, if the gateway had time to say it"
    for name in names:
        assert application.values[name] == sorted(set(application.values[name]))


def test_two_gateways_publish_each_pv_and_each_snapshot_once(site: Any, application: Application) -> None:
    site.gateway(first=0)
    site.gateway(first=SECOND)
    wait_for_members(site, 2)
    names = application.monitor(site.uris(16))
    for _ in range(6):  # each gateway gets some
        application.ask("multi-monitor", pv_name_list=site.uris(16), activate=True, uri_keys=True)
    topics = [application.start(f"s{number}-{site.name}", site.uris(2), time_window_msec=100) for number in range(6)]
    application.wait_until(lambda: all(len(application.values[name]) > 20 for name in names), "values")
    application.wait_until(lambda: all(len(application.iterations[topic]) > 5 for topic in topics), "iterations")
    firsts = set()
    with application.changed:
        for name in names:
            values = application.values[name]
            others = [value for before, value in pairwise(values) if value != before + 1]
            assert len(others) <= 1, f"two gateways publish it, not one after the other: {values}"
            firsts.add(values[-1] >= SECOND)
        for topic in topics:
            assert_numbers_go_on(application.iterations[topic])
    assert firsts == {False, True}, "each gateway has some PVs"
    reports = first(site.client().gateways_stream(PATIENCE).pipe(ops.take(2), ops.to_list()))
    assert len({report.gateway for report in reports}) == 2
    assert sum(report.monitors for report in reports) == len(names)
    assert sum(report.snapshots for report in reports) == len(topics)


def test_triggers_and_stops_reach_the_owner(site: Any, application: Application) -> None:
    site.gateway()
    name = f"triggered-{site.name}"
    topic = application.start(name, site.uris(2), time_window_msec=1000, triggered=True)
    site.gateway()
    wait_for_members(site, 2)
    for _ in range(8):  # each gateway gets some
        assert application.ask("repeating_snapshot_trigger", snapshot_name=name)["error"] == 0
    application.wait_until(lambda: len(application.iterations[topic]) >= 8, "an iteration for each trigger")
    assert_numbers_go_on(application.iterations[topic])
    for _ in range(6):
        assert application.ask("repeating_snapshot_stop", snapshot_name=name)["error"] == 0
    with application.changed:
        number = len(application.iterations[topic])
    errors = {application.ask("repeating_snapshot_trigger", snapshot_name=name)["error"] for _ in range(6)}
    assert errors == {-2}, "it is stopped for every gateway"
    assert len(application.iterations[topic]) == number <= 9


def test_pvs_move_to_an_added_gateway_and_back_without_a_gap(site: Any, application: Application, ioc: Any) -> None:
    first = site.gateway(epics=ioc.variables)
    names = application.monitor(ioc.uris)
    topic = application.start(f"moving-{site.name}", ioc.uris, time_window_msec=100)
    application.wait_until(lambda: all(len(application.values[name]) > 10 for name in names), "values")
    before = owners(application, names)

    site.gateway(epics=ioc.variables)
    wait_for_members(site, 2)
    application.wait_until(lambda: any(owners(application, [name]) != {name: before[name]} for name in names), "a move")
    with application.changed:
        numbers = {name: len(application.values[name]) for name in names}
    application.wait_until(
        lambda: all(len(application.values[name]) > number + 20 for name, number in numbers.items()), "later values"
    )
    first.stop()
    with application.changed:
        numbers = {name: len(application.values[name]) for name in names}
    application.wait_until(
        lambda: all(len(application.values[name]) > number + 20 for name, number in numbers.items()), "later values"
    )
    with application.changed:
        assert owners(application, names).keys() == before.keys()
        for name in names:
            values = application.values[name]
            assert values == list(range(values[0], values[0] + len(values))), "values are missing, or there twice"
            assert application.epochs[name] == sorted(application.epochs[name])
        numbers_of_iterations = application.iterations[topic]
        assert numbers_of_iterations == list(range(1, len(numbers_of_iterations) + 1))
    assert all(owners(application, [name]) != {name: before[name]} for name in names), "the second gateway has all"


def test_the_pvs_of_a_killed_gateway_go_on(site: Any, application: Application) -> None:
    site.gateway(first=0)
    second = site.gateway(first=SECOND)
    wait_for_members(site, 2)
    names = application.monitor(site.uris(16))
    topics = [application.start(f"k{number}-{site.name}", site.uris(2), time_window_msec=100) for number in range(4)]
    application.wait_until(lambda: all(len(application.values[name]) > 5 for name in names), "values")
    application.wait_until(lambda: all(len(application.iterations[topic]) > 2 for topic in topics), "iterations")
    wait_for_owners(application, names)
    with application.changed:
        lost = [name for name in names if application.values[name][-1] >= SECOND]
        kept = [name for name in names if name not in lost]
    assert lost, "the second gateway has some PVs"
    assert kept, "the first gateway has some PVs"

    second.kill()
    application.wait_until(lambda: all(application.values[name][-1] < SECOND for name in lost), "values of the first")
    with application.changed:
        counts = {topic: len(application.iterations[topic]) for topic in topics}
    application.wait_until(
        lambda: all(len(application.iterations[topic]) > n + 3 for topic, n in counts.items()), "more"
    )
    with application.changed:
        for name in kept:
            values = application.values[name]
            others = [value for before, value in pairwise(values) if value != before + 1]
            assert len(others) <= 1, f"others are not disturbed after they have got their PVs: {values}"
        for topic in topics:
            assert_numbers_go_on(application.iterations[topic])


def test_a_frozen_gateway_publishes_nothing_old(site: Any, application: Application, make_collector: Any) -> None:
    site.gateway(first=SECOND)
    second = site.gateway(first=0)
    wait_for_members(site, 2)
    uris = site.uris(16)
    names = application.monitor(uris)
    collector = make_collector()
    client = site.client()
    client.monitor_many_stream(uris).subscribe(collector.on_next, collector.on_end, collector.on_end)
    collector.wait_until(lambda: len(collector.values) == len(names), "all PVs")
    collector.wait_for_progress()
    wait_for_owners(application, names)
    with application.changed:
        frozen = [name for name in names if application.values[name][-1] < SECOND]
    assert frozen

    with collector.changed:
        begin = {name: len(collector.values[name]) for name in frozen}
    second.freeze()
    collector.wait_until(lambda: all(collector.values[name][-1] >= SECOND for name in frozen), "the other goes on")
    collector.wait_for_progress()
    second.thaw()
    wait_for_members(site, 2)
    collector.wait_for_progress(20)
    with application.changed:
        epochs = {name: application.epochs[name] for name in frozen}
        late = {name: sum(a > b for a, b in pairwise(each)) for name, each in epochs.items()}
    with collector.changed:
        for name in frozen:
            values = collector.values[name][begin[name] :]
            steps = [number for number in range(1, len(values)) if values[number] < values[number - 1]]
            # back to the frozen one's values only if it has become the owner again, in one step
            assert len(steps) <= 1, (late, values)
    assert collector.ends == []


def test_a_state_topic_that_was_deleted_is_made_anew(site: Any, application: Application) -> None:
    first = site.gateway()
    names = application.monitor(site.uris(3))
    topic = application.start(f"anew-{site.name}", site.uris(2), time_window_msec=100)
    application.wait_until(lambda: len(application.iterations[topic]) > 2, "iterations")
    application.wait_until(lambda: all(application.values[name] for name in names), "values")
    before = owners(application, names)
    application.delete(f"gateways-{site.name}-state")
    application.wait_until(lambda: all(owners(application, [n])[n] > before[n] for n in names), "events of a new epoch")
    site.gateway(first=SECOND)
    wait_for_members(site, 2)
    first.kill()
    application.wait_until(lambda: all(application.values[name][-1] > SECOND for name in names), "later values")
    with application.changed:
        number = len(application.iterations[topic])
    application.wait_until(lambda: len(application.iterations[topic]) > number + 3, "later iterations")
    assert_numbers_go_on(application.iterations[topic])


def test_a_state_topic_that_kafka_has_made_is_set_up(site: Any) -> None:
    admin, topic = AdminClient({"bootstrap.servers": site.broker}), f"gateways-{site.name}-state"
    admin.create_topics([NewTopic(topic, 1)])[topic].result(PATIENCE)
    site.gateway(state_partitions=8)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    config = admin.describe_configs([resource])[resource].result(PATIENCE)
    assert config["cleanup.policy"].value == "compact"
    assert len(admin.list_topics(topic, timeout=PATIENCE).topics[topic].partitions) == 8
    site.gateway(state_partitions=16)
    assert len(admin.list_topics(topic, timeout=PATIENCE).topics[topic].partitions) == 8, "one that is right stays"
