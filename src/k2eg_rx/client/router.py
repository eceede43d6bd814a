"""Routes event records to the subscribers of their PV or snapshot.

A route is found by topic and Kafka key (the PV's name), so that routing decodes nothing.

Thread safety: the routes belong to the lock. The event poll thread holds it for one batch, other threads for one
change.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from itertools import compress, count, islice
from operator import itemgetter, ne
from typing import Any

from k2eg_rx.client.routes import MessageRoute, Naming, Outgoing, PVRoute
from k2eg_rx.delivery import RecordRun, SubscriberInput
from k2eg_rx.errors import WireError
from k2eg_rx.protocol import (
    ConnectionEvent,
    Notice,
    PVUpdate,
    connection_event,
    decode_body,
    decode_notice,
    is_notice,
)
from k2eg_rx.transport import ConflationFilter, DecodeErrorCounter, InlineWork, Offsets, Partition, Record

_key_of = itemgetter(Record._fields.index("key"))
_topic_of = itemgetter(Record._fields.index("topic"))


def _ends_of_runs(keys: Sequence[bytes | None]) -> Sequence[int]:
    """Returns the index of the last key of each run of equal keys. At high rates, runs are long."""
    final = len(keys) - 1
    if keys[0] == keys[final] and keys.count(keys[0]) == len(keys):
        return (final,)
    return [*compress(count(), map(ne, keys, islice(keys, 1, None))), final]


def _is_in(partitions: Collection[Partition], topics: Collection[str], update: PVUpdate | ConnectionEvent) -> bool:
    return isinstance(update, PVUpdate) and update.record.topic in topics and update.record[:2] in partitions


def first_offsets(records: Iterable[Record]) -> Offsets:
    """Returns the lowest offset of each partition."""
    first: dict[Partition, int] = {}
    for record in records:
        partition = record[:2]
        first[partition] = min(record.offset, first.get(partition, record.offset))
    return first


class EventRouter:
    """The receiver of all event topics.

    Args:
        decode_errors: Counts undecodable records.
        has_room: Returns whether the subscribers can take another batch.
        collect_inline: See `Receiver.collect_inline`.
        prefer_small_batches: See `Receiver.prefer_small_batches`.
        on_events: Called with each batch; must not block.
        limit: Maximum size of a body in bytes; larger records are rejected before they get here.
        on_notice: Called with notices about PVs that have a route, on the event poll thread.
    """

    judges_age = False

    def __init__(
        self,
        decode_errors: DecodeErrorCounter,
        has_room: Callable[[], bool],
        collect_inline: Callable[[], InlineWork | None] = lambda: None,
        prefer_small_batches: Callable[[], bool] = lambda: False,
        *,
        on_events: Callable[[], None] = lambda: None,
        limit: float = math.inf,
        on_notice: Callable[[Notice], None] = lambda _: None,
    ) -> None:
        self.lock = threading.RLock()
        self._in_turn = threading.RLock()  # held from the making of items to their offer, which keeps their order
        self._pvs: dict[str, dict[bytes, PVRoute]] = {}
        self._messages: dict[str, MessageRoute] = {}
        # routes with newest_only by key, where the key is of one PV; None after a change, until it is needed
        self._conflated: dict[bytes, PVRoute] | None = None
        self._repeated = 0  # of routes that were removed
        self._superseded = 0  # of routes that were removed
        self._decode_errors = decode_errors
        self.ready = has_room
        self.collect_inline = collect_inline
        self.prefer_small_batches = prefer_small_batches
        self._on_events = on_events
        self._limit = limit
        self._on_notice = on_notice

    def add_pv(self, route: PVRoute) -> None:
        """Adds the route of a PV."""
        with self.lock:
            self._conflated = None
            keyed = self._pvs.setdefault(route.topic, {})
            for key in route.kafka_keys():
                first = keyed.setdefault(key, route)
                if first is not route and first.address.base == route.address.base:
                    first.other, route.other = route, first

    def remove_pv(self, route: PVRoute) -> None:
        """Removes the route of a PV."""
        with self.lock:
            self._conflated = None
            keyed = self._pvs.get(route.topic, {})
            other, route.other = route.other, None
            self._repeated += route.repeated
            route.repeated = 0
            self._superseded += route.epochs.dropped
            route.epochs.dropped = 0
            shared: set[bytes] = set()
            if other is not None:
                other.other, shared = None, other.kafka_keys()
            for key in [key for key, at in keyed.items() if at is route]:
                if other is not None and key in shared:
                    keyed[key] = other
                else:
                    del keyed[key]
            if not keyed:
                self._pvs.pop(route.topic, None)

    def set_naming(self, route: PVRoute, naming: Naming) -> None:
        """Sets under which name the topic carries a PV."""
        with self.lock:
            if route.naming is not naming:
                self.remove_pv(route)
                route.naming = naming
                self.add_pv(route)

    def move_pv(self, route: PVRoute, topic: str) -> None:
        """Moves the route of a PV to another topic."""
        with self.lock:
            self.remove_pv(route)
            route.topic = topic
            self.add_pv(route)

    def repeated(self) -> int:
        """Returns the number of events that were not published because they repeat an older update of their PV."""
        with self.lock:
            routes = {route for keyed in self._pvs.values() for route in keyed.values()}
            return self._repeated + sum(route.repeated for route in routes)

    def superseded(self) -> int:
        """Returns the number of events that were not published because another gateway had replaced theirs."""
        with self.lock:
            routes = {route for keyed in self._pvs.values() for route in keyed.values()}
            return self._superseded + sum(route.epochs.dropped for route in routes)

    def attach(
        self,
        route: PVRoute,
        subscriber: SubscriberInput[Any],
        *,
        values: bool = True,
        connections: bool = False,
        records: bool = False,
        last: bool = True,
    ) -> None:
        """Adds a subscriber, which gets what is known of the PV, and all that follows.

        Args:
            route: The PV's.
            subscriber: The subscriber.
            values: Whether it gets the updates.
            connections: Whether it gets the connection's events, from the current state on.
            records: Whether it gets the updates as runs of records.
            last: Whether the updates begin with the last known one.
        """
        with self.lock:
            self._conflated = None
            route.add(subscriber, values=values, connections=connections, records=records)
            known: list[PVUpdate | ConnectionEvent | RecordRun] = []
            is_due = route.filtered or (connections and route.is_value_due)  # a newer one is about to be received
            if last and route.last is not None and not is_due:
                if values:
                    known.append(PVUpdate(route.address, route.last))
                if records:
                    known.append(RecordRun(route.address, [route.last]))
            if connections and route.connection is not None:
                known.insert(0 if route.is_connected else len(known), route.connection)  # in order of time
            if known:
                subscriber.offer(known)

    def detach(self, route: PVRoute, subscriber: SubscriberInput[Any]) -> int:
        """Removes a subscriber; returns the number of those left."""
        with self.lock:
            self._conflated = None
            route.remove(subscriber)
            return len(route.subscribers)

    def add_messages(self, topic: str, route: MessageRoute) -> None:
        """Adds the route of a snapshot's topic."""
        with self.lock:
            self._conflated = None
            self._messages[topic] = route

    def remove_messages(self, topic: str) -> None:
        """Removes the route of a snapshot's topic."""
        with self.lock:
            self._conflated = None
            self._messages.pop(topic, None)

    def reads(self, topic: str) -> bool:
        """Returns whether a route needs that topic."""
        with self.lock:
            return topic in self._pvs or topic in self._messages

    def conflation_filter(self) -> ConflationFilter | None:
        """Returns a filter that leaves out older events of PVs with `newest_only`; None if there is no such PV."""
        with self.lock:
            if self._conflated is None:
                self._conflated = self._conflated_by_key()
            return self._filter if self._conflated else None

    def _conflated_by_key(self) -> dict[bytes, PVRoute]:
        if self._messages:
            return {}  # a snapshot's records may have any key
        keys = Counter(key for keyed in self._pvs.values() for key in keyed)
        routes = [item for keyed in self._pvs.values() for item in keyed.items()]
        return {
            key: route for key, route in routes if route.newest_only and keys[key] == 1 and not route.is_ambiguous()
        }

    def _filter(self, keys: Sequence[bytes | None], size_of: Callable[[int], int]) -> Iterable[int] | None:
        ends = _ends_of_runs(keys)
        last = {keys[end]: end for end in ends}
        if len(last) == len(keys):
            return None
        wanted: list[int] = []
        filtered: list[tuple[PVRoute, int]] = []
        with self.lock:
            routes = self._conflated or {}
            begin = 0
            for end in ends:
                key = keys[end]
                route = None if key is None else routes.get(key)
                if route is None:
                    wanted.extend(range(begin, end + 1))
                elif last[key] == end:
                    wanted.append(end)
                    filtered.append((route, end - begin))
                else:
                    filtered.append((route, end + 1 - begin))
                begin = end + 1
            # a record that is too large will be rejected, and must not replace those before it
            if len(wanted) == len(keys) or any(size_of(number) > self._limit for number in last.values()):
                return None
            for route, number in filtered:
                route.filtered += number
        return wanted

    def receive(self, records: Sequence[Record]) -> None:
        """Routes a batch; see `Receiver.receive`."""
        self._on_events()
        self.publish(lambda outgoing: self._route(records, outgoing))

    def publish(self, add: Callable[[Outgoing], None]) -> None:
        """Offers items to subscribers, after those of a batch that is being received.

        Args:
            add: Adds the items; called with `lock` held.
        """
        outgoing: Outgoing = {}
        with self._in_turn:
            with self.lock:
                add(outgoing)
            for subscriber, items in outgoing.items():
                subscriber.offer(items)

    def _route(self, records: Sequence[Record], outgoing: Outgoing) -> None:
        touched: list[PVRoute] = []
        begin = 0
        for end in _ends_of_runs(list(map(_key_of, records))):
            run = records[begin : end + 1]
            begin = end + 1
            route = self._route_of_run(run)
            if route is not None:
                route.publish_run(run, outgoing)
            else:
                self._route_singly(run, outgoing, touched)
        for route in touched:
            route.publish_newest(outgoing)

    def _route_of_run(self, run: Sequence[Record]) -> PVRoute | None:
        """Returns the route of records of one key if all are for it, and it takes them together."""
        topic, key = run[0].topic, run[0].key
        if key is None or len(run) == 1 or [*map(_topic_of, run)].count(topic) < len(run):
            return None
        route = self._pvs.get(topic, {}).get(key)
        return None if route is None or route.newest_only or route.is_ambiguous() else route

    def _route_singly(self, records: Sequence[Record], outgoing: Outgoing, touched: list[PVRoute]) -> None:
        pvs = self._pvs
        for record in records:
            keyed = pvs.get(record.topic)
            route = None if keyed is None or record.key is None else keyed.get(record.key)
            if route is not None and route.is_ambiguous():
                route = route.of_protocol(record)
            if route is None:
                self._route_other(record, keyed, outgoing)
            elif route.newest_only:
                route.conflate(record, touched)
            else:
                route.publish(record, outgoing)

    def commit_first(self, values: Sequence[bytes | None]) -> bool:  # noqa: ARG002
        """Returns False: events may be received again after a crash; see `Receiver.commit_first`."""
        return False

    def on_revoked(self, partitions: Collection[Partition], *, handed_over: bool) -> None:
        """Does nothing: events that were received are delivered."""

    def reclaim_undelivered(self, partitions: Collection[Partition]) -> Offsets:
        """Takes back events that no subscriber was called with; see `Receiver.reclaim_undelivered`.

        Events of a topic with several subscribers are kept, since one of them may have had them already.
        """
        wanted = set(partitions)
        topics = {topic for topic, _ in wanted}
        with self.lock:
            incomplete = (self._messages[topic].give_up(wanted) for topic in topics & self._messages.keys())
            unused = [record for record in incomplete if record is not None]
            for subscriber, own in self._sole_subscribers(topics).items():
                reclaimed = [update.record for update in subscriber.reclaim_undelivered(partial(_is_in, wanted, own))]
                for topic in {record.topic for record in reclaimed}:
                    for route in self._pvs[topic].values():
                        route.forget()  # the same event read again is no repetition
                unused += reclaimed
        return first_offsets(unused)

    def _sole_subscribers(self, topics: Iterable[str]) -> dict[SubscriberInput[Any], set[str]]:
        """Returns the subscribers that are the only one of a topic's updates, with these topics."""
        sole: dict[SubscriberInput[Any], set[str]] = {}
        for topic in topics:
            subscribers = {each for route in self._pvs.get(topic, {}).values() for each in route.values}
            if len(subscribers) == 1:
                sole.setdefault(subscribers.pop(), set()).add(topic)
        return sole

    def _route_other(self, record: Record, keyed: dict[bytes, PVRoute] | None, outgoing: Outgoing) -> None:
        """Routes a record without a PV's key: an event without a key, a notice, a connection, a snapshot's message."""
        if keyed is not None and (event := connection_event(record)) is not None:
            route = keyed.get(event.name.encode())
            if route is not None:
                route.publish_newest(outgoing)  # keeps the order
                route.set_connection(event, record, outgoing)
            return
        try:
            if keyed is not None and is_notice(record):
                self._receive_notice(decode_notice(record), keyed)
                return
            route = self._by_body(record, keyed) if keyed is not None and record.key is None else None
            messages = self._messages.get(record.topic)
            if route is not None:
                route.publish_newest(outgoing)  # keeps the order
                route.publish(record, outgoing)
            elif messages is not None:
                messages.accept(record, outgoing)
        except WireError as error:
            self._decode_errors.add(error, record.topic)

    def _receive_notice(self, notice: Notice, keyed: dict[bytes, PVRoute]) -> None:
        route = keyed.get(notice.pv_name.encode(errors="replace"))
        if route is not None:
            route.heard = True  # the gateway is there
            self._on_notice(notice)

    @staticmethod
    def _by_body(record: Record, keyed: dict[bytes, PVRoute]) -> PVRoute | None:
        """Returns the route of an event without a key, by the name in its body."""
        names = (str(name).encode(errors="replace") for name in decode_body(record))
        route = next((keyed[name] for name in names if name in keyed), None)
        return None if route is None else route.of_protocol(record)
