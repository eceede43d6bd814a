"""The routes of event records: the subscribers of one PV, or the messages of one snapshot.

Thread safety: routes belong to the router's lock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from enum import Enum
from itertools import islice
from operator import eq
from typing import TYPE_CHECKING, Any, Protocol

from k2eg_rx.delivery import RecordRun, SubscriberInput
from k2eg_rx.errors import K2EGError
from k2eg_rx.protocol import (
    PROTOCOL_HEADER,
    ConnectionEvent,
    EpochFilter,
    PVState,
    PVUpdate,
    has_usual_headers,
    protocol_of,
    repeats,
    usual_updates,
)
from k2eg_rx.pv import PVAddress
from k2eg_rx.transport import Headers, Partition, Record

if TYPE_CHECKING:
    from k2eg_rx.protocol import EventReader, EventRun

_LEAST_READ = 32  # events of a run that are read together for columns; fewer are collected first
_MOST_BYTES = 1 << 20  # of them: more leave the processor's cache, and take longer than the router's lock may be held

Outgoing = dict[SubscriberInput[Any], list[Any]]  # the items of a batch by subscriber


class Naming(Enum):
    """Under which name a topic carries a PV. The gateway's reply to an activation tells it.

    A topic carries a PV under its name over one protocol. A gateway that supports both uses the URI for the other one.
    """

    NAME = "name"
    URI = "uri"
    UNKNOWN = "unknown"  # accepts both; an event's header, if it has one, names its protocol


def _updates(address: PVAddress, records: Iterable[Record]) -> list[PVUpdate]:
    return [PVUpdate(address, record) for record in records]


class RecentValues:
    """The values of a PV's last events, by their hashes: the last 18 to 36, in at most 3 kB for each PV.

    A gateway repeats an event some 0.1 s after newer ones, of which there are 12 at 120 Hz.
    """

    _GENERATION = 18  # as many as a small set holds before its table grows fourfold

    __slots__ = ("_new", "_old")

    def __init__(self) -> None:
        self._new: set[int] = set()
        self._old: set[int] = set()

    def add(self, value: bytes | None) -> bool:
        """Adds a value; returns whether it was there. At full rate, most of it is the hash: 0.1 us for 550 bytes."""
        hashed, new = hash(value), self._new
        was_there = hashed in new or hashed in self._old
        new.add(hashed)
        if len(new) >= self._GENERATION:
            self._new, self._old = set(), new
        return was_there

    def add_new(self, values: Sequence[bytes | None]) -> bool:
        """Adds values if none of them was there and all differ; returns whether that is so."""
        added = set(map(hash, values))
        if len(added) < len(values) or not (added.isdisjoint(self._new) and added.isdisjoint(self._old)):
            return False
        self.note(values)
        return True

    def note(self, values: Sequence[bytes | None]) -> None:
        """Adds values that were not there."""
        hashes = set(map(hash, values[-self._GENERATION :]))
        self._new = hashes if len(values) >= self._GENERATION else self._new | hashes
        if len(self._new) >= self._GENERATION:
            self._new, self._old = set(), self._new

    def __contains__(self, value: bytes | None) -> bool:
        hashed = hash(value)
        return hashed in self._new or hashed in self._old


class PVRoute:
    """The subscribers of one PV in this client; belongs to the router's lock.

    Attributes:
        address: The PV.
        topic: The topic of its events.
        naming: Under which name the topic carries the PV.
        other: The route of the same PV over the other protocol, where events under the name may belong to either.
        subscribers: The PV's subscribers.
        values: Those of its updates.
        readers: Those of its updates as runs of records, which are not decoded one by one.
        watchers: Those of its connection.
        newest_only: Whether there are subscribers, and those of its updates want only the newest one.
        last: The last event, for later subscribers. As a record, since an update would keep what was decoded of it in
            memory.
        heard: Whether an event has arrived since this was set to False.
        newest: The newest event of the current batch, where `newest_only`.
        conflated: Events of the current batch that `newest` has replaced.
        previous: The event that `newest` has replaced.
        filtered: Events that the conflation filter has left out since the last one that was published.
        repeated: Events that were not published because they repeat an older one than the last.
        epochs: Leaves out the events of a gateway that another one has replaced.
        connection: The PV's connection, as far as known.
        is_connected: Whether it is known to be connected.
        is_value_due: Whether the PV was lost and is connected again, and its first value since then has not arrived.
    """

    __slots__ = (
        "_connection_ms",
        "_reader",
        "_recent",
        "address",
        "conflated",
        "connection",
        "epochs",
        "filtered",
        "heard",
        "is_connected",
        "is_value_due",
        "last",
        "naming",
        "newest",
        "newest_only",
        "other",
        "previous",
        "readers",
        "repeated",
        "subscribers",
        "topic",
        "values",
        "watchers",
    )

    def __init__(self, address: PVAddress, topic: str) -> None:
        self.address = address
        self.topic = topic
        self.naming = Naming.NAME
        self.other: PVRoute | None = None
        self.subscribers: tuple[SubscriberInput[Any], ...] = ()
        self.values: tuple[SubscriberInput[Any], ...] = ()
        self.readers: tuple[SubscriberInput[Any], ...] = ()
        self.watchers: tuple[SubscriberInput[Any], ...] = ()
        self.newest_only = False
        self.last: Record | None = None
        self.heard = False
        self.newest: Record | None = None
        self.previous: Record | None = None
        self.repeated = 0
        self._recent = RecentValues()
        self._reader: EventReader | None = None
        self.conflated = 0
        self.filtered = 0
        self.connection: ConnectionEvent | None = None
        self.is_connected = False
        self.is_value_due = False
        self._connection_ms = -2  # Kafka's time stamp of the record of `connection`; before that of any record
        self.epochs = EpochFilter()

    def is_lost(self) -> bool:
        """Returns whether the gateway has lost the PV and no newer event has arrived, from another gateway perhaps."""
        return self.connection is not None and self.connection.state is PVState.DISCONNECTED

    def set_connection(self, event: ConnectionEvent, record: Record, outgoing: Outgoing) -> None:
        """Sets the connection, and adds its event for each watcher unless it was known.

        A record of a gateway that another one has replaced says nothing.
        """
        if not self.epochs.passes(record.headers):
            return
        event = replace(event, name=self.address.name, uri=self.address.uri)
        self._connection_ms = record.timestamp_ms
        if event == self.connection:
            return
        self.is_value_due = event.is_connected and (self.is_value_due or self.is_lost())
        self.connection, self.is_connected = event, event.is_connected
        for watcher in self.watchers:
            outgoing.setdefault(watcher, []).append(event)

    def _connect(self, record: Record, outgoing: Outgoing) -> None:
        """Sets the connection of a PV that has an event, unless it is older than the record of a loss.

        The deployed gateway publishes no connection records, and another gateway may have the PV still.
        """
        if record.timestamp_ms > self._connection_ms:
            address = self.address
            since = max(record.timestamp_ms, 0) * 1_000_000
            self.set_connection(ConnectionEvent(address.name, address.uri, PVState.CONNECTED, since), record, outgoing)

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

    def add(self, subscriber: SubscriberInput[Any], *, values: bool, connections: bool, records: bool = False) -> None:
        """Adds a subscriber of the updates, the connection, both, or the updates as runs of records."""
        self.subscribers = (*self.subscribers, subscriber)
        self.values = (*self.values, subscriber) if values else self.values
        self.readers = (*self.readers, subscriber) if records else self.readers
        self.watchers = (*self.watchers, subscriber) if connections else self.watchers
        self._set_newest_only()

    def remove(self, subscriber: SubscriberInput[Any]) -> None:
        """Removes a subscriber."""
        self.subscribers, self.values, self.readers, self.watchers = (
            tuple(other for other in each if other is not subscriber)
            for each in (self.subscribers, self.values, self.readers, self.watchers)
        )
        self._set_newest_only()

    def _set_newest_only(self) -> None:
        wanted = (*self.values, *self.readers)
        self.newest_only = bool(self.subscribers) and all(subscriber.newest_only for subscriber in wanted)

    def publish(self, record: Record, outgoing: Outgoing) -> None:
        """Adds an event for each subscriber, unless it repeats the last one, or an older one after newer ones.

        Of a PV that was lost, the first value is also added if it repeats the last one, for subscribers of both.

        The deployed gateway repeats an old value, after newer ones, when another client activates the PV. It differs
        from a clock that was set back: its bytes are those of an earlier event.
        """
        self.heard = True
        last, value = self.last, record.value
        headers = record.headers
        if last is not None and value == last.value and repeats(record, last):
            if self.is_value_due and self.epochs.passes(headers):
                self._publish_again(record, outgoing)
            return
        if not self.epochs.passes(headers):
            return
        names_protocol = headers and headers[-1][0] == PROTOCOL_HEADER  # such a gateway repeats newest values only
        if not names_protocol and self._recent.add(value) and last is not None and self._is_older(record, last):
            self.repeated += 1
            return
        if not self.is_connected:
            self._connect(record, outgoing)
        self.last, self.is_value_due = record, False
        if self.values:
            update = PVUpdate(self.address, record)
            for subscriber in self.values:
                items = outgoing.get(subscriber)
                if items is None:
                    outgoing[subscriber] = [update]
                else:
                    items.append(update)
        for reader in self.readers:
            runs = outgoing.setdefault(reader, [])
            if runs and runs[-1].address is self.address and not runs[-1].are_usual:
                runs[-1].records.append(record)
            else:
                runs.append(RecordRun(self.address, [record]))

    def _publish_again(self, record: Record, outgoing: Outgoing) -> None:
        """Adds the first value after a loss, which is the one before it, for subscribers that have seen the loss."""
        self.is_value_due = False
        update = PVUpdate(self.address, record)
        for subscriber in self.values:
            if subscriber in self.watchers:
                outgoing.setdefault(subscriber, []).append(update)

    def publish_run(self, records: Sequence[Record], outgoing: Outgoing) -> None:
        """Adds events that follow each other, like `publish` for each of them, but sooner in the usual case.

        That is: all have the same headers, no new epoch, and none repeats another one.
        """
        last = self.last
        headers = [record.headers for record in records]
        values = [value for record in records if (value := record.value) is not None]
        common = headers[0]
        if (
            last is None
            or not self.is_connected
            or self.is_value_due
            or headers.count(common) < len(headers)
            or not self.epochs.is_known(common)
            or len(values) < len(records)
        ):
            self._publish_singly(records, outgoing)
            return
        are_usual = has_usual_headers(common, self.address.protocol)
        read = self._read(values, records[0]) if self.readers and are_usual else None
        if not self._are_new(common, values, last, read):
            self._publish_singly(records, outgoing)
            return
        self.heard = True
        self.last = records[-1]
        if self.values:
            make = usual_updates if are_usual else _updates
            updates = make(self.address, records)
            for subscriber in self.values:
                outgoing.setdefault(subscriber, []).extend(updates)
        for reader in self.readers:
            run = RecordRun(self.address, list(records), are_usual=are_usual, read=read)
            outgoing.setdefault(reader, []).append(run)

    def _publish_singly(self, records: Iterable[Record], outgoing: Outgoing) -> None:
        for record in records:
            self.publish(record, outgoing)

    def _read(self, values: Sequence[bytes], first: Record) -> EventRun | None:
        """Reads all events together, while they are in the processor's cache; returns None where that is impossible."""
        size = len(values[0])
        if len(values) < _LEAST_READ or size * len(values) > _MOST_BYTES or len(set(map(len, values))) > 1:
            return None
        if self._reader is None:
            from k2eg_rx.protocol import EventReader  # noqa: PLC0415 - numpy is an extra, which columns need

            self._reader = EventReader(self.address)
        try:
            read = self._reader.read(values, first)
        except K2EGError:  # the record's event where a field was requested
            return None  # reported when it is delivered
        return read if read is not None and len(read) == len(values) else None

    def _are_new(self, headers: Headers, values: Sequence[bytes], last: Record, read: EventRun | None) -> bool:
        """Returns whether it is certain that none of several events repeats one before it; notes their values then."""
        if values[0] == last.value:
            return False
        names_protocol = headers and headers[-1][0] == PROTOCOL_HEADER  # such a gateway repeats newest values only
        if read is not None and self._is_later(read, last):
            if not names_protocol:
                self._recent.note(values)
            return True
        if names_protocol:
            return not any(map(eq, values, islice(values, 1, None)))
        return self._recent.add_new(values)

    def _is_later(self, read: EventRun, last: Record) -> bool:
        """Returns whether each event's EPICS time is after that of the one before it."""
        try:
            time = PVUpdate(self.address, last).timestamp
        except K2EGError:
            return False
        return time is not None and read.is_after(time)

    def _is_older(self, record: Record, other: Record) -> bool:
        """Returns whether an event's EPICS time is before that of another; decodes both, as it is rarely needed.

        Equal times decide nothing: a value may return within the resolution of an IOC's clock.
        """
        try:
            time, other_time = (PVUpdate(self.address, each).timestamp for each in (record, other))
        except K2EGError:  # undecodable, or the record's event where a field was requested
            return False  # reported when it is delivered
        return time is not None and other_time is not None and time < other_time

    def forget(self) -> None:
        """Forgets what was published, so that it is published again when it is read again."""
        self.last = None
        self._recent = RecentValues()

    def conflate(self, record: Record, touched: list[PVRoute]) -> None:
        """Replaces the batch's newest event; `publish_newest` has to follow.

        No update is made of the replaced events, as for a display that shows 10 of 100,000 events per second.
        """
        newest = self.newest
        before, value = newest or self.last, record.value
        is_repeat = before is not None and value == before.value and repeats(record, before)
        if is_repeat and not self.filtered and not (self.is_value_due and newest is None):
            self.heard = True
            return
        if newest is None:
            touched.append(self)
        else:
            self.conflated += 1
            self.previous = newest
        self.newest = record

    def publish_newest(self, outgoing: Outgoing) -> None:
        """Adds the batch's newest event for each subscriber."""
        newest, previous = self.newest, self.previous
        self.newest = self.previous = None
        if newest is None:
            return
        if previous is not None and self.epochs.passes(previous.headers) and not self.epochs.passes(newest.headers):
            newest = previous
            self.conflated -= 1
        elif previous is not None and newest.value in self._recent and self._is_older(newest, previous):
            newest = previous
            self.conflated -= 1
            self.repeated += 1
        conflated = self.conflated + self.filtered
        self.conflated = self.filtered = 0
        if conflated and self.last is not None and newest.value == self.last.value:
            self.last = None  # the value may have changed in between, so an equal one is no repetition
        self.publish(newest, outgoing)
        for subscriber in self.values if conflated else ():
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
