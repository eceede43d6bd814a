"""Gateways of a fleet in virtual time, over a log in memory: takeover, handover, fencing, commands of others."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import reactivex
from reactivex.subject import Subject
from reactivex.testing import TestScheduler

from k2eg_rx.errors import TransportError
from k2eg_rx.gateway.commands.claims import Claims
from k2eg_rx.gateway.commands.dispatch import handle_each
from k2eg_rx.gateway.commands.messages import ConnectionRecord, OutgoingRecord
from k2eg_rx.gateway.commands.source import ReceivedCommand
from k2eg_rx.gateway.fleet import fleet as fleet_module
from k2eg_rx.gateway.fleet import owner as owner_module
from k2eg_rx.gateway.fleet.entries import Entry, Kind
from k2eg_rx.gateway.fleet.fleet import Fleet
from k2eg_rx.gateway.gateway import CommandHandler
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.gateway.runtime.event_loop import call_soon
from k2eg_rx.gateway.runtime.options import GatewayOptions
from k2eg_rx.pv import PVAddress
from k2eg_rx.transport import Assignment, Record

UNIX = 1_795_000_000.0
PARTITIONS = 4
TOPIC = "gateways-state"


class Log:
    """The log as one member sees it."""

    def __init__(self, site: Site) -> None:
        self.topic, self.partitions = TOPIC, PARTITIONS
        self.started: Future[None] = Future()
        self._site = site
        self.is_stuck = False  # reads nothing
        self.append_seconds = 0.0  # until Kafka has an entry
        self.lag = 0
        self.catching_up: list[Callable[[], None]] = []

    def start(self, scheduler: Any, reader: Any) -> None:
        self.reader = reader
        self.waiting = list(self._site.entries)
        self.read()
        self.started.set_result(None)

    def read(self) -> None:
        if not self.is_stuck:
            entries, self.waiting = self.waiting, []
            self.reader.on_entries(entries)
            done, self.catching_up = self.catching_up, []
            for each in done:
                each()

    def append(self, partition: int, key: bytes, value: bytes | None, done: Callable[[Any], None]) -> None:
        def store(_scheduler: Any = None, _state: object = None) -> None:
            self._site.append(partition, key, value)
            call_soon(self._site.scheduler, lambda: done(None))

        if self.append_seconds:
            self._site.scheduler.schedule_relative(self.append_seconds, store)
        else:
            store()

    def catch_up(self, done: Callable[[], None]) -> None:
        self.catching_up.append(done)
        self.read()

    def close(self, timeout: float) -> None: ...


class Source:
    """The membership of one gateway."""

    def __init__(self) -> None:
        self.owned: set[int] = set()
        self.is_member = True
        self.is_proven = True  # a commit has shown that
        self.proves = True  # whether one does
        self.is_assigned = True
        self.number = 1  # of the assignment
        self.proofs = 0  # how often a commit was asked for
        self.is_closed = threading.Event()

    def read(self, topic: str) -> None: ...

    def confirm(self, done: Callable[[], None]) -> None:
        self.proofs += 1
        if self.proves:
            self.is_proven = True
            done()

    def close(self, timeout: float) -> None:
        self.is_closed.set()

    def in_session(self) -> bool:
        return self.is_member and self.is_proven

    def assignment(self) -> Assignment | None:
        if not self.is_assigned:
            return None
        return Assignment(len(self.owned), self.number, frozenset((TOPIC, number) for number in self.owned))


class Member:
    """One gateway; also its transport and its publisher."""

    def __init__(self, site: Site, **options: Any) -> None:
        self.site = site
        self.outgoing: list[OutgoingRecord] = []
        self.held: list[OutgoingRecord] = []  # until this gateway may publish
        self.waiting: set[str] = set()  # topics whose records wait
        self.dropped: set[str] = set()
        self.is_confirmed = True  # what it has published
        self.is_late = False
        self.late: list[Callable[[], None]] = []  # updates that it has not read
        self.pva = site.new_provider()
        self.source = Source()
        self.log = Log(site)
        context = GatewayContext(
            site.scheduler, options=GatewayOptions(**options), clock=site.time, command_topic="commands"
        )
        self.handler = CommandHandler({"pva": self.pva}, context)
        self.fleet = Fleet(self.log, self, self.handler, self, context)  # type: ignore[arg-type]
        self.handler.share(self.fleet.handlers)
        self.fleet.start()

    def problem(self) -> str:
        state = self.fleet.state()
        assert state is not None
        return state.problem

    def events(self, receiver: Any, group: str) -> Source:
        self.receiver = receiver
        return self.source

    def send(self, outgoing: OutgoingRecord) -> None:
        if isinstance(outgoing, ConnectionRecord):
            return
        if outgoing.epoch and not self.fleet.may_publish():
            self.held.append(outgoing)
            return
        self.outgoing.append(outgoing)
        if not isinstance(outgoing, ConnectionRecord):
            self.site.published[outgoing.topic].append((self, json.loads(outgoing.value)))

    def is_settled(self, topic: str, key: bytes) -> bool:
        return self.is_confirmed

    def in_session(self) -> bool:
        return self.fleet.may_publish()

    def drop(self, topic: str, key: bytes) -> bool:
        self.dropped.add(topic)
        held, self.held = self.held, [record for record in self.held if record.topic != topic]
        return topic in self.waiting or len(held) > len(self.held)

    def read_updates(self) -> None:
        while self.late:
            self.late.pop(0)()

    def leave(self) -> threading.Thread:
        """Lets the gateway leave the fleet; returns the thread that waits for the others, once it has begun."""
        leaving = threading.Thread(target=self.fleet.leave)
        leaving.start()
        assert self.source.is_closed.wait(60.0)
        return leaving

    def publish_held(self) -> None:
        held, self.held = self.held, []
        for record in held:
            self.send(record)

    def command(self, command: str, *, topic: str = "commands", **fields: Any) -> None:
        body = {"command": command, "reply_topic": "replies", "reply_id": "id", "serialization": "json"} | fields
        record = Record(topic, 0, 0, None, json.dumps(body).encode())
        claims = Claims()
        with claims.lock:
            received = ReceivedCommand(record, claims.of(record))
        handled = handle_each(self.handler.handle, lambda command, error: pytest.fail(repr(error)))

        reactivex.of(received).pipe(handled).subscribe(self.send)
        self.site.advance(0.5)


class Site:
    """Gateways, the log that they share, and what they have published."""

    def __init__(self, new_provider: Callable[[], Any]) -> None:
        self.new_provider = new_provider
        self.scheduler = TestScheduler()
        self.entries: list[Entry] = []
        self.members: list[Member] = []
        self.published: dict[str, list[tuple[Member, Any]]] = defaultdict(list)
        self._offsets: dict[int, int] = defaultdict(int)

    def time(self) -> float:
        return UNIX + self.scheduler.now.timestamp()

    def append(self, partition: int, key: bytes, value: bytes | None) -> None:
        entry = Entry.of(partition, self._offsets[partition], key, value)
        assert entry is not None
        self._offsets[partition] += 1
        self.entries.append(entry)
        for member in self.members:
            member.log.waiting.append(entry)
            call_soon(self.scheduler, member.log.read)

    def add(self, **options: Any) -> Member:
        member = Member(self, **options)
        self.members.append(member)
        self.advance(0.5)
        return member

    def add_owner(self) -> Member:
        """Returns a gateway that has all partitions and publishes one PV."""
        member = self.add()
        self.assign((member, ALL))
        member.command("monitor", pv_name="pva://a", monitor_dest_topic="a", uri_keys=True)
        return member

    def add_waiting_owner(self) -> tuple[Member, Member, Member]:
        """Returns an owner that has published 1 and 2, the next one, which waits for its release, and a third gateway.

        Kafka does not confirm what the first one has published. The PV has the value 6.
        """
        first = self.add_owner()
        second, third = self.add(), self.add()
        self.update("a", 1)
        first.is_confirmed = False
        self.assign((first, set()), (second, ALL), seconds=0.15)
        for value in range(2, 7):
            self.update("a", value, 0.1)
        return first, second, third

    def join(self, leaving: threading.Thread) -> None:
        """Lets time go on until a gateway has left."""
        while leaving.is_alive():
            self.advance(0.1)
            leaving.join(0.01)

    def assign(self, *owned: tuple[Member, set[int]], seconds: float = 8.0) -> None:
        """Assigns partitions as the group does: once every gateway of it has given up those that it had."""
        announced: list[Member] = []
        members = [member for member in self.members if member.source.is_member]
        for member in members:
            done = partial(announced.append, member)
            member.fleet.announce(member.source.assignment(), done, is_member=True)
        self.advance(0.01)
        assert {*announced} == {*members}
        for member in members:
            member.source.number += 1
        for member, partitions in owned:
            member.source.owned = partitions
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self.scheduler.advance_by(seconds)

    def update(self, name: str, value: int, seconds: float = 0.001) -> None:
        """A new value of a PV, for each gateway that has subscribed to it."""
        for member in self.members:
            stamp = {"secondsPastEpoch": 1000 + value, "nanoseconds": 0, "userTag": 0}
            member.late.append(partial(member.pva.update, name, value, timeStamp=stamp))
            if not member.is_late:
                member.read_updates()
        self.advance(seconds)
        for member in self.members:
            member.publish_held()

    def cut_off_while_updated(self, name: str) -> None:
        """A PV has the value 1, then Kafka is away for all gateways, and the PV has the value 2."""
        self.update(name, 1)
        for member in self.members:
            member.source.is_member = False
        self.advance(2.0)
        self.update(name, 2)

    def values(self, name: str) -> list[int]:
        return [body[name]["value"] for _, body in self.published[name]]

    def publishers(self, topic: str) -> list[Member]:
        return [member for member, _ in self.published[topic]]

    def replies(self) -> list[Any]:
        return [body["error"] for _, body in self.published["replies"]]


ALL = set(range(PARTITIONS))
STATUS = json.dumps(
    {"command": "gateway_status", "reply_topic": "replies", "reply_id": "i", "serialization": "json"}
).encode()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, new_provider: Callable[[], Any]) -> Site:
    made = Site(new_provider)
    monkeypatch.setattr(fleet_module, "elapsed", made.time)
    return made


def test_a_command_is_confirmed_by_its_receiver_and_carried_out_by_the_owner(site: Site) -> None:
    first, second = site.add(), site.add()
    site.assign((first, set()), (second, ALL))
    first.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    site.update("a", 1)
    assert site.replies() == [0]
    assert site.publishers("replies") == [first]
    assert site.publishers("a") == [second]
    second.command("monitor", pv_name="pva://a", monitor_dest_topic="a", uri_keys=True)
    assert site.replies() == [0, 0]
    assert set(site.values("a")) == {1}, "published again for the second client"
    assert not first.pva.subscriptions


def test_a_pv_that_moves_loses_no_update_and_repeats_none(site: Site) -> None:
    first = site.add_owner()
    for value in range(5):
        site.update("a", value)
    second = site.add()
    site.assign((first, set()), (second, ALL), seconds=0.2)
    for value in range(5, 30):
        site.update("a", value, 0.1)
    assert site.values("a") == list(range(30))
    assert site.publishers("a")[0] is first
    assert site.publishers("a")[-1] is second
    epochs = [each.epoch for member in (first, second) for each in member.outgoing if each.topic == "a"]
    assert epochs == sorted(epochs)
    assert len(set(epochs)) == 2


def test_a_dead_owner_is_not_waited_for(site: Site) -> None:
    first = site.add_owner()
    site.update("a", 1)
    first.log.is_stuck, first.source.is_member = True, False
    site.members.remove(first)
    second = site.add()
    site.assign((second, ALL), seconds=0.25)
    assert not any(second.fleet.owner.publishes(number) for number in ALL)
    site.advance(0.65)  # half a second for the PV, which does not connect
    assert all(second.fleet.owner.publishes(number) for number in ALL)
    site.update("a", 2)
    assert site.values("a") == [1, 2]


def test_an_owner_that_hands_over_is_waited_for_while_it_is_slow(site: Site) -> None:
    first = site.add_owner()
    site.update("a", 1)
    second = site.add()
    site.assign((first, set()), (second, ALL), seconds=0.15)
    first.log.is_stuck = True
    for value in range(2, 42):
        site.update("a", value, 0.1)
    assert site.values("a") == list(range(1, 42))
    assert set(site.publishers("a")) == {first}
    first.log.is_stuck = False
    first.log.read()
    for value in range(42, 52):
        site.update("a", value, 0.1)
    assert site.values("a") == list(range(1, 52))
    assert site.publishers("a")[-1] is second


def test_an_owner_that_dies_while_it_hands_over_is_waited_for_ten_seconds(site: Site) -> None:
    first = site.add_owner()
    site.update("a", 1)
    second = site.add()
    site.assign((first, set()), (second, ALL), seconds=0.15)
    first.log.is_stuck, first.source.is_member = True, False
    site.members.remove(first)
    site.update("a", 2)
    site.advance(9.0)
    assert site.values("a") == [1]
    tenancies = second.fleet.owner.tenancies
    assert any(tenancies[number].was_handing_over(tenancies[number].epoch) for number in ALL)
    site.advance(2.0)
    assert site.values("a") == [1, 2]
    assert not any(tenancies[number].was_handing_over(tenancies[number].epoch) for number in ALL), "the log forgets it"


def test_a_pv_whose_topic_is_awaited_is_published_by_the_owner_before(site: Site, monkeypatch: Any) -> None:
    first = site.add_owner()
    second = site.add()
    topic: Subject[Any] = Subject()
    monkeypatch.setattr(second.handler.topics, "ensure", lambda *_: topic)
    second.handler.channels.stream(PVAddress.parse("pva://a")).subscribe(lambda _: None)  # as a snapshot has it
    site.assign((first, set()), (second, ALL), seconds=0.15)
    for value in range(20):
        site.update("a", value, 0.1)
    assert set(site.publishers("a")) == {first}
    topic.on_completed()
    for value in range(20, 40):
        site.update("a", value, 0.1)
    assert site.values("a") == list(range(40))
    assert site.publishers("a")[-1] is second


def test_a_partition_that_comes_back_is_not_handed_over(site: Site) -> None:
    first = site.add_owner()
    site.assign((first, set()), seconds=0.15)
    tenancies = first.fleet.owner.tenancies
    assert all(tenancies[number].is_handing_over for number in ALL)
    site.assign((first, ALL), seconds=0.15)
    assert not any(tenancies[number].is_handing_over for number in ALL)


@pytest.mark.parametrize("slow", ["Kafka", "owner before"])
def test_an_owner_that_was_between_two_others_publishes_what_only_it_has(site: Site, slow: str) -> None:
    first = site.add_owner()
    second, third = site.add(), site.add()
    site.update("a", 1)
    first.is_confirmed = slow != "Kafka"
    site.assign((first, set()), (second, ALL), seconds=0.15)
    first.log.is_stuck = slow == "owner before"
    for value in range(2, 7):
        site.update("a", value, 0.1)
    assert {second.fleet.owner.is_owner(number) for number in ALL} == {True}, "it waits for the release"
    site.assign((second, set()), (third, ALL), seconds=0.15)
    for value in range(7, 12):
        site.update("a", value, 0.1)
    assert set(site.publishers("a")) == {first}
    first.is_confirmed, first.log.is_stuck = True, False
    first.log.read()
    for value in range(12, 22):
        site.update("a", value, 0.1)
    assert site.values("a") == list(range(1, 22))
    assert list(dict.fromkeys(site.publishers("a"))) == [first, second, third]


def test_an_owner_that_was_between_two_others_carries_out_the_triggers_of_its_time(site: Site) -> None:
    first, second, third = (site.add() for _ in range(3))
    site.assign((first, ALL))
    for number, triggered in enumerate((True, False)):
        definition = {"snapshot_name": f"s{number}", "pv_name_list": ["pva://a"], "triggered": triggered}
        second.command("repeating_snapshot", **definition, time_window_msec=100)
    site.update("a", 1)
    first.command("repeating_snapshot_trigger", snapshot_name="s0")
    first.is_confirmed = False
    site.assign((first, set()), (second, ALL), seconds=0.5)
    first.command("repeating_snapshot_trigger", snapshot_name="s0")
    site.assign((second, set()), (third, ALL), seconds=0.5)
    first.is_confirmed = True
    site.advance(0.5)
    first.command("repeating_snapshot_trigger", snapshot_name="s0")
    tails = [(member, body["iter_index"]) for member, body in site.published["s0"] if body["message_type"] == 2]
    assert tails == [(first, 1), (second, 2), (third, 3)]
    numbers = [body["iter_index"] for _, body in site.published["s1"] if body["message_type"] == 2]
    assert numbers == list(range(1, len(numbers) + 1))
    assert dict.fromkeys(site.publishers("s1")) == {first: None, third: None}, "each of its iterations is a whole one"


@pytest.mark.parametrize("behind", [1, 25])
def test_an_owner_that_is_behind_publishes_what_the_next_one_does_not_hold(site: Site, behind: int) -> None:
    first = site.add_owner()
    second = site.add()
    site.update("a", 1)
    first.is_late = True
    for value in range(2, 2 + behind):
        site.update("a", value, 0.1)
    site.assign((first, set()), (second, ALL), seconds=0.15)
    for value in range(2 + behind, 10 + behind):
        site.update("a", value, 0.1)
    assert {second.fleet.owner.is_owner(number) for number in ALL} == {True}
    assert site.values("a") == [1]
    first.is_late = False
    for value in range(10 + behind, 20 + behind):
        site.update("a", value, 0.1)
    assert site.values("a") == list(range(1, 20 + behind))
    assert site.publishers("a")[-1] is second


def test_an_owner_that_stays_behind_hands_over_after_four_seconds(site: Site) -> None:
    first = site.add_owner()
    second = site.add()
    site.update("a", 1)
    first.is_late = True
    site.assign((first, set()), (second, ALL), seconds=0.15)
    site.update("a", 2)
    site.advance(3.9)
    assert site.values("a") == [1]
    site.advance(0.4)
    assert site.values("a") == [1, 2]


def test_an_owner_that_loses_a_partition_while_it_begins_publishes_all_that_it_holds(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = site.add_waiting_owner()
    with monkeypatch.context() as patch:
        patch.setattr(owner_module, "in_slices", lambda *_: None)  # the PVs' turn has not come yet
        first.is_confirmed = True
        site.advance(0.1)
    assert all(second.fleet.owner.publishes(number) for number in ALL)
    site.assign((second, set()), (third, ALL), seconds=0.15)
    for value in range(7, 12):
        site.update("a", value, 0.1)
    assert site.values("a") == list(range(1, 12))
    assert list(dict.fromkeys(site.publishers("a"))) == [first, second, third]


@pytest.mark.parametrize("is_known", [False, True])
def test_a_monitor_that_the_next_owner_learns_of_after_its_claim_loses_no_update(site: Site, is_known: bool) -> None:
    """It was requested just before the claim."""
    first, second = site.add_owner(), site.add()
    second.log.is_stuck = not is_known
    first.command("monitor", pv_name="pva://b", monitor_dest_topic="b", uri_keys=True)
    site.update("b", 1)
    site.assign((first, set()), (second, ALL), seconds=0.15)
    for value in range(2, 15):
        if value == 5:
            second.log.is_stuck = False
            second.log.read()
        site.update("a", value, 0.1)
        site.update("b", value)
    assert site.values("b") == list(range(1, 15))
    assert site.values("a") == list(range(2, 15))
    assert list(dict.fromkeys(site.publishers("b"))) == [first, second]
    claims = [entry.value or {} for entry in site.entries if entry.kind is Kind.OWNER]
    assert len([each for each in claims if each["owner"] == second.fleet._name]) == len(ALL) + (not is_known)


def test_an_owner_does_not_wait_for_a_monitor_that_the_next_one_cannot_connect(site: Site) -> None:
    first, second = site.add_owner(), site.add()
    site.update("a", 1)
    second.is_late = True
    site.assign((first, set()), (second, ALL), seconds=6.5)
    assert not first.fleet.owner.tenures


def test_a_gateway_takes_over_once_a_commit_has_shown_that_it_is_in_the_group(site: Site) -> None:
    first, second = site.add_owner(), site.add()
    second.source.is_proven = second.source.proves = False
    site.assign((first, set()), (second, ALL), seconds=1.0)
    assert not second.fleet.owner.tenures
    claims = [entry.value or {} for entry in site.entries if entry.kind is Kind.OWNER]
    assert {each["owner"] for each in claims} == {first.fleet._name}
    second.source.proves = True
    for value in range(20):
        site.update("a", value, 0.1)
    assert site.values("a") == list(range(20))
    assert list(dict.fromkeys(site.publishers("a"))) == [first, second]


def test_a_gateway_takes_over_as_soon_as_a_commit_has_shown_that_it_is_in_the_group(site: Site) -> None:
    member = site.add()
    member.source.is_proven, member.source.number, member.source.owned = False, 2, ALL
    site.advance(0.1)
    assert member.fleet.owner.tenures.keys() == ALL


def test_others_wait_for_a_gateway_until_it_is_known_what_it_keeps(site: Site) -> None:
    member = site.add_owner()
    site.assign((member, ALL), seconds=0.2)
    member.source.is_member = False
    site.advance(1.5)
    assert not member.fleet.may_publish()


@pytest.mark.parametrize(("seconds", "lapses"), [(7.5, False), (9.0, True)])
def test_publishing_goes_on_while_the_group_assigns_partitions_as_others_wait_for_this_gateway(
    site: Site, caplog: pytest.LogCaptureFixture, seconds: float, lapses: bool
) -> None:
    """Another gateway is slow to give up its own. Commits are not accepted meanwhile."""
    first, second = site.add_owner(), site.add()
    site.update("a", 0)
    first.fleet.announce(first.source.assignment(), lambda: None, is_member=True)
    first.source.is_proven = first.source.proves = first.source.is_assigned = False
    for value in range(1, round(seconds * 10)):
        site.update("a", value, 0.1)
    assert ("publishing paused" in caplog.text) is lapses
    first.source.is_assigned = first.source.proves = True
    site.assign((first, set()), (second, ALL), seconds=0.2)
    for value in range(round(seconds * 10), 100):
        site.update("a", value, 0.1)
    if not lapses:
        assert site.values("a") == list(range(100))
    assert list(dict.fromkeys(site.publishers("a"))) == [first, second]


@pytest.mark.parametrize("is_proven", [False, True])
@pytest.mark.parametrize("handed_over", [False, True])
def test_a_member_announces_that_it_gives_up_its_partitions_if_they_were_its_own_until_now(
    site: Site, monkeypatch: pytest.MonkeyPatch, handed_over: bool, is_proven: bool
) -> None:
    monkeypatch.setattr(fleet_module, "_ANNOUNCE", 0.0)  # time goes on only here
    member = site.add_owner()
    member.source.is_proven = is_proven
    partitions = {(TOPIC, number) for number in ALL}
    member.receiver.reclaim_undelivered(partitions)
    member.receiver.on_revoked(partitions, handed_over=handed_over)
    site.advance(0.01)
    announced = [entry for entry in site.entries if entry.kind is Kind.HANDING_OVER]
    assert len(announced) == (len(ALL) if handed_over or is_proven else 0)


def test_a_session_is_proven_as_soon_as_partitions_are_assigned(site: Site) -> None:
    member = site.add()
    for number in range(2, 5):
        member.source.number, proofs = number, member.source.proofs
        site.advance(0.1)
        assert member.source.proofs == proofs + 1


def test_an_owner_that_ends_while_it_waits_for_the_one_before_publishes_what_only_it_has(site: Site) -> None:
    first, second, third = site.add_waiting_owner()
    leaving = second.leave()
    site.assign((second, set()), (third, ALL), seconds=0.5)
    first.is_confirmed = True
    for value in range(7, 12):
        site.update("a", value, 0.1)
    site.join(leaving)
    assert site.values("a") == list(range(1, 12))
    assert list(dict.fromkeys(site.publishers("a"))) == [first, second, third]


@pytest.mark.parametrize("is_lost", [False, True])
def test_an_owner_that_ends_after_it_was_cut_off_publishes_what_waits(
    site: Site, monkeypatch: pytest.MonkeyPatch, is_lost: bool
) -> None:
    """The group has accepted a commit when it left: others have taken over what they say in the log, and no more."""
    first, second = site.add_owner(), site.add()
    site.assign((first, {1, 2, 3}), (second, {0}))
    site.cut_off_while_updated("a")
    assert not first.fleet.may_publish()
    for member in site.members:
        member.source.is_member = True
    leaving = first.leave()
    waiting: list[Callable[[], None]] = []
    monkeypatch.setattr(first.log, "catch_up", waiting.append)
    site.assign((first, set()), (second, ALL), seconds=0.1)
    if is_lost:
        first.receiver.on_revoked({}, handed_over=False)
        site.advance(0.01)
    waiting.pop()()
    first.publish_held()
    for value in range(3, 10):
        site.update("a", value, 0.1)
    site.join(leaving)
    assert site.values("a") == ([1] if is_lost else [1, 2]) + list(range(3, 10))
    assert site.publishers("a")[-1] is second


def test_a_gateway_that_ends_alone_waits_for_no_other(site: Site) -> None:
    member = site.add_owner()
    site.update("a", 1)
    leaving = member.leave()
    site.advance(0.5)
    assert not member.fleet.owner.tenures
    site.join(leaving)


def test_a_gateway_that_ends_waits_until_the_log_has_what_it_has_published(site: Site) -> None:
    first, second = site.add_owner(), site.add()
    site.assign((first, {0, 1}), (second, {2, 3}))
    leaving = first.leave()
    site.assign((first, set()), (second, ALL), seconds=0.0)
    first.log.append_seconds = 3.0
    for value in range(2, 7):
        site.update("a", value, 0.1)
    assert not first.fleet.owner.tenures
    leaving.join(0.3)
    assert leaving.is_alive()
    site.join(leaving)
    assert {entry.partition for entry in site.entries if entry.kind is Kind.RELEASED} >= {0, 1}


@pytest.mark.parametrize("waiting", [set(), {"a"}])
def test_a_gateway_without_contact_publishes_again_after_it_has_read_the_log(site: Site, waiting: set[str]) -> None:
    first, second = site.add(), site.add()
    site.assign((first, ALL))
    first.command("monitor", pv_name="pva://a", monitor_dest_topic="a", uri_keys=True)
    site.update("a", 1)
    first.source.is_member, first.log.is_stuck, first.waiting = False, True, waiting
    site.advance(2.0)
    assert not first.fleet.may_publish()
    site.assign((first, set()), (second, ALL))
    assert second.fleet.owner.publishes(first.fleet.owner.tenures.copy().popitem()[0])
    first.source.is_member, first.log.is_stuck = True, False
    site.advance(1.0)
    assert first.fleet.may_publish()
    assert first.fleet.owner.tenures == {}
    assert first.dropped == {"a"}, "what had waited is the second one's"
    times = [each.value["times"] for each in site.entries if each.kind is Kind.RELEASED and each.value]
    assert any(times) != bool(waiting), "the time of a value that was dropped is not that of the last published one"


@pytest.mark.parametrize("seconds_away", [0.5, 20.0])
def test_an_owner_that_loses_contact_while_it_hands_over_publishes_what_it_has_if_it_is_back_in_time(
    site: Site, seconds_away: float
) -> None:
    first, second = site.add_owner(), site.add()
    site.update("a", 1)
    site.assign((first, set()), (second, ALL), seconds=0.0)
    first.source.is_member, first.log.is_stuck = False, True
    site.advance(6.8)
    for value in range(2, 16):
        site.update("a", value, 0.1)
    first.log.is_stuck = False
    first.log.read()
    assert not first.fleet.may_publish()
    assert site.values("a")[-1] < 15
    site.advance(seconds_away)
    first.source.is_member = True
    for value in range(16, 30):
        site.update("a", value, 0.1)
    assert sorted(set(site.values("a"))) == list(range(1, 30))
    assert (site.values("a") == list(range(1, 30))) is (seconds_away < 4.0), (
        "else the second one goes on with all it has"
    )
    assert list(dict.fromkeys(site.publishers("a"))) == [first, second]


@pytest.mark.parametrize("slow", [0.0, 0.3])
@pytest.mark.parametrize("back_at", [3, 6, 10, 20, 40])
def test_an_owner_that_is_back_publishes_nothing_that_the_group_has_assigned_to_another(
    site: Site, back_at: int, slow: float
) -> None:
    """Kafka was away. The group assigns the partitions anew before this gateway has read its log."""
    first, second = site.add_owner(), site.add()
    site.cut_off_while_updated("a")
    for member in site.members:
        member.source.number += 1
    first.source.owned, second.source.owned = set(), ALL
    second.source.is_member, first.log.append_seconds = True, slow
    for value in range(3, 200):
        if value == back_at:
            first.source.is_member = True
        if value == back_at + 5 and slow:
            first.log.is_stuck = True
        if value == back_at + 25:
            first.log.is_stuck = False
        site.update("a", value, 0.02)
    values = site.values("a")
    assert values == sorted(set(values)), "values are there twice"
    assert values[-1] == 199
    assert set(site.publishers("a")[-50:]) == {second}


def test_an_owner_that_is_back_goes_on_with_what_the_group_has_left_to_it(site: Site) -> None:
    """What it could not publish meanwhile is not lost."""
    first, second = site.add_owner(), site.add()
    site.cut_off_while_updated("a")
    for member in site.members:
        member.source.is_member = True
        member.source.number += 1
    for value in range(3, 50):
        site.update("a", value, 0.02)
    assert site.values("a") == list(range(1, 50))
    assert set(site.publishers("a")) == {first}
    assert not second.fleet.owner.tenures


def test_a_gateway_that_is_cut_off_takes_over_nothing(site: Site) -> None:
    """It knows of an assignment that is over. Two gateways would take the partitions from each other for ever."""
    first, second = site.add_owner(), site.add()
    first.source.is_member = False
    site.advance(2.0)
    second.source.owned = ALL
    site.advance(2.0)
    entries = len(site.entries)
    for value in range(50):
        site.update("a", value, 0.1)
    assert len(site.entries) == entries
    assert not first.fleet.owner.tenures
    assert {*site.publishers("a")[1:]} == {second}
    assert site.values("a")[-1] == 49


@pytest.mark.parametrize("given_up", [False, True])
def test_publishing_pauses_if_partitions_are_lost_without_being_given_up(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, given_up: bool
) -> None:
    """The coordinator knows the member no more. Others do not wait for it."""
    monkeypatch.setattr(fleet_module, "_ANNOUNCE", 0.0)  # time goes on only here
    member = site.add_owner()
    if given_up:
        member.receiver.reclaim_undelivered({})
    member.receiver.on_revoked({}, handed_over=False)
    site.advance(0.01)
    assert member.fleet.may_publish() is given_up
    assert ("publishing paused" in caplog.text) is not given_up
    member.source.number += 1
    site.advance(0.5)
    assert member.fleet.may_publish()


@pytest.mark.parametrize(("assignments", "pauses"), [(0, False), (1, True)])
def test_a_late_look_pauses_publishing_only_after_another_assignment(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, assignments: int, pauses: bool
) -> None:
    member = site.add_owner()
    monkeypatch.setattr(fleet_module, "elapsed", lambda: site.time() + 1.5)  # the machine was busy
    member.source.number += assignments
    assert not member.fleet.may_publish()
    site.advance(1.0)
    assert member.fleet.may_publish()
    assert ("publishing paused" in caplog.text) is pauses


def test_of_two_claims_the_later_one_in_the_log_with_a_greater_epoch_counts(site: Site) -> None:
    first, second = site.add(), site.add()
    first.source.owned = second.source.owned = ALL  # as during a rebalance
    site.advance(0.15)
    second.source.owned = set()
    site.advance(3.0)
    owners = {member.fleet.owner.tenancies[0].owner for member in site.members}
    assert len(owners) == 1, "all agree"
    live = [member for member in site.members if member.fleet.owner.publishes(0)]
    assert len(live) == 1


def test_triggers_and_stops_are_carried_out_once_by_the_owner(site: Site) -> None:
    first, second = site.add(), site.add()
    site.assign((first, ALL))
    definition = {"snapshot_name": "s", "pv_name_list": ["pva://a"], "triggered": True}
    second.command("repeating_snapshot", **definition, repeat_delay_msec=0, time_window_msec=1000)
    site.update("a", 1)
    second.command("repeating_snapshot_trigger", snapshot_name="s")
    first.command("repeating_snapshot_trigger", snapshot_name="s")
    assert site.replies() == [0, 0, 0]
    tails = [body["iter_index"] for _, body in site.published["s"] if body["message_type"] == 2]
    assert tails == [1, 2]
    site.assign((first, set()), (second, ALL))
    first.command("repeating_snapshot_trigger", snapshot_name="s")
    tails = [body["iter_index"] for _, body in site.published["s"] if body["message_type"] == 2]
    assert tails == [1, 2, 3], "the number that the owner before has told"
    assert site.publishers("s")[-1] is second
    first.command("repeating_snapshot_stop", snapshot_name="s")
    site.advance(1.0)
    first.command("repeating_snapshot_trigger", snapshot_name="s")
    assert site.replies() == [0, 0, 0, 0, 0, -2]
    last = {(entry.kind, entry.name): entry.value for entry in site.entries}
    assert last[next(key for key in last if key[0].value == "snapshot")] is None
    assert all(value is None for (kind, _), value in last.items() if kind.value in ("command", "numbers"))


@pytest.mark.parametrize("late", [[], [0], [1], [0, 1]])
def test_of_two_starts_of_a_snapshot_with_different_pvs_the_first_in_the_log_counts(
    site: Site, late: list[int]
) -> None:
    """Two applications start it at the same moment, by gateways that have not read the other's start yet."""
    members = [site.add(), site.add()]
    site.assign((members[0], {0, 1}), (members[1], {2, 3}))
    for number in late:
        members[number].log.is_stuck = True
    for member, pvs in zip(members, (["pva://a"], ["pva://a", "pva://b"]), strict=True):
        definition = {"snapshot_name": "s", "pv_name_list": pvs, "triggered": True}
        member.command("repeating_snapshot", **definition, time_window_msec=100)
    for member in members:
        member.log.is_stuck = False
        member.log.read()
    site.advance(1.0)
    assert sorted(site.replies()) == [-8, 0]
    site.entries = list({(entry.partition, entry.kind, entry.name): entry for entry in site.entries}.values())
    third = site.add()  # reads what compaction leaves
    for owner in (None, third):
        if owner is not None:
            site.assign((owner, ALL))
        site.update("a", 1)
        site.update("b", 1)
        members[0].command("repeating_snapshot_trigger", snapshot_name="s")
        site.advance(1.0)
    data = [body for _, body in site.published["s"] if body["message_type"] == 1]
    assert [set(body) & {"a", "b"} for body in data] == [{"a"}, {"a"}]


