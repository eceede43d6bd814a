"""Three gateways of one group, three clients, and all kinds of commands at the same time, on Apache Kafka."""

from __future__ import annotations

import base64
import itertools
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Protocol

import msgpack
from fleet_application import PATIENCE, Application, wait_for_members
from reactivex import operators as ops

from k2eg_rx import Client, SnapshotProperties, first

PVS = 100  # so many share a topic
RATE = 4.0  # hertz; benchmarks/fleet.py has 300 PVs at 10 Hz
VALUES = 20  # of each PV
ROUNDS = 2  # of each operation, by each client


class Actor(Protocol):
    """A client, as the test uses it; each method returns when its replies have come, and fails if they say failure."""

    def get(self, uri: str) -> None: ...
    def put(self, uri: str, number: int) -> None: ...
    def snapshot(self, uris: list[str]) -> None: ...
    def trigger(self, name: str) -> None: ...
    def start_and_stop(self, name: str, uris: list[str]) -> None: ...


class Ours:
    """A client of this project."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def get(self, uri: str) -> None:
        assert first(self._client.get_stream(uri)).value >= 0

    def put(self, uri: str, number: int) -> None:
        first(self._client.put_stream(uri, number))

    def snapshot(self, uris: list[str]) -> None:
        assert all(first(self._client.snapshot_stream(uris)).data.values())

    def trigger(self, name: str) -> None:
        first(self._client.snapshot_trigger_stream(name))

    def start_and_stop(self, name: str, uris: list[str]) -> None:
        properties = SnapshotProperties(snapshot_name=name, pv_uri_list=uris, time_window=100)
        iterations = first(self._client.snapshot_recurring_stream(properties).pipe(ops.take(3), ops.to_list()))
        numbers = [iteration.iteration for iteration in iterations]
        assert numbers == list(range(numbers[0], numbers[0] + 3))
        first(self._client.snapshot_stop_stream(name))


class Deployed:
    """A client that sends what the deployed client sends."""

    def __init__(self, application: Application) -> None:
        self._application = application

    def get(self, uri: str) -> None:
        reply = self._application.ask("get", pv_name=uri)
        assert reply[uri.removeprefix("pva://")]["value"] >= 0

    def put(self, uri: str, number: int) -> None:
        value = base64.b64encode(msgpack.packb({"value": number}) or b"").decode()
        assert self._application.ask("put", pv_name=uri, value=value)["error"] == 0

    def snapshot(self, uris: list[str]) -> None:
        application = self._application
        reply_id = application.send("snapshot", pv_name_list=uris, time_window_msec=500)
        application.wait_until(lambda: application.replies.get(reply_id, {}).get("error") == 1, "a snapshot")

    def trigger(self, name: str) -> None:
        assert self._application.ask("repeating_snapshot_trigger", snapshot_name=name)["error"] == 0

    def start_and_stop(self, name: str, uris: list[str]) -> None:
        application = self._application
        topic = application.start(name, uris, time_window_msec=100)
        application.wait_until(lambda: len(application.iterations[topic]) >= 3, "iterations")
        assert application.ask("repeating_snapshot_stop", snapshot_name=name)["error"] == 0
        with application.changed:
            numbers = application.iterations[topic]
            assert numbers == list(range(1, len(numbers) + 1))


def act(actor: Actor, name: str, ioc: Any, triggered: str, numbers: Iterator[int], puts: list[tuple[str, int]]) -> None:
    """Does everything a few times, in an order of its own."""
    generator = random.Random(name)
    actions = ["get", "put", "snapshot", "trigger", "start_and_stop"] * ROUNDS
    generator.shuffle(actions)
    for step, action in enumerate(actions):
        some = generator.sample(ioc.uris, 3)
        match action:
            case "get":
                actor.get(some[0])
            case "put":
                put = generator.choice(ioc.settable), next(numbers)
                actor.put(*put)
                puts.append(put)
            case "snapshot":
                actor.snapshot(some)
            case "trigger":
                actor.trigger(triggered)
            case _:
                actor.start_and_stop(f"{name}-{step}", some)


def test_each_event_is_there_once_and_each_command_is_carried_out_once(
    site: Any, application: Application, make_ioc: Any, make_collector: Any
) -> None:
    ioc = make_ioc(PVS, RATE, 3)
    for _ in range(3):
        site.gateway(epics=ioc.variables)
    wait_for_members(site, 3)
    events = f"events-{site.name}"
    clients = [site.client(), site.client(events_topic=events)]
    with closing(Application(site)) as shared:
        shared.follow(events)
        names = application.monitor(ioc.uris, monitor_dest_topic="")
        collectors = [make_collector() for _ in clients]
        for client, collector in zip(clients, collectors, strict=True):
            client.monitor_many_stream(ioc.uris).subscribe(collector.on_next, collector.on_end, collector.on_end)
        triggered = f"triggered-{site.name}"
        topic = application.start(triggered, ioc.uris[:3], time_window_msec=1000, triggered=True)

        puts: list[tuple[str, int]] = []
        failures: list[BaseException] = []
        numbers = itertools.count(1)

        def run(actor: Actor, number: int) -> None:
            try:
                act(actor, f"{site.name}-{number}", ioc, triggered, numbers, puts)
            except BaseException as failure:
                failures.append(failure)

        actors: list[Actor] = [Deployed(application), *map(Ours, clients)]
        threads = [threading.Thread(target=run, args=(actor, number)) for number, actor in enumerate(actors)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert failures == []
        assert not any(thread.is_alive() for thread in threads)
        wanted = ROUNDS * len(actors)
        application.wait_until(lambda: len(application.iterations[topic]) >= wanted, "an iteration for each trigger")
        for reader in (application, shared, *collectors):
            reader.wait_until(lambda r=reader: all(len(r.values[name]) >= VALUES for name in names), "values")

        assert Counter((uri, number) for uri, put in ioc.puts.items() for number in put) == Counter(puts)
        assert application.iterations[topic] == list(range(1, wanted + 1))
        for reader in (application, shared, *collectors):
            with reader.changed:
                for name in names:
                    values = reader.values[name]
                    assert values == list(range(values[0], values[0] + len(values))), name
        with application.changed, shared.changed:
            publishers = [
                {epoch for epoch in each.epochs[name] if epoch} for each in (application, shared) for name in names
            ]
            assert {len(each) for each in publishers} == {1}, "a PV has one publisher"
            assert len(set().union(*publishers)) > 1, "each gateway has some PVs"
        assert [collector.ends for collector in collectors] == [[], []]
