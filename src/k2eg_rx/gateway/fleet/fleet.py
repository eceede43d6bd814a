"""One gateway of a fleet: follows the state log, shares its partitions with the others, and stops when it is cut off.

Kafka's group protocol says which gateway has which partition of the log. A gateway publishes only while a commit shows
that it is in the group: one that was frozen or cut off for longer sends nothing more before it has read the log again,
which names the new owners.

Thread safety: belongs to the event loop thread, but `Fleet.leave` and `Fleet.close`.
"""

from __future__ import annotations

import socket
import threading
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from reactivex import abc

from k2eg_rx.concurrency import elapsed
from k2eg_rx.errors import TransportError
from k2eg_rx.gateway.commands.access_rules import AccessRules
from k2eg_rx.gateway.commands.claims import Claims
from k2eg_rx.gateway.commands.limits import Usage
from k2eg_rx.gateway.commands.monitors import Monitors
from k2eg_rx.gateway.commands.recurring_snapshots import RecurringSnapshots
from k2eg_rx.gateway.commands.requests import Clock, CommandRequest, Written
from k2eg_rx.gateway.commands.status import StatusHandler
from k2eg_rx.gateway.commands.topic_rules import TopicRules
from k2eg_rx.gateway.commands.topics import Topics
from k2eg_rx.gateway.fleet.desired_state import DesiredState
from k2eg_rx.gateway.fleet.entries import (
    Entry,
    Kind,
    Release,
    command_of,
    encoded,
    integer,
    integers,
    key_of,
)
from k2eg_rx.gateway.fleet.handlers import FleetHandlers
from k2eg_rx.gateway.fleet.owner import RELEASE_AT_LEISURE, Append, Outlet, Owner, Stage
from k2eg_rx.gateway.fleet.state_log import KafkaStateLog
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.gateway.runtime.event_loop import call_soon
from k2eg_rx.gateway.runtime.metrics import FleetState, RateLimitedWarning
from k2eg_rx.protocol import GatewayStatusCommand, RepeatingSnapshotStopCommand, RepeatingSnapshotTriggerCommand
from k2eg_rx.pv import snapshot_topic
from k2eg_rx.texts import get_logger
from k2eg_rx.transport import (
    Assignment,
    Offsets,
    Partition,
    Receiver,
    Record,
    RecordSource,
    Transport,
    UnconfirmedError,
)

_log = get_logger(__name__)

_TICK = 0.1  # seconds between looks at the group's assignment
_PROOF = 5  # ticks between commits that show that this gateway is in the group
# Seconds that the last look allows publishing. With the half of a session that a commit proves, they must be less than
# a session, which is 6 s at least.
_ALLOWED = 1.0
# Seconds from the announcement that this gateway hands its partitions over, in which no other publishes them: the next
# owner waits for the release for longer, from its claim on, which comes later. So a rebalance may take as long.
_LEASE = 0.8 * RELEASE_AT_LEISURE
_RETRY = 0.5  # seconds until an entry that Kafka has not confirmed is written again
_HAND_OVER = 12.0  # seconds that others may take to go on when a gateway ends; one or two are usual
_LEAVE = 2.0  # seconds to leave the group
# Seconds that Kafka may take to confirm that a gateway ends or gives partitions up. Without, it waits for no other, and
# the others do not wait for it.
_ANNOUNCE = 4.0
_LAST_WORD = 2.0  # seconds to write what was published, where no other goes on


class _Member(Receiver):
    """Reads nothing: the group only shares the partitions.

    Args:
        on_giving_up: Called before this gateway gives its partitions up, with whether a commit has shown that they were
            its own until now. They are others' after it has returned.
        on_lost: Called when this gateway has lost partitions without giving them up.
    """

    def __init__(self, on_giving_up: Callable[[bool], None], on_lost: Callable[[], None]) -> None:
        self._on_giving_up = on_giving_up
        self._on_lost = on_lost
        self._gives_up = False

    def ready(self) -> bool:
        """Returns True."""
        return True

    def receive(self, records: Sequence[Record]) -> None:
        """Drops the records; the log is read as a whole elsewhere."""

    def reclaim_undelivered(self, partitions: Collection[Partition]) -> Offsets:  # noqa: ARG002
        """Returns nothing: no record is to be delivered. Called before partitions are given up."""
        self._gives_up = True
        return {}

    def on_revoked(self, partitions: Collection[Partition], *, handed_over: bool) -> None:
        """Announces that the partitions are given up, or tells that they were lost."""
        if self._gives_up:
            self._on_giving_up(handed_over and bool(partitions))
        else:
            self._on_lost()
        self._gives_up = False


