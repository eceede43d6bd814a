"""Restarts of gateways one after the other, and of Kafka, under a fleet that publishes."""

from __future__ import annotations

from contextlib import closing
from itertools import pairwise
from typing import Any

from fleet_application import Application, assert_numbers_go_on, owners, wait_for_members


def wait_for_values(application: Application, names: list[str], more: int = 20) -> None:
    """Waits for a number of further values of each PV."""
    with application.changed:
        counts = {name: len(application.values[name]) for name in names}
    application.wait_until(
        lambda: all(len(application.values[name]) >= count + more for name, count in counts.items()), "further values"
    )


def assert_nothing_is_missing_or_twice(application: Application, names: list[str], topic: str) -> None:
    """Checks the values of PVs, and the iterations of a recurring snapshot; with `application.changed`."""
    for name in names:
        steps = [step for step in pairwise(application.values[name]) if step[1] != step[0] + 1]
        assert not steps, f"values of {name} are missing, or there twice"
    numbers = application.iterations[topic]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_rolling_restart_loses_and_repeats_nothing(site: Any, application: Application, ioc: Any) -> None:
    members = [site.gateway(epics=ioc.variables) for _ in range(2)]
    wait_for_members(site, 2)
    names = application.monitor(ioc.uris)
    every = application.start(f"every-{site.name}", ioc.uris, time_window_msec=100)
    triggered = f"triggered-{site.name}"
    topic = application.start(triggered, ioc.uris, time_window_msec=1000, triggered=True)
    wait_for_values(application, names)
    before, triggers = owners(application, names), 0
    for member in members:
        site.gateway(epics=ioc.variables)
        wait_for_members(site, 3)
        assert application.ask("repeating_snapshot_trigger", snapshot_name=triggered)["error"] == 0
        member.stop()
        wait_for_members(site, 2)
        assert application.ask("repeating_snapshot_trigger", snapshot_name=triggered)["error"] == 0
        triggers += 2
        wait_for_values(application, names)
    application.wait_until(lambda: len(application.iterations[topic]) >= triggers, "an iteration for each trigger")
    now = owners(application, names)
    with application.changed:
        assert all(now[name] != before[name] for name in names), "all have moved"
        assert_nothing_is_missing_or_twice(application, names, every)
        assert application.iterations[topic] == list(range(1, triggers + 1))


def test_members_that_end_while_others_take_over_lose_and_repeat_nothing(
    site: Any, application: Application, ioc: Any
) -> None:
    members = [site.gateway(epics=ioc.variables) for _ in range(2)]
    wait_for_members(site, 2)
    names = application.monitor(ioc.uris)
    every = application.start(f"every-{site.name}", ioc.uris, time_window_msec=100)
    wait_for_values(application, names)
    for _ in range(4):
        members.append(site.gateway(epics=ioc.variables))
        wait_for_members(site, 3)  # the group has assigned the partitions; the new member is taking its own over
        members.pop(0).stop()
        wait_for_members(site, 2)
        wait_for_values(application, names)
    with application.changed:
        assert_nothing_is_missing_or_twice(application, names, every)


def test_a_fleet_goes_on_after_a_restart_of_kafka(make_apache_kafka: Any, make_site: Any, make_ioc: Any) -> None:
    broker = make_apache_kafka()
    site = make_site(broker.address)
    with closing(Application(site)) as application:
        ioc = make_ioc(5, 20.0)
        for _ in range(2):
            site.gateway(epics=ioc.variables)
        wait_for_members(site, 2)
        names = application.monitor(ioc.uris)
        every = application.start(f"every-{site.name}", ioc.uris, time_window_msec=100)
        wait_for_values(application, names)
        broker.stop()
        broker.start()
        wait_for_values(application, names)
        with application.changed:
            number = len(application.iterations[every])
        application.wait_until(lambda: len(application.iterations[every]) > number + 3, "later iterations")
        wait_for_members(site, 2)
        for uri in ioc.uris:  # any of the two gets the command
            assert application.ask("get", pv_name=uri)["error"] == 0
        wait_for_values(application, names)
        with application.changed:
            assert_numbers_go_on(application.iterations[every])
            for name in names:  # what waited in an owner that was cut off has the older epoch
                assert application.current[name] == sorted(set(application.current[name])), "values are there twice"
