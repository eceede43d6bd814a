"""From event records to the subscribers of their PV or snapshot: a look-up, not a search.

In: batches of records, on the thread of the event pump. Out: `PVUpdate`s (not decoded) and snapshot messages, offered
to the subscribers attached to their route, in the order of the records.

The topic and the Kafka key (the PV's name) find the route, so nothing is decoded for it. The tables belong to the
lock, which the pump holds for one batch and others for one change.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from itertools import compress, count, islice
from operator import ne
from typing import Any, Protocol

from k2eg_rx.delivery import SubscriberInput
from k2eg_rx.errors import WireError
from k2eg_rx.protocol import PVUpdate, decode_body, repeats
from k2eg_rx.pv import PVAddress
from k2eg_rx.transport import ConflationFilter, DecodeErrorCounter, Offsets, Partition, Record, Work

Outgoing = dict[SubscriberInput[Any], list[Any]]


class PVRoute:
    """The subscribers of one PV in this client. Belongs to the router's lock.

    Attributes:
        address: The PV.
        topic: Where its events come.
        subscribers: Its subscribers.
        newest_only: Whether there are subscribers, and they all want the newest event only.
        last: The newest event, for a subscriber that comes later. The bytes, not the update that was made of them: of
            each PV it would keep what subscribers decoded, and nothing to decode the next one into that is in a cache.
        heard: Whether there was an event since somebody set this to False.
        newest: Of a batch under way, the newest event so far, where only that is wanted.
        left_out: Of that batch, how many were left out for it.
        sifted: How many were left out, by a sieve, for the next one that comes.
    """

    __slots__ = ("address", "heard", "last", "left_out", "newest", "newest_only", "sifted", "subscribers", "topic")

    def __init__(self, address: PVAddress, topic: str) -> None:
        self.address = address
        self.topic = topic
        self.subscribers: tuple[SubscriberInput[PVUpdate], ...] = ()
        self.newest_only = False
        self.last: Record | None = None
        self.heard = True
        self.newest: Record | None = None
        self.left_out = 0
        self.sifted = 0

    def kafka_keys(self) -> set[bytes]:
        """The Kafka keys of its events: the name, or the record's alone where the gateway knows no fields."""
        return {self.address.name.encode(), self.address.base.encode()}

    def serve(self, subscribers: tuple[SubscriberInput[PVUpdate], ...]) -> None:
        """Has these subscribers from now on."""
        self.subscribers = subscribers
        self.newest_only = bool(subscribers) and all(inlet.newest_only for inlet in subscribers)

    def publish(self, record: Record, outgoing: Outgoing) -> None:
        """Adds an event for each subscriber."""
        self.heard = True
        last, value = self.last, record.value
        if last is not None and value == last.value and repeats(value, last.value):
            return
        self.last = record
        update = PVUpdate(self.address, record)
        for inlet in self.subscribers:
            waiting = outgoing.get(inlet)
            if waiting is None:
                outgoing[inlet] = [update]
            else:
                waiting.append(update)

    def replace(self, record: Record, touched: list[PVRoute]) -> None:
        """Keeps an event in place of the one before it in this batch; `publish_newest` has to follow.

        What is left out never becomes an update: this is the way of a display that looks ten times a second at what
        comes a hundred thousand times.
        """
        newest = self.newest
        before, value = newest or self.last, record.value
        if not self.sifted and before is not None and value == before.value and repeats(value, before.value):
            self.heard = True
            return
        if newest is None:
            touched.append(self)
        else:
            self.left_out += 1
        self.newest = record

    def publish_newest(self, outgoing: Outgoing) -> None:
        """Adds what is left of a batch."""
        newest, self.newest = self.newest, None
        if newest is None:
            return
        left_out = self.left_out + self.sifted
        self.left_out = self.sifted = 0
        if left_out:
            self.last = None  # what has been left out makes news of it, even of what was published last
        self.publish(newest, outgoing)
        for inlet in self.subscribers if left_out else ():
            inlet.count_conflated(left_out)


def _ends_of_runs(keys: Sequence[bytes | None]) -> Sequence[int]:
    """Returns the number of the last key of each run of equal ones. A flood's come in long runs, or are all equal."""
    final = len(keys) - 1
    if keys[0] == keys[final] and keys.count(keys[0]) == len(keys):
        return (final,)
    return [*compress(count(), map(ne, keys, islice(keys, 1, None))), final]