def test_a_start_is_known_to_commands_after_its_confirmation_however_late_the_log_is_read(site: Site) -> None:
    first, second = site.add(), site.add()
    site.assign((first, ALL))
    first.log.is_stuck = True
    for name in ("s", "t"):
        definition = {"snapshot_name": name, "pv_name_list": ["pva://a"], "triggered": True}
        second.command("repeating_snapshot", **definition, time_window_msec=100)
    assert site.replies() == [0, 0]
    first.command("repeating_snapshot_trigger", snapshot_name="s")
    first.command("repeating_snapshot_stop", snapshot_name="t")
    assert site.replies() == [0, 0], "the others wait for the log"
    first.log.is_stuck = False
    first.log.read()
    site.update("a", 1, 1.0)
    assert site.replies() == [0, 0, 0, 0]
    assert [body["iter_index"] for _, body in site.published["s"] if body["message_type"] == 2] == [1]
    first.command("repeating_snapshot_trigger", snapshot_name="t")
    assert site.replies()[4:] == [-2], "it was stopped"


def test_a_late_gateway_knows_everything_and_publishes_what_it_is_given(site: Site) -> None:
    first = site.add()
    site.assign((first, ALL))
    first.command("multi-monitor", pv_name_list=[f"pva://p{number}" for number in range(20)], uri_keys=True)
    second = site.add()
    site.assign((first, {0, 1}), (second, {2, 3}))
    for number in range(20):
        site.update(f"p{number}", 1)
    publishers = [site.publishers(f"p{number}") for number in range(20)]
    assert [len(each) for each in publishers] == [1] * 20
    assert {each[0] for each in publishers} == {first, second}


