"""The routes of event records: the subscribers of one PV, or the messages of one snapshot.

Thread safety: routes belong to the router's lock.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum
from typing import Any, Protocol

from k2eg_rx.delivery import SubscriberInput
from k2eg_rx.protocol import PVUpdate, protocol_of, repeats
from k2eg_rx.pv import PVAddress
from k2eg_rx.transport import Partition, Record

Outgoing = dict[SubscriberInput[Any], list[Any]]  # the items of a batch by subscriber


class Naming(Enum):
    """Under which name a topic carries a PV. The gateway's reply to an activation tells it.

    A topic carries a PV under its name over one protocol. A gateway that supports both uses the URI for the other one.
    """

    NAME = "name"
    URI = "uri"
    UNKNOWN = "unknown"  # accepts both; an event's header, if it has one, names its protocol


class PVRoute:
    """The subscribers of one PV in this client; belongs to the router's lock.

    Attributes:
        address: The PV.
        topic: The topic of its events.
        naming: Under which name the topic carries the PV.
        other: The route of the same PV over the other protocol, where events under the name may belong to either.
        subscribers: The PV's subscribers.
        newest_only: Whether there are subscribers and all want only the newest event.
        last: The last event, for later subscribers. As a record, since an update would keep what was decoded of it in
            memory.
        heard: Whether an event has arrived since this was set to False.
        newest: The newest event of the current batch, where `newest_only`.
        conflated: Events of the current batch that `newest` has replaced.
        filtered: Events that the conflation filter has left out since the last one that was published.
        lost: The gateway's record that it has lost the PV; None after one that the PV is connected again.
    """

    __slots__ = (
        "address",
        "conflated",
        "filtered",
        "heard",
        "last",
        "lost",
        "naming",
        "newest",
        "newest_only",
        "other",
        "subscribers",
        "topic",
    )

    def __init__(self, address: PVAddress, topic: str) -> None:
        self.address = address
        self.topic = topic
        self.naming = Naming.NAME
        self.other: PVRoute | None = None
        self.subscribers: tuple[SubscriberInput[PVUpdate], ...] = ()
        self.newest_only = False
        self.last: Record | None = None
        self.heard = False
        self.newest: Record | None = None
        self.conflated = 0
        self.filtered = 0
        self.lost: Record | None = None

    def is_lost(self) -> bool:
        """Returns whether the gateway has lost the PV and no newer event has arrived, from another gateway perhaps."""
        lost, last = self.lost, self.last
        return lost is not None and (last is None or last.timestamp_ms <= lost.timestamp_ms)

    def kafka_keys(self) -> set[bytes]:
        """Returns the keys of the PV's events: its URI or name, or the record's if the gateway ignores fields."""
        named = {self.address.name.encode(), self.address.base.encode()}
        uri = {self.address.uri.encode()}
        return {Naming.NAME: named, Naming.URI: uri, Naming.UNKNOWN: named | uri}[self.naming]

    def is_ambiguous(self) -> bool:
        """Returns whether events under the PV's name may be of the other protocol."""
        return self.other is not None or self.naming is Naming.UNKNOWN

    def of_protocol(self, record: Record) -> PVRoute | None:
        """Returns the route of an event that has reached this one: this or the other one; None if it is of neither."""
        protocol = protocol_of(record.headers)
        if protocol is None or protocol == self.address.protocol:
            return self
        other = self.other
        return other if other is not None and other.address.protocol == protocol else None

    def set_subscribers(self, subscribers: tuple[SubscriberInput[PVUpdate], ...]) -> None:
        """Replaces the subscribers."""
        self.subscribers = subscribers
        self.newest_only = bool(subscribers) and all(subscriber.newest_only for subscriber in subscribers)

    def publish(self, record: Record, outgoing: Outgoing) -> None:
        """Adds an event for each subscriber, unless it repeats the last one."""
        self.heard = True
        last, value = self.last, record.value
        if last is not None and value == last.value and repeats(record, last):
            return
        self.last = record
        update = PVUpdate(self.address, record)
        for subscriber in self.subscribers:
            items = outgoing.get(subscriber)
            if items is None:
                outgoing[subscriber] = [update]
            else:
                items.append(update)

    def conflate(self, record: Record, touched: list[PVRoute]) -> None:
        """Replaces the batch's newest event; `publish_newest` has to follow.

        No update is made of the replaced events, as for a display that shows 10 of 100,000 events per second.
        """
        newest = self.newest
        before, value = newest or self.last, record.value
        if not self.filtered and before is not None and value == before.value and repeats(record, before):
            self.heard = True
            return
        if newest is None:
            touched.append(self)
        else:
            self.conflated += 1
        self.newest = record

    def publish_newest(self, outgoing: Outgoing) -> None:
        """Adds the batch's newest event for each subscriber."""
        newest, self.newest = self.newest, None
        if newest is None:
            return
        conflated = self.conflated + self.filtered
        self.conflated = self.filtered = 0
        if conflated:
            self.last = None  # the value may have changed in between, so an equal one is no repetition
        self.publish(newest, outgoing)
        for subscriber in self.subscribers if conflated else ():
            subscriber.count_conflated(conflated)


class MessageRoute(Protocol):
    """Handles the records of a snapshot's topic; called with the router's lock held."""

    def accept(self, record: Record, outgoing: Outgoing) -> None:
        """Adds the items that a record completes, for each subscriber.

        Raises:
            WireError: The record is no message of a snapshot.
        """
        ...

    def give_up(self, partitions: Collection[Partition]) -> Record | None:
        """Drops what is useless without the records of partitions that follow, before another reader continues.

        Returns:
            The first record of it, from which that reader has to read on; None if there is none.
        """
        ...