def _is_of(partitions: Collection[Partition], topics: Collection[str], update: PVUpdate) -> bool:
    return update.record.topic in topics and update.record[:2] in partitions


def first_offsets(records: Iterable[Record]) -> Offsets:
    """Returns the lowest offset of each partition."""
    first: dict[Partition, int] = {}
    for record in records:
        partition = record[:2]
        first[partition] = min(record.offset, first.get(partition, record.offset))
    return first


class MessageRoute(Protocol):
    """The taker of whatever comes on a snapshot's topic. Called with the router's lock held."""

    def accept(self, record: Record, outgoing: Outgoing) -> None:
        """Adds what a record amounts to, for each inlet that it is for.

        Raises:
            WireError: The record is not what belongs there.
        """
        ...

    def unused(self) -> Record | None:
        """Returns the first record that has been of no use to anybody yet, and will be none if the next do not come."""
        ...


class EventRouter:
    """The receiver of all event topics.

    Args:
        discards: Where bad records are counted.
        has_room: Whether the subscribers can take more; asked before each batch.
        gather_work: What `Receiver.gather_work` is.
        is_modest: What `Receiver.prefer_small_batches` is.
        limit: Bytes that a body may have; larger ones are never received.
    """

    def __init__(
        self,
        discards: DecodeErrorCounter,
        has_room: Callable[[], bool],
        gather_work: Callable[[], Work | None] = lambda: None,
        prefer_small_batches: Callable[[], bool] = lambda: False,
        limit: float = math.inf,
    ) -> None:
        self.lock = threading.RLock()
        self._pvs: dict[str, dict[bytes, PVRoute]] = {}
        self._messages: dict[str, MessageRoute] = {}
        # The PVs of which only the newest event is wanted, by key, where a key means one PV. None: to be found out.
        self._newest: dict[bytes, PVRoute] | None = None
        self._discards = discards
        self.ready = has_room
        self.gather_work = gather_work
        self.prefer_small_batches = prefer_small_batches
        self._limit = limit

    def add_pv(self, route: PVRoute) -> None:
        """Opens the route of a PV."""
        with self.lock:
            self._newest = None
            keyed = self._pvs.setdefault(route.topic, {})
            for key in route.kafka_keys():
                keyed.setdefault(key, route)

    def remove_pv(self, route: PVRoute) -> None:
        """Closes the route of a PV."""
        with self.lock:
            self._newest = None
            keyed = self._pvs.get(route.topic, {})
            for key in [key for key, other in keyed.items() if other is route]:
                del keyed[key]
            if not keyed:
                self._pvs.pop(route.topic, None)

    def attach(self, route: PVRoute, inlet: SubscriberInput[PVUpdate]) -> None:
        """Adds a subscriber: it gets the last update, if any, and then every later one."""
        with self.lock:
            self._newest = None
            route.serve((*route.subscribers, inlet))
            if route.last is not None and not route.sifted:  # else there are later ones, and the newest is on its way
                inlet.offer((PVUpdate(route.address, route.last),))

    def detach(self, route: PVRoute, inlet: SubscriberInput[PVUpdate]) -> int:
        """Removes a subscriber; returns how many are left."""
        with self.lock:
            self._newest = None
            route.serve(tuple(other for other in route.subscribers if other is not inlet))
            return len(route.subscribers)

    def add_messages(self, topic: str, route: MessageRoute) -> None:
        """Opens the route of a snapshot's topic."""
        with self.lock:
            self._newest = None
            self._messages[topic] = route

    def remove_messages(self, topic: str) -> None:
        """Closes the route of a snapshot's topic."""
        with self.lock:
            self._newest = None
            self._messages.pop(topic, None)

    def reads(self, topic: str) -> bool:
        """Whether some route is on that topic."""
        with self.lock:
            return topic in self._pvs or topic in self._messages

    def conflation_filter(self) -> ConflationFilter | None:
        """Returns what leaves out older events of PVs whose subscribers all want the newest only, if there are any."""
        with self.lock:
            if self._newest is None:
                self._newest = self._newest_by_key()
            return self._sift if self._newest else None

    def _newest_by_key(self) -> dict[bytes, PVRoute]:
        if self._messages:
            return {}  # theirs may have any key
        keys = Counter(key for keyed in self._pvs.values() for key in keyed)
        routes = [item for keyed in self._pvs.values() for item in keyed.items()]
        return {key: route for key, route in routes if route.newest_only and keys[key] == 1}

    def _sift(self, keys: Sequence[bytes | None], size_of: Callable[[int], int]) -> Iterable[int] | None:
        ends = _ends_of_runs(keys)
        last = {keys[end]: end for end in ends}
        if len(last) == len(keys):
            return None
        wanted: list[int] = []
        left_out: list[tuple[PVRoute, int]] = []
        with self.lock:
            routes = self._newest or {}
            begin = 0
            for end in ends:
                key = keys[end]
                route = None if key is None else routes.get(key)
                if route is None:
                    wanted.extend(range(begin, end + 1))
                elif last[key] == end:
                    wanted.append(end)
                    left_out.append((route, end - begin))
                else:
                    left_out.append((route, end + 1 - begin))
                begin = end + 1
            # one that is too large is about to be discarded, and must not have taken the place of those before it
            if len(wanted) == len(keys) or any(size_of(number) > self._limit for number in last.values()):
                return None
            for route, times in left_out:
                route.sifted += times
        return wanted

    def receive(self, records: Sequence[Record]) -> None:
        """Routes a batch."""
        outgoing: Outgoing = {}
        touched: list[PVRoute] = []
        pvs = self._pvs
        with self.lock:
            for record in records:
                keyed = pvs.get(record.topic)
                route = None if keyed is None or record.key is None else keyed.get(record.key)
                if route is None:
                    self._route_other(record, keyed, outgoing)
                elif route.newest_only:
                    route.replace(record, touched)
                else:
                    route.publish(record, outgoing)
            for route in touched:
                route.publish_newest(outgoing)
        for inlet, items in outgoing.items():
            inlet.offer(items)

    def reclaim_undelivered(self, partitions: Collection[Partition]) -> Offsets:
        """Takes back what was not handed over yet; see `Receiver.reclaim_undelivered`.

        Not so where an event is for several subscribers: some of them may have it already. They will have it all.
        """
        wanted = set(partitions)
        topics = {topic for topic, _ in wanted}
        with self.lock:
            begun = (self._messages[topic].unused() for topic in topics & self._messages.keys())
            unused = [record for record in begun if record is not None and record[:2] in wanted]
            for inlet, own in self._sole_subscribers(topics).items():
                recalled = [update.record for update in inlet.reclaim_undelivered(partial(_is_of, wanted, own))]
                for topic in {record.topic for record in recalled}:
                    for route in self._pvs[topic].values():
                        route.last = None  # what comes once more must not be taken for a repetition
                unused += recalled
        return first_offsets(unused)

    def _sole_subscribers(self, topics: Iterable[str]) -> dict[SubscriberInput[PVUpdate], set[str]]:
        """Returns the topics of which a subscriber gets all the events, and nobody else any."""
        sole: dict[SubscriberInput[PVUpdate], set[str]] = {}
        for topic in topics:
            subscribers = {inlet for route in self._pvs.get(topic, {}).values() for inlet in route.subscribers}
            if len(subscribers) == 1:
                sole.setdefault(subscribers.pop(), set()).add(topic)
        return sole

    def _route_other(self, record: Record, keyed: dict[bytes, PVRoute] | None, outgoing: Outgoing) -> None:
        """What is no event of a monitored PV by its key: one without a key, or a snapshot's message."""
        try:
            route = self._by_body(record, keyed) if keyed is not None and record.key is None else None
            messages = self._messages.get(record.topic)
            if route is not None:
                route.publish_newest(outgoing)  # of this batch, so far
                route.publish(record, outgoing)
            elif messages is not None:
                messages.accept(record, outgoing)
        except WireError as error:
            self._discards.add(error, record.topic)

    @staticmethod
    def _by_body(record: Record, keyed: dict[bytes, PVRoute]) -> PVRoute | None:
        """An event without a key: the name is in its body."""
        names = (str(name).encode(errors="replace") for name in decode_body(record))
        return next((keyed[name] for name in names if name in keyed), None)