def test_a_snapshot_that_is_started_while_it_ends_runs_again(site: Site) -> None:
    first, second = site.add(), site.add()
    site.assign((first, ALL))
    definition = {"snapshot_name": "s", "pv_name_list": ["pva://a"], "time_window_msec": 100}
    first.command("repeating_snapshot", **definition)
    site.update("a", 1, 1.0)
    log, first.log.is_stuck = first.log, True
    second.command("repeating_snapshot_stop", snapshot_name="s")
    second.command("repeating_snapshot", **definition)
    log.is_stuck = False
    log.read()
    site.advance(2.0)
    assert site.replies() == [0, 0, 0]
    before = len(site.published["s"])
    site.advance(1.0)
    assert len(site.published["s"]) > before, "it runs"
    assert "s" in first.fleet._desired.snapshots


def test_a_monitor_that_is_requested_while_it_expires_runs_again(site: Site) -> None:
    first, second = site.add(monitor_expiration=60.0), site.add()
    site.assign((first, ALL))
    first.command("monitor", pv_name="pva://a", monitor_dest_topic="a", uri_keys=True)
    site.update("a", 1)
    monitors = first.handler.monitors
    log, first.log.is_stuck = first.log, True
    second.command("monitor", pv_name="pva://a", monitor_dest_topic="a", uri_keys=True)
    for _ in range(2):  # no consumers at either check
        first.handler.expire({})
        site.advance(61.0)
    assert len(monitors) == 0
    log.is_stuck = False
    log.read()
    site.advance(1.0)
    assert len(monitors) == 1
    site.update("a", 2)
    assert site.values("a")[-1] == 2
    for _ in range(2):
        first.handler.expire({})
        site.advance(61.0)
    assert len(monitors) == 0
    assert first.fleet._desired.monitors == second.fleet._desired.monitors == {}


