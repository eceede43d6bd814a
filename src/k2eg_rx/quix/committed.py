"""What a program has committed to a topic, each record once at most: `committed_results`.

Thread safety: each subscription has a transport of its own; its poll thread queues records, and a pool of threads calls
the subscriber, one call at a time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import reactivex as rx
from reactivex import Observable, abc
from reactivex.disposable import Disposable

from k2eg_rx.arguments import instance, positive, text, topic_name
from k2eg_rx.concurrency import close_at_exit, current_runtime
from k2eg_rx.delivery import Dispatcher, SubscriberInput
from k2eg_rx.errors import WireError
from k2eg_rx.kafka import KafkaTransport
from k2eg_rx.settings import Settings, check_group_name
from k2eg_rx.transport import DecodeErrorCounter, Receiver, Record, SizeFilter, SourceClosedError, Transport, time_left

_CLOSE_TIMEOUT = 5.0  # seconds
_LONGEST_AGE = 86_400.0  # seconds: a result of yesterday says nothing about a machine


@dataclass(frozen=True)
class CommittedResult:
    """A record of a topic of results.

    Attributes:
        record: The record in Kafka.
    """

    record: Record = field(repr=False)

    @property
    def key(self) -> str:
        """The record's key as text; empty without."""
        return (self.record.key or b"").decode("utf-8", "replace")

    @cached_property
    def value(self) -> Any:
        """What the record's JSON denotes.

        Raises:
            WireError: It is no JSON. Such records are not emitted.
        """
        try:
            return json.loads(self.record.value or b"")
        except (ValueError, RecursionError) as error:
            raise WireError("undecodable", f"a result must be JSON: {error}") from error


def committed_results(
    settings: Settings, topic: str, group_name: str, *, max_age: float, transport: Transport | None = None
) -> Observable[CommittedResult]:
    """Returns the results that a program has committed to a topic, each once at most, to be put.

    Records of transactions that are aborted or not committed yet are not read. The group's offset is committed before a
    record is emitted, so that it is emitted once at most, whatever is killed. What was committed and not emitted is
    lost, as with puts. The group begins at the topic's end, and then goes on where it has ended; of the results
    from a time without a reader it gets those that are not too old. The subscribers of a group share the partitions.

    Args:
        settings: The environment, such as `Client.settings`.
        topic: The topic.
        group_name: The consumer group that owns the right to act on the results.
        max_age: Seconds. Older results are left out, when they are about to be emitted; the first one is logged. Age
            counts from the record's Kafka time stamp, which quixstreams sets to a window's start.
        transport: The connection to the broker, for tests; by default Kafka.

    Emits:
        `CommittedResult`; records that are no JSON are left out, and the first one is logged.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> from k2eg_rx.operators import put_to
        >>> from k2eg_rx.quix import committed_results
        >>> from reactivex import operators as ops
        >>> def correct(client):
        ...     results = committed_results(client.settings, "corrections", "corrector", max_age=10.0)
        ...     numbers = results.pipe(ops.map(lambda result: result.value["mean"]))
        ...     return numbers.pipe(put_to(client, "pva://demo:corrector", limits=(-5.0, 5.0), rate=1.0))
    """
    instance(settings, "settings", Settings, "Settings of an environment")
    topic_name(topic)
    check_group_name(text(group_name, "group_name"))
    age = positive(max_age, "max_age", _LONGEST_AGE)

    def subscribe(
        observer: abc.ObserverBase[CommittedResult], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        reader = _Reader(settings, topic, group_name, age, transport)
        close_at_exit(reader)
        subscription = reader.stream.subscribe(observer, scheduler=scheduler)

        def dispose() -> None:
            subscription.dispose()
            reader.close()

        return Disposable(dispose)

    return rx.create(subscribe)


class _Reader(Receiver):
    """Reads the topic for one subscriber. Its parts do not change after the construction, but for the queue."""

    def __init__(self, settings: Settings, topic: str, group: str, max_age: float, transport: Transport | None) -> None:
        self._topic = topic
        self._max_age = max_age
        self._errors = DecodeErrorCounter()
        self._dispatcher = Dispatcher(self._check, self._errors.add, self._wake, current_runtime().executor())
        self._queue: SubscriberInput[CommittedResult] | None = None  # set before the source reads
        self._owns_transport = transport is None
        self._transport = transport or KafkaTransport(settings)
        limited = SizeFilter(self, settings.max_message_bytes, self._errors)
        self._source = self._transport.events(limited, group)
        self.stream = self._dispatcher.stream(self._attach, f"results in {topic}")

    def _attach(self, queue: SubscriberInput[CommittedResult]) -> abc.DisposableBase:
        self._queue = queue

        def started(reading: Future[None]) -> None:
            error = None if reading.cancelled() else reading.exception()
            if isinstance(error, Exception) and not isinstance(error, SourceClosedError):
                queue.finish(error)

        self._source.read(self._topic).add_done_callback(started)
        return Disposable()

    def ready(self) -> bool:
        """Whether the subscriber has room; further results stay in Kafka."""
        return self._dispatcher.gate.is_open()

    def commit_first(self, values: Sequence[bytes | None]) -> bool:  # noqa: ARG002
        """Every result may lead to a put, so that none may be received twice."""
        return True

    def receive(self, records: Sequence[Record]) -> None:
        """Queues a batch. Called on the poll thread."""
        if self._queue is not None:
            self._queue.offer([CommittedResult(record) for record in records])

    def _wake(self) -> None:
        self._source.wake()

    def _check(self, result: CommittedResult) -> None:
        """Decodes a result and checks its age; called right before it is emitted, as it may have waited for long."""
        age = time.time() - result.record.timestamp_ms / 1000
        if age > self._max_age:
            raise WireError("age", f"a result must be at most {self._max_age} s old (max_age), got {age:.1f} s")
        _ = result.value

    def close(self, timeout: float = _CLOSE_TIMEOUT) -> None:
        """Leaves the group and ends the threads, in at most `timeout` seconds. Idempotent."""
        deadline = time.monotonic() + timeout
        self._source.close(time_left(deadline))
        self._dispatcher.close(time_left(deadline))
        if self._owns_transport:
            self._transport.close(time_left(deadline))
