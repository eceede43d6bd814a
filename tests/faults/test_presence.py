"""Consumer groups, as Kafka's administration sees them: who is there, and who shares events with whom."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from confluent_kafka.admin import AdminClient

from k2eg_rx import Client, PVUpdate

PATIENCE = 120.0  # seconds until something that should happen is missing; a green test never waits that long
ASK = 0.2  # seconds between questions: nobody tells when a group changes


def members(admin: AdminClient, word: str) -> dict[str, int]:
    """Returns the groups with a word in their name, with the number of their members."""
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
        time.sleep(ASK)


def test_every_client_is_a_live_member_until_it_is_closed(site: Any) -> None:
    admin = AdminClient({"bootstrap.servers": site.broker})
    app = f"my-K2eg-{site.name}"
    first, second = site.client(app), site.client(app)
    wait_until(lambda: set(members(admin, site.name).values()) == {2}, "both clients are there")
    (group,) = members(admin, site.name)
    assert "k2eg" not in group.lower()
    (described,) = admin.describe_consumer_groups([group]).values()
    topics = {
        part.topic for member in described.result(PATIENCE).members for part in member.assignment.topic_partitions
    }
    assert topics == {f"{app}-reply"}, "a gateway that looks who listens to the reply topic sees them"
    first.close()
    wait_until(lambda: members(admin, site.name) == {group: 1}, "one has left")
    second.close()
    wait_until(lambda: not any(members(admin, site.name).values()), "both have left")


class Shares:
    """What each member of a group got, and which of Kafka's records that were."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.got: list[tuple[int, str, int]] = []
        self.records: Counter[tuple[str, int, int]] = Counter()

    def keeper(self, member: int) -> Callable[[PVUpdate], None]:
        def keep(update: PVUpdate) -> None:
            with self.changed:
                self.got.append((member, update.name, update.value))
                self.records[update.record[:3]] += 1
                self.changed.notify_all()

        return keep

    def wait_until(self, happened: Callable[[], bool], what: str) -> None:
        with self.changed:
            assert self.changed.wait_for(happened, PATIENCE), f"{what}: {Counter(m for m, _, _ in self.got)}"


def _share_and_take_over(site: Any) -> None:
    gateway = site.gateway()
    uris = site.uris(30)  # with three partitions each, of which one has the events: so each member is certain of some
    names = [uri.removeprefix("pva://") for uri in uris]
    shares = Shares()
    group = f"shared-{site.name}"
    admin = AdminClient({"bootstrap.servers": site.broker})
    clients: list[Client] = []
    for member in range(3):
        clients.append(site.client("shared", group))
        clients[member].monitor_many_stream(uris).subscribe(shares.keeper(member))
    wait_until(lambda: members(admin, group) == {group: 3}, "three members")

    def news(*of: int) -> None:
        start = len(shares.got)
        shares.wait_until(lambda: {m for m, _, _ in shares.got[start:]} == set(of), f"events for each of {of}")

    news(0, 1, 2)
    clients[1].close()
    start = len(shares.got)
    shares.wait_until(lambda: {name for _, name, _ in shares.got[start:]} == set(names), "every PV goes on")
    news(0, 2)
    last = gateway.quiet()

    def seen() -> dict[str, int]:
        newest: dict[str, int] = {}
        for _, name, value in shares.got:
            newest[name] = max(value, newest.get(name, 0))
        return newest

    shares.wait_until(lambda: seen() == last, "the last value of each PV")
    assert {record: count for record, count in shares.records.items() if count > 1} == {}, "each event to exactly one"
    for name in names:
        # a gateway says the present value once more to each client that asks for the PV
        values = sorted({value for _, of, value in shares.got if of == name})
        assert values == list(range(last[name] + 1)), "nothing is lost"


def test_three_members_of_a_group_share_events_and_take_over_from_one_that_leaves(site: Any) -> None:
    _share_and_take_over(site)


def test_several_groups_do_at_once_while_the_topics_appear(apache_kafka: Any, make_site: Any) -> None:
    """Each waits for the others now and then, so members get to know of topics, and of each other, at any time."""
    sites = [make_site(apache_kafka.address) for _ in range(4)]
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(_share_and_take_over, site) for site in sites]:
            done.result()