def test_a_gateway_says_why_it_does_not_publish_all_that_it_should(site: Site) -> None:
    first = site.add()
    assert first.problem() == "", "the group has given it nothing"
    first.source.is_assigned = False
    assert first.problem() == "the group of gateways assigns the partitions of the state topic"
    first.source.is_assigned = True
    site.assign((first, ALL))
    assert first.problem() == ""
    second = site.add()
    second.source.owned, first.source.owned = ALL, set()
    site.advance(0.11)
    assert second.problem() == "4 partitions of the state topic are being taken over"
    site.advance(3.0)
    assert second.problem() == ""
    second.source.is_member = False
    site.advance(2.0)
    assert second.problem() == "publishing is paused: there is no contact to the group of gateways"


def test_a_gateway_that_reads_the_log_says_how_much_is_left(site: Site) -> None:
    first = site.add()
    first.log.started, first.log.lag = Future(), 7
    assert first.problem() == "the state topic is being read: 7 entries are left"
    first.log.started.set_exception(TransportError("refused"))
    assert first.fleet.state() is None, "it works alone"


def test_the_figures_count_partitions_and_handovers(site: Site) -> None:
    first, second = site.add(), site.add()
    site.assign((first, ALL))
    site.assign((first, {0, 1}), (second, {2, 3}))
    states = [member.fleet.state() for member in (first, second)]
    assert [state and state.members for state in states] == [2, 2]
    assert [state and state.partitions["live"] for state in states] == [2, 2]
    assert [state and (state.taken_over, state.handed_over) for state in states] == [(4, 2), (2, 0)]
    epochs = [state.epoch for state in states if state is not None]
    assert UNIX * 1000 < epochs[0] < epochs[1]