class Publishing(Protocol):
    """The parts of a gateway that a fleet uses."""

    monitors: Monitors
    recurring: RecurringSnapshots
    topics: Topics
    rules: TopicRules
    access: AccessRules
    status: StatusHandler


class Fleet:
    """This gateway's part in a fleet.

    Args:
        log: The state log.
        transport: Joins the group.
        parts: The gateway's monitors, snapshots and topics.
        outlet: Publishes records.
        context: Scheduler, options and clock.

    Attributes:
        log: See above.
        handlers: Handles commands.
        owner: What this gateway publishes.
    """

    def __init__(
        self, log: KafkaStateLog, transport: Transport, parts: Publishing, outlet: Outlet, context: GatewayContext
    ) -> None:
        self.log = log
        self._transport = transport
        self._outlet = outlet
        self._scheduler = context.scheduler
        self._options = context.options
        self._name = f"{socket.gethostname()}:{uuid.uuid4().hex[:12]}"
        self._snapshots = parts.recurring
        self._status = parts.status
        self._status.membership = self._membership
        append: Append = self._append
        usage = Usage(context.options)
        self._desired = DesiredState(log.partitions, usage, parts.rules, parts.topics.forget)
        self.owner = Owner(
            f"{zlib.crc32(log.topic.encode()):08x}",
            self._name,
            monitors=parts.monitors,
            snapshots=parts.recurring,
            desired=self._desired,
            outlet=outlet,
            append=append,
            denial_of=parts.access.denial_of,
            context=context,
        )
        self.handlers = FleetHandlers(
            self._desired,
            self.owner,
            append,
            log.catch_up,
            snapshots=parts.recurring,
            status=parts.status,
            topics=parts.topics,
            rules=parts.rules,
            context=context,
        )
        parts.monitors.on_expired = self.owner.expired
        self._source: RecordSource | None = None
        self._seen: dict[int, int] = {}  # the offset of the last entry of each partition
        self._carried_out: set[str] = set()
        self._leavers: frozenset[str] = frozenset()
        self._ticks = 0
        self._until = 0.0  # by `elapsed`: until then this gateway may publish, as it is in the group
        self._leased_until = 0.0  # likewise, as others wait for it while the group assigns the partitions anew
        self._assignment = -1  # the number of the group's assignment at the last look
        self._given_up = -1  # the number of the latest assignment that is over
        self._lapsed = False
        self._losses = 0  # how often the group has given partitions to others without this gateway's consent
        self._is_resuming = False
        self._leaving = False
        self._gone = threading.Event()
        self._failed = RateLimitedWarning(_log, "{} entries not written to the state topic, they are repeated")
        self._claims = Claims()

    def start(self) -> None:
        """Starts to follow the log. Its `started` completes when this gateway knows what is wanted."""
        self.log.started.add_done_callback(lambda _: call_soon(self._scheduler, self._join))
        self.log.start(self._scheduler, self)

    def _join(self) -> None:
        if self.log.started.exception() is None and self._source is None and not self._leaving:
            self._desired.partitions = self.log.partitions
            member = _Member(self._on_giving_up, lambda: call_soon(self._scheduler, self._on_lost))
            self._source = self._transport.events(member, f"{self._options.group}-state")
            self._source.read(self.log.topic)
            self._tick()

    def may_publish(self) -> bool:
        """Returns whether no other gateway can have taken over what this one publishes, without its knowing."""
        return elapsed() < max(self._until, self._leased_until) and not self._lapsed

    def state(self) -> FleetState | None:
        """Returns the present state; None if this gateway works alone, as Kafka has refused the topic. Any thread."""
        if self.log.started.done() and self.log.started.exception() is not None:
            return None
        tenures, tenancies = tuple(self.owner.tenures.values()), tuple(self.owner.tenancies.values())
        stages = dict.fromkeys((stage.value for stage in Stage), 0) | Counter(each.stage.value for each in tenures)
        return FleetState(
            members=len({each.owner for each in tenancies if not each.is_vacant}),
            partitions=stages,
            epoch=max((each.epoch for each in tenures if each.stage is Stage.LIVE), default=0),
            taken_over=self.owner.taken_over,
            handed_over=self.owner.handed_over,
            lag=self.log.lag,
            problem=self._problem(len(tenures) - stages[Stage.LIVE.value] - stages[Stage.STOPPING.value]),
        )

    def _problem(self, pending: int) -> str:
        """Returns why this gateway does not publish all that it should, given the number of partitions to take over."""
        if not self.log.started.done():
            return f"the state topic is being read: {self.log.lag} entries are left"
        if self._lapsed:
            return "publishing is paused: there is no contact to the group of gateways"
        if self._source is None or self._source.assignment() is None or not self._until:
            return "the group of gateways assigns the partitions of the state topic"
        return f"{pending} partitions of the state topic are being taken over" if pending else ""

    def _tick(self, _scheduler: abc.SchedulerBase | None = None, _state: object = None) -> None:
        if self._source is None:
            return
        self._scheduler.schedule_relative(_TICK, self._tick)
        before = self._assignment
        self._look(self._source)
        self._ticks += 1
        if self._ticks % _PROOF == 1 or self._assignment not in (before, -1):
            self._source.confirm(partial(call_soon, self._scheduler, partial(self._look, self._source)))
        self.owner.reserve()

    def _look(self, source: RecordSource) -> None:
        """Takes over what the group has assigned, once a commit has shown that this gateway is in it.

        While it is cut off, the assignment that it knows of may be over, and others have its partitions.
        """
        self._check_session(source)
        assignment = source.assignment()
        if assignment is None or assignment.number == self._given_up or self._leaving or self._lapsed:
            return
        if source.in_session():
            self._leased_until = 0.0
            self.owner.assign(self._owned(assignment))

    def _on_giving_up(self, is_member: bool) -> None:
        """Announces that all partitions are given up, and waits until the log has it. On the poll thread.

        The group assigns partitions anew when every gateway of it has done this. So a gateway that is assigned one
        reads the announcement of an owner that is alive before its own claim, however slow that owner is.

        Args:
            is_member: Whether the group has accepted a commit just now. A member that has just joined may not have
                proven its session before; nor one that has waited long for others to give up their partitions.
        """
        source = self._source
        assignment = None if source is None else source.assignment()
        is_member = is_member or (source is not None and source.in_session())
        announced = threading.Event()
        call_soon(self._scheduler, partial(self.announce, assignment, announced.set, is_member=is_member))
        announced.wait(_ANNOUNCE)

    def announce(self, assignment: Assignment | None, done: Callable[[], None], *, is_member: bool) -> None:
        """Announces that the partitions of an assignment are given up.

        Args:
            assignment: The assignment.
            done: Called when the log has it.
            is_member: Whether the partitions were this gateway's until now. One that was cut off hands nothing over:
                others have taken it.
        """
        if assignment is not None:
            self._given_up = assignment.number
        leased_until = elapsed() + _LEASE

        def on_announced() -> None:
            if is_member and self._until > 0:
                self._leased_until = leased_until
                if self._lapsed:
                    self.log.catch_up(partial(self._go_on, self._losses))
            done()

        self.owner.announce(on_announced, is_member=is_member)

    def _check_session(self, source: RecordSource) -> None:
        """Allows publishing for a while, unless this gateway was not heard of for too long.

        A look that comes late, on a busy machine, matters only if the group has assigned the partitions anew meanwhile:
        in one assignment, a commit that was accepted shows that the session has not expired before.
        """
        now, in_session, assignment = elapsed(), source.in_session(), source.assignment()
        if self._leaving:
            return
        is_same = in_session and assignment is not None and assignment.number == self._assignment
        self._assignment = -1 if assignment is None else assignment.number
        if self._lapsed:
            if in_session and assignment is not None and not self._is_resuming:
                self._is_resuming = True
                resume = partial(self.log.catch_up, partial(self._resume, source, assignment))
                self.owner.hand_over_all_but(self._owned(assignment), resume)
        elif 0 < max(self._until, self._leased_until) <= now and not is_same:
            self._pause()
        elif in_session:
            self._until = now + _ALLOWED

    def _owned(self, assignment: Assignment) -> frozenset[int]:
        return frozenset(number for topic, number in assignment.owned if topic == self.log.topic)

    def _pause(self) -> None:
        if not self._lapsed and not self._leaving and self._until > 0:
            self._lapsed = True
            _log.warning("publishing paused: reason=no contact to the group of gateways, others may have taken over")

    def _on_lost(self) -> None:
        self._losses += 1
        self._pause()

    def _resume(self, source: RecordSource, assignment: Assignment) -> None:
        """Publishes again, unless the group has assigned the partitions anew meanwhile.

        The log was read up to now. It names the partitions that others have taken over. Those that the group has
        assigned to others, which they have not taken over yet, they take over from a gateway that is alive.
        """
        self._is_resuming = False
        now = source.assignment()
        if source.in_session() and now is not None and now.number == assignment.number:
            self._until = elapsed() + _ALLOWED
            self._go_on(self._losses)

    def _go_on(self, losses: int) -> None:
        """Publishes again after a pause, once the log was read; not if partitions were lost meanwhile.

        Args:
            losses: The number of losses before the log was read.
        """
        if self._lapsed and losses == self._losses:
            self._lapsed = False
            _log.info("publishing resumed: partitions=%d", len(self.owner.tenures))

    def _append(
        self,
        partition: int,
        kind: Kind,
        name: str,
        value: Mapping[str, Any] | None,
        done: Callable[[TransportError | None], None],
    ) -> None:
        def on_done(error: TransportError | None) -> None:
            if error is None or (kind is Kind.COMMAND and isinstance(error, UnconfirmedError)):
                done(error)
                return
            self._failed.count(f"kind={kind.value} error={error}")

            def again(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
                self._append(partition, kind, name, value, done)

            self._scheduler.schedule_relative(_RETRY, again)

        self.log.append(partition, key_of(kind, name), encoded(value), on_done)

    def on_entries(self, entries: Sequence[Entry]) -> None:
        """Applies entries of the log, in order."""
        for entry in entries:
            if entry.offset <= self._seen.get(entry.partition, -1):
                continue
            self._seen[entry.partition] = entry.offset
            try:
                self._apply(entry)
            except Exception:  # of this entry only
                _log.exception("entry of the state topic failed: kind=%s name=%s", entry.kind.value, entry.name)

    def _apply(self, entry: Entry) -> None:
        value = entry.value or {}
        if entry.kind is Kind.OWNER and entry.value is not None:
            owner, epoch = str(value.get("owner")), integer(value.get("epoch"))
            self.owner.on_owner(entry.partition, owner, epoch, integers(value.get("first")))
        elif entry.kind is Kind.HANDING_OVER:
            self.owner.tenancies[entry.partition].announce(int(entry.name), is_given_up=entry.value is not None)
        elif entry.kind is Kind.WITHDRAWN:
            self.owner.tenancies[entry.partition].withdraw(str(value.get("owner")), integer(value.get("epoch")))
        elif entry.kind is Kind.LEAVING:
            self._leavers = self._leavers - {entry.name} if entry.value is None else self._leavers | {entry.name}
        elif entry.kind is Kind.RELEASED:
            self.owner.tenancies[entry.partition].give_up(Release.of(entry))
        elif entry.kind is Kind.COMMAND:
            self._carry_out(entry)
        elif entry.kind is Kind.STATUS:
            self._tell_status(entry)
        elif self._desired.is_void(entry):
            self.owner.write_again(entry.partition, entry.name)
        else:
            wanted = self._desired.apply(entry)
            if wanted is not None:
                self.owner.run(entry.partition, wanted)
            elif entry.kind in (Kind.MONITOR, Kind.SNAPSHOT):
                self.owner.end(entry.partition, entry.kind, entry.name)

    def _membership(self) -> tuple[str, Sequence[str]]:
        owners = {each.owner for each in self.owner.tenancies.values() if not each.is_vacant}
        return self._name, sorted((owners | {self._name}) - self._leavers)

    def _tell_status(self, entry: Entry) -> None:
        """Replies to a request for the status that another gateway has received, unless it is from before the start."""
        if entry.value is None or entry.value.get("by") == self._name or not self.log.started.done():
            return
        parsed = command_of(entry)
        if parsed is not None and isinstance(parsed.command, GatewayStatusCommand):
            for reply in self._status.replies(parsed.command, parsed.reply_to):
                self._outlet.send(reply)

    def _carry_out(self, entry: Entry) -> None:
        """Carries out a trigger or a stop, once, if this gateway was the owner where it stands in the log."""
        if entry.value is None:
            self._carried_out.discard(entry.name)
            return
        if not self.owner.is_owner(entry.partition) or entry.name in self._carried_out:
            return
        self._carried_out.add(entry.name)
        parsed = command_of(entry)
        if parsed is not None:
            with self._claims.lock:
                claim = self._claims.of(Record(self.log.topic, entry.partition, entry.offset, None, None))
            written = Written(integer(entry.value.get("at")), Clock.ARRIVAL)
            if isinstance(parsed.command, RepeatingSnapshotTriggerCommand):
                request = CommandRequest(parsed.command, parsed.reply_to, claim, written)
                self._snapshots.trigger(request).subscribe(self._outlet.send)
            elif isinstance(parsed.command, RepeatingSnapshotStopCommand):
                self.owner.end_suspended(entry.partition, snapshot_topic(parsed.command.snapshot_name))
                stop = CommandRequest(parsed.command, parsed.reply_to, claim)
                self._snapshots.stop(stop).subscribe(self._outlet.send)
        self._append(entry.partition, Kind.COMMAND, entry.name, None, lambda _: None)

    def on_rebuild(self) -> None:
        """Writes what this gateway publishes to a log that was made anew."""
        self._seen.clear()
        self.owner.claim_again()

    def leave(self) -> None:
        """Leaves the group and waits until others have taken over, if there are any. Not on the event loop thread."""
        source = self._source
        if source is None or not self.log.started.done():
            return
        # with the consent of this gateway
        self._leaving, self._until = True, elapsed() + _LEAVE + _HAND_OVER + _LAST_WORD
        announced = threading.Event()
        call_soon(self._scheduler, partial(self._append, 0, Kind.LEAVING, self._name, {}, lambda _: announced.set()))
        source.close(_LEAVE)
        call_soon(self._scheduler, self._check_gone)
        if not (announced.wait(_ANNOUNCE) and self._gone.wait(_HAND_OVER)):
            call_soon(self._scheduler, partial(self._give_up, alone=True))
            self._gone.wait(_LAST_WORD)
        call_soon(self._scheduler, partial(self._append, 0, Kind.LEAVING, self._name, None, lambda _: None))

    def _give_up(self, *, alone: bool = False) -> None:
        """Releases everything at once if there is no other gateway that goes on."""
        owners = {each.owner for each in self.owner.tenancies.values() if not each.is_vacant}
        others = set[str]() if alone else owners - {self._name} - self._leavers
        for tenure in list(self.owner.tenures.values()):
            if tenure.stage is Stage.LIVE and not others:
                self.owner.hand_over(tenure)
            elif tenure.stage is Stage.PREPARING or (alone and tenure.stage in (Stage.CLAIMED, Stage.WAITING)):
                self.owner.drop(tenure)

    def _check_gone(self) -> None:
        if not self._leaving:
            return
        self._give_up()
        if not self.owner.tenures and not self.owner.unconfirmed:
            self._gone.set()
            return

        def look(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            if not self._gone.is_set():
                self._check_gone()

        self._scheduler.schedule_relative(_TICK, look)

    def close(self, timeout: float) -> None:
        """Ends the log's thread. Any thread; idempotent."""
        if self._source is not None:
            self._source.close(timeout)
        self.log.close(timeout)
