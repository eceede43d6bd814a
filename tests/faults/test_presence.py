"""Consumer groups as Kafka's admin client sees them: presence groups, and groups that share events."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from confluent_kafka.admin import AdminClient

from k2eg_rx import Client, PVUpdate

PATIENCE = 300.0  # seconds until a test fails: twelve members at once, of groups that each wait for the slowest one
POLL_INTERVAL = 0.2  # seconds between requests; Kafka does not report group changes


def members(admin: AdminClient, word: str) -> dict[str, int]:
    """Returns the number of members of each group whose name contains a word."""
    listed = admin.list_consumer_groups(request_timeout=PATIENCE).result(PATIENCE).valid
    names = [group.group_id for group in listed if word in group.group_id]
    if not names:
        return {}
    described = admin.describe_consumer_groups(names, request_timeout=PATIENCE)
    return {name: len(future.result(PATIENCE).members) for name, future in described.items()}


def wait_until(happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, what
        time.sleep(POLL_INTERVAL)


def test_every_client_is_a_group_member_until_it_is_closed(site: Any) -> None:
    admin = AdminClient({"bootstrap.servers": site.broker})
    app = f"my-K2eg-{site.name}"
    first, second = site.client(app), site.client(app)
    wait_until(lambda: set(members(admin, site.name).values()) == {2}, "both clients have joined")
    (group,) = members(admin, site.name)
    assert "k2eg" not in group.lower()
    (described,) = admin.describe_consumer_groups([group]).values()
    topics = {
        part.topic for member in described.result(PATIENCE).members for part in member.assignment.topic_partitions
    }
    assert topics == {f"{app}-reply"}, "gateways look for members with the reply topic"
    first.close()
    wait_until(lambda: members(admin, site.name) == {group: 1}, "one client has left")
    second.close()
    wait_until(lambda: not any(members(admin, site.name).values()), "both clients have left")


class Shares:
    """Collects the updates of each member of a group, and counts their Kafka records."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.received: list[tuple[int, str, int]] = []
        self.records: Counter[tuple[str, int, int]] = Counter()

    def handler(self, member: int) -> Callable[[PVUpdate], None]:
        def on_next(update: PVUpdate) -> None:
            with self.changed:
                self.received.append((member, update.name, update.value))
                self.records[update.record[:3]] += 1
                self.changed.notify_all()

        return on_next

    def wait_until(self, happened: Callable[[], bool], what: str) -> None:
        with self.changed:
            assert self.changed.wait_for(happened, PATIENCE), f"{what}: {Counter(m for m, _, _ in self.received)}"


def _share_and_take_over(site: Any) -> None:
    gateway = site.gateway()
    uris = site.uris(30)  # with events in one of three partitions each: enough that each member is assigned some
    names = [uri.removeprefix("pva://") for uri in uris]
    shares = Shares()
    group = f"shared-{site.name}"
    admin = AdminClient({"bootstrap.servers": site.broker})
    clients: list[Client] = []
    for member in range(3):
        clients.append(site.client("shared", group))
        clients[member].monitor_many_stream(uris).subscribe(shares.handler(member))
    wait_until(lambda: members(admin, group) == {group: 3}, "three members")

    def wait_for_events(*expected: int) -> None:
        start = len(shares.received)
        shares.wait_until(
            lambda: {m for m, _, _ in shares.received[start:]} == set(expected), f"events for each of {expected}"
        )

    wait_for_events(0, 1, 2)
    clients[1].close()
    start = len(shares.received)
    shares.wait_until(lambda: {name for _, name, _ in shares.received[start:]} == set(names), "events of every PV")
    wait_for_events(0, 2)
    last = gateway.pause()

    def newest_values() -> dict[str, int]:
        newest: dict[str, int] = {}
        for _, name, value in shares.received:
            newest[name] = max(value, newest.get(name, 0))
        return newest

    shares.wait_until(lambda: newest_values() == last, "the last value of each PV")
    assert {record: count for record, count in shares.records.items() if count > 1} == {}, "an event was received twice"
    for name in names:
        # a gateway publishes the current value again for each client that starts a monitor
        values = sorted({value for _, of, value in shares.received if of == name})
        assert values == list(range(last[name] + 1)), "values are lost"


def test_three_members_share_events_and_two_take_over_from_a_leaving_one(site: Any) -> None:
    _share_and_take_over(site)


def test_several_groups_share_concurrently_while_topics_appear(apache_kafka: Any, make_site: Any) -> None:
    """The load delays members, so that they discover topics and each other in any order."""
    sites = [make_site(apache_kafka.address) for _ in range(4)]
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(_share_and_take_over, site) for site in sites]:
            done.result()