def test_every_gateway_answers_a_request_for_the_status_once(site: Site) -> None:
    first, second, third = site.add(), site.add(), site.add()
    site.assign((first, {0, 1}), (second, {2}), (third, {3}))
    second.command("gateway_status", reply_id="ask")
    site.advance(0.5)
    answers = [(member, body["gateway_status"]) for member, body in site.published["replies"]]
    assert [member for member, _ in answers] == [second, first, third]
    names = {report["member"] for _, report in answers}
    assert len(names) == 3
    assert {tuple(report["members"]) for _, report in answers} == {tuple(sorted(names))}
    late = site.add()
    site.advance(1.0)
    assert late not in site.publishers("replies"), "the request is from before its start"


def test_a_flood_of_requests_for_the_status_does_not_fill_the_log(site: Site) -> None:
    member = site.add()
    site.assign((member, ALL))
    before = len(site.entries)
    for _ in range(100):
        record = Record("commands", 0, 0, None, STATUS)
        claims = Claims()
        with claims.lock:
            received = ReceivedCommand(record, claims.of(record))
        member.handler.handle(received).subscribe(member.send)
    site.advance(0.5)
    assert len(site.published["replies"]) == 100
    assert len(site.entries) - before == 2 * 20, "a request and its end, twenty times"


ACF = """
UAG(ops) {operators}
ASG(DEFAULT) { RULE(1, READ) { UAG(ops) } }
"""
APPLICATIONS = "ops-commands:operators, website-commands:website"


