"""The state log in Kafka: a compacted topic that every gateway of a fleet follows from its beginning.

Thread safety: `KafkaStateLog` has a thread of its own, ``k2eg-gateway-state``, which owns the reader; entries and
results are handed over to the event loop thread, where all methods but `close` are called.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from typing import Protocol

from reactivex import abc

from k2eg_rx.concurrency import elapsed, join
from k2eg_rx.errors import TransportError
from k2eg_rx.gateway.fleet.entries import Entry
from k2eg_rx.gateway.runtime.event_loop import call_soon
from k2eg_rx.gateway.runtime.metrics import RateLimitedWarning
from k2eg_rx.gateway.runtime.options import GatewayOptions
from k2eg_rx.texts import get_logger
from k2eg_rx.transport import History, Partition, Record, RecordSink, Span, Transport

_log = get_logger(__name__)

_READ = 0.1  # seconds that a read waits for a record; a request to catch up waits as long
_LOCATE = 2.0  # seconds that Kafka may take to say where the topic begins and ends
_RETRY = 0.5  # seconds until a failed request is repeated
_LOOK = 5.0  # seconds between looks whether the topic is still the one that is read; a read does not say
_MISSING = 3  # looks that have to find no topic, or fewer partitions, before it counts as deleted


class StateTopicAdmin(Protocol):
    """Creates the topic. Methods block for a bounded time."""

    def create_compacted(self, topic: str, partitions: int, replication: int) -> str:
        """Creates a compacted topic if it does not exist; returns why Kafka refuses that, or ``""``.

        Raises:
            Exception: Kafka did not respond.
        """
        ...


class LogReader(Protocol):
    """Takes what is read of the log, on the event loop thread."""

    def on_entries(self, entries: Sequence[Entry]) -> None:
        """Takes entries, in order for each partition."""
        ...

    def on_rebuild(self) -> None:
        """The topic was deleted and is there again, empty: what is known has to be written again."""
        ...


class KafkaStateLog:
    """The state log of one gateway.

    Args:
        transport: The connection to Kafka.
        admin: Creates the topic.
        topic: Its name.
        partitions: Its number of partitions, if it has to be created.
        replication: Its replication factor, if it has to be created; 0 for the broker's default.

    Attributes:
        topic: See above.
        partitions: Its number of partitions, once `started`.
        started: Completes when all entries that were there were read; fails if Kafka refuses the topic.
        lag: Offsets that are left to read until the log is caught up with; 0 otherwise. Written by the own thread.
    """

    def __init__(
        self, transport: Transport, admin: StateTopicAdmin, topic: str, *, partitions: int, replication: int
    ) -> None:
        self.topic = topic
        self.partitions = partitions
        self.started: Future[None] = Future()
        self.lag = 0
        self._transport = transport
        self._admin = admin
        self._replication = replication
        self._sink: RecordSink = transport.sink()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._catching_up: deque[Callable[[], None]] = deque()  # the event loop thread adds, the own thread takes
        self._waiting: list[
            Callable[[], None]
        ] = []  # those taken, of the own thread; also while the topic is made anew
        self._problems = RateLimitedWarning(_log, "{} requests about the state topic failed")

    @classmethod
    def of(cls, transport: Transport, admin: StateTopicAdmin, options: GatewayOptions) -> KafkaStateLog | None:
        """Returns the state log that options ask for; None without one."""
        if not (options.state and options.create_topics):
            return None
        topic, partitions, replication = options.state_topic_name, options.state_partitions, options.state_replication
        return cls(transport, admin, topic, partitions=partitions, replication=replication)

    def start(self, scheduler: abc.SchedulerBase, reader: LogReader) -> None:
        """Starts to read; `reader` gets everything."""
        self._scheduler = scheduler
        self._reader = reader
        self._thread = threading.Thread(target=self._run, name="k2eg-gateway-state", daemon=True)
        self._thread.start()

    def append(
        self, partition: int, key: bytes, value: bytes | None, done: Callable[[TransportError | None], None]
    ) -> None:
        """Appends an entry; calls `done` on the event loop thread when Kafka has it, or with the error."""

        def on_delivery(error: TransportError | None) -> None:
            call_soon(self._scheduler, partial(done, error))

        try:
            self._sink.send(self.topic, value, key=key, partition=partition, on_delivery=on_delivery)
        except TransportError as error:
            on_delivery(error)

    def catch_up(self, done: Callable[[], None]) -> None:
        """Calls `done` on the event loop thread after all entries that are in the log now."""
        self._catching_up.append(done)

    def close(self, timeout: float) -> None:
        """Sends what is queued and stops reading. Any thread; idempotent."""
        self._closed.set()
        self._sink.close(timeout)
        if self._thread is not None:
            join(self._thread, timeout)

    def _run(self) -> None:
        rebuilding = False
        while not self._closed.is_set():
            history: History | None = None
            refusal = ""
            try:
                refusal = self._admin.create_compacted(self.topic, self.partitions, self._replication)
                if rebuilding:  # a producer that has seen the topic disappear refuses its partitions for minutes
                    old, self._sink = self._sink, self._transport.sink()
                    old.close(0.0)
                history = self._transport.history([self.topic])
                self._follow(history, refusal, rebuilding=rebuilding)
                if self._closed.is_set():
                    return
                rebuilding = True
                _log.error(
                    "state topic deleted: topic=%s; it is made anew from what the gateways know. Restore its ACLs and"
                    " settings; snapshots may skip numbers",
                    self.topic,
                )
            except Exception as error:
                if refusal and not self.started.done():
                    self._give_up(refusal)
                    return
                if not self._closed.is_set():
                    self._problems.count(f"topic={self.topic} error={error}")
            finally:
                if history is not None:
                    history.close()
            self._closed.wait(_RETRY)

    def _give_up(self, refusal: str) -> None:
        _log.error(
            "state topic refused, the gateway forgets its monitors when it ends, and must be the only one of its group:"
            " topic=%s error=%s; create it with cleanup.policy=compact and allow the gateway to read and write it, or"
            " set [gateway] state = no",
            self.topic,
            refusal,
        )
        self.started.set_exception(TransportError(refusal))

    def _follow(self, history: History, refusal: str, *, rebuilding: bool) -> None:
        """Reads until the topic is deleted, or the log is closed.

        Raises:
            TransportError: Kafka has refused to create the topic, and it does not exist or must not be read.
        """
        positions: dict[Partition, int] | None = None
        targets: dict[Partition, int] | None = None  # the offsets to reach until the log is caught up
        missing, suspicious, looked = 0, False, elapsed()
        while not self._closed.is_set():
            suspicious |= elapsed() >= looked + _LOOK
            if refusal and missing and positions is None:
                raise TransportError(refusal)
            if positions is None or suspicious or (targets is None and self._catching_up):
                asked = len(self._catching_up)  # what is asked later may be about later entries
                looked = elapsed()
                found = history.locate(0, None, _LOCATE)
                spans = found if found and all(place in found for place in positions or ()) else None
                missing = 0 if spans else missing + (found is not None)
                if missing >= _MISSING or (spans and positions and _is_another(positions, spans)):
                    return
                if not spans:
                    self._closed.wait(_RETRY)
                    continue
                suspicious = False
                if positions is None and rebuilding and len(spans) != self.partitions:
                    raise TransportError(f"the topic must have {self.partitions} partitions, got {len(spans)}")
                if positions is None:
                    self.partitions = len(spans)
                    positions = {place: span.begin for place, span in spans.items()}
                self._waiting += [self._catching_up.popleft() for _ in range(asked)]
                targets = {place: span.end for place, span in spans.items()}
            excerpt = history.read(positions, _READ) if targets is None or not _has_all(positions, targets) else None
            if excerpt is not None:
                suspicious = any(end < positions.get(place, 0) for place, end in excerpt.ends.items())
                entries = _advance(positions, excerpt.records)
                if entries:
                    call_soon(self._scheduler, partial(self._reader.on_entries, entries))
            if targets is not None:
                if excerpt is not None:  # compaction may have removed the records before an end
                    targets = {place: end for place, end in targets.items() if excerpt.ends.get(place, -1) < end}
                self.lag = sum(max(end - positions.get(place, 0), 0) for place, end in targets.items())
                if not self.lag:
                    self._on_caught_up(rebuilding=rebuilding)
                    targets, rebuilding = None, False

    def _on_caught_up(self, *, rebuilding: bool) -> None:
        with suppress(InvalidStateError):
            self.started.set_result(None)
        if rebuilding:
            call_soon(self._scheduler, self._reader.on_rebuild)
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            call_soon(self._scheduler, done)


def _is_another(positions: Mapping[Partition, int], spans: Mapping[Partition, Span]) -> bool:
    """Returns whether a topic is not the one that was read up to some positions: it was made anew."""
    return any(spans[place].end < position for place, position in positions.items())


def _has_all(positions: Mapping[Partition, int], targets: Mapping[Partition, int]) -> bool:
    return all(positions.get(place, 0) >= end for place, end in targets.items())


def _advance(positions: dict[Partition, int], records: Sequence[Record]) -> list[Entry]:
    """Returns the entries in records, and moves the positions after them."""
    entries: list[Entry] = []
    for record in records:
        positions[record.topic, record.partition] = record.offset + 1
        entry = Entry.of(record.partition, record.offset, record.key, record.value)
        if entry is not None:
            entries.append(entry)
    return entries