@pytest.fixture
def restarted(site: Site, tmp_path: Path) -> Callable[..., Member]:
    """Ends all gateways, and starts one with rules that let `operators` read, and no other principal."""
    (tmp_path / "site.acf").write_text(ACF)

    def restart() -> Member:
        for member in site.members:
            member.log.is_stuck, member.source.is_member = True, False
        site.members.clear()
        made = site.add(access=str(tmp_path / "site.acf"), command_topics=APPLICATIONS)
        site.assign((made, ALL))
        return made

    return restart


def test_what_is_remembered_runs_only_if_a_principal_that_has_requested_it_may_still_read_it(
    site: Site, restarted: Callable[..., Member], caplog: pytest.LogCaptureFixture
) -> None:
    first = site.add(command_topics=APPLICATIONS)
    site.assign((first, ALL))
    for topic, name in (("website-commands", "a"), ("website-commands", "b"), ("ops-commands", "b")):
        first.command("monitor", topic=topic, pv_name=f"pva://{name}", monitor_dest_topic=name, uri_keys=True)
    definition = {"snapshot_name": "s", "pv_name_list": ["pva://c"], "triggered": True}
    first.command("repeating_snapshot", topic="website-commands", **definition)
    site.update("a", 1)

    second = restarted()
    assert {subscription.address.name for subscription in second.pva.subscriptions} == {"b"}
    assert "suspended: they are denied: name=" in caplog.text
    assert "lets 'website' read" in caplog.text
    second.command("monitor", topic="website-commands", pv_name="pva://a", monitor_dest_topic="a")
    assert site.replies()[-1] == -12
    second.command("monitor", topic="ops-commands", pv_name="pva://a", monitor_dest_topic="a", uri_keys=True)
    site.update("a", 2)
    assert site.values("a") == [1, 2], "a principal that may read it has requested it"
    second.command("repeating_snapshot_trigger", snapshot_name="s")
    assert site.replies()[-1] == -2, "it does not run"
    second.command("repeating_snapshot_stop", snapshot_name="s")
    site.advance(1.0)
    assert second.fleet._desired.snapshots == {}


def test_what_is_suspended_runs_again_when_the_rules_allow_it(site: Site, restarted: Callable[..., Member]) -> None:
    first = site.add(command_topics=APPLICATIONS)
    site.assign((first, ALL))
    first.command("monitor", topic="website-commands", pv_name="pva://a", monitor_dest_topic="a", uri_keys=True)
    restarted()
    site.members.clear()
    third = site.add(command_topics=APPLICATIONS)
    site.assign((third, ALL))
    site.update("a", 2)
    assert site.values("a") == [2]
