"""Poll loop: owns a consumer, reads batches of records and passes them to a `Receiver`.

During floods the subscribers are called on the poll thread itself; if they take long, another thread resumes polling
(see `Handoff`). *Poll thread* means the thread that runs the loop at the moment.

Thread safety: only the poll thread uses the consumer; other threads queue actions by `PollLoop.queue`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from k2eg_rx.concurrency import Handoff
from k2eg_rx.errors import TransportError
from k2eg_rx.kafka.connection.configuration import Properties
from k2eg_rx.kafka.connection.errors import ErrorTranslator, is_forbidden, is_gone
from k2eg_rx.kafka.connection.health import Health, Permission
from k2eg_rx.kafka.connection.librdkafka_log import ConsumerLog
from k2eg_rx.kafka.connection.reconnect import ConnectionWatchdog, close_in_background
from k2eg_rx.kafka.consumer.lag import INTERVAL, Lag, Partition
from k2eg_rx.kafka.consumer.leveling import Leveling
from k2eg_rx.kafka.consumer.lost_positions import LostPosition, StoppedPartitions
from k2eg_rx.kafka.consumer.records import records_of
from k2eg_rx.texts import get_logger
from k2eg_rx.transport import Receiver, Record, Span

_log = get_logger(__name__)

Action = Callable[[Consumer], None]

LARGEST_BATCH = 128  # records; larger batches exceed the processor's cache and cost twice as much per record
LARGEST_CONFLATED_BATCH = 512  # records, while conflation drops most of a batch unread
_SMALL_BATCH = 32  # records, about 0.15 ms of work before other threads may run
_SMALL_BATCH_PAUSE = 0.001  # seconds between small batches of a flood, about the duration of a request
# Seconds that a poll waits for a record, which delays queued actions. Actions come in bursts, when a program starts and
# subscribes: polls are short meanwhile.
POLL_TIMEOUT = 0.02  # 50 wake-ups a second
IDLE_POLL_TIMEOUT = 0.1  # for consumers without actions after their start
_BURST_POLL_TIMEOUT = 0.005
_BURST_SECONDS = 2.0  # seconds after an action in which another is likely
_FLOOD_SIZE = _SMALL_BATCH  # messages in a batch from which more are likely to wait, and work is run inline
_SINGLE_REQUESTS = 32  # topics whose metadata is requested one by one; for more, one request for all topics


class PollLoopListener(Protocol):
    """Receives the findings of a poll loop, on its thread."""

    def on_topic_missing(self, topic: str) -> None:
        """A subscribed topic is not found; it may be a mistake."""
        ...

    def on_partition_count(self, topic: str, partitions: int) -> None:
        """A subscribed topic has another number of partitions; 0 if it was deleted."""
        ...

    def on_position_lost(self, topic: str, partition: int) -> None:
        """The record at the position in a partition does not exist; `PollLoop.relocate` continues."""
        ...

    def on_failed(self, error: TransportError) -> None:
        """The consumer could not be made; nothing will be read."""
        ...


class PollLoop:
    """Reads for one receiver; actions assign the partitions.

    Args:
        name: The threads' name.
        properties: The consumer's properties.
        receiver: Receives the records.
        listener: Receives missing topics, changed partition counts and a final error.
        health: Receives the consumer's errors.
        translator: Words errors.
        poll_timeout: Seconds that a poll waits, except in bursts of actions.
    """

    is_member = False  # of its consumer group

    def __init__(
        self,
        name: str,
        properties: Properties,
        *,
        receiver: Receiver,
        listener: PollLoopListener,
        health: Health,
        translator: ErrorTranslator,
        poll_timeout: float = POLL_TIMEOUT,
    ) -> None:
        self._default_poll_timeout = poll_timeout
        self._burst_until = time.monotonic() + _BURST_SECONDS
        self._properties: Properties = {**properties, "error_cb": health.on_error, "throttle_cb": health.on_throttle}
        self._receiver = receiver
        self._listener = listener
        self._health = health
        self._translator = translator
        self._actions: deque[Action] = deque()
        self._signal = threading.Event()
        self._closing = False
        self._deadline = 0.0
        self._logged: set[tuple[str, int]] = set()
        self.lag = Lag()
        self._stopped = StoppedPartitions()
        self.leveling = Leveling()
        self._watchdog = ConnectionWatchdog(health)
        self._consumer: Consumer | None = None
        self._max_batch = LARGEST_BATCH
        self._more_expected = False  # whether more records are likely to wait
        self._handoff = Handoff(name, self._run)

    def start(self) -> None:
        """Starts the thread, which makes the consumer."""
        self._handoff.start()

    def queue(self, action: Action) -> None:
        """Runs an action with the consumer on the poll thread, in the order queued."""
        self._actions.append(action)
        self._signal.set()

    def wake(self) -> None:
        """Checks again whether the receiver is ready."""
        self._signal.set()

    def close(self, timeout: float) -> None:
        """Closes the consumer and waits for it, unless called on the poll thread. Idempotent."""
        self._deadline = time.monotonic() + timeout
        self._closing = True
        self._signal.set()
        self._handoff.join(timeout)

    def _run(self) -> None:
        if self._consumer is None:
            try:
                self._consumer = self._make()
            except KafkaException as failure:
                self._listener.on_failed(self._translator.error(failure, "cannot start a Kafka consumer"))
                return
        consumer = self._consumer
        try:
            while not self._closing and self._handoff.has_turn():
                try:
                    self._step(consumer)
                    if self._handoff.has_turn() and self._is_disconnected(consumer):
                        consumer = self._consumer = self._replace(consumer)
                except KafkaException as failure:
                    _log.warning("%s", self._translator.error(failure, "reading from Kafka"))
                    self._signal.wait(1.0)  # limits the rate of retries and of log lines
        finally:
            if self._handoff.has_turn():
                self._leave(consumer)

    def _make(self) -> Consumer:
        return Consumer(self._properties, logger=ConsumerLog(self._listener.on_partition_count))

    def _is_disconnected(self, consumer: Consumer) -> bool:
        if not self._watchdog.is_due():
            return False
        topic = next(iter(self._topics_read()), "")
        return bool(topic) and self._watchdog.is_disconnected(consumer, topic)

    def _topics_read(self) -> Iterable[str]:
        return (topic for topic, _ in self.lag.starts)

    def _replace(self, consumer: Consumer) -> Consumer:
        _log.warning("consumer has lost its brokers, which answer other clients; replacing it")
        new = self._make()
        self.leveling = Leveling()  # nothing is paused in the new one
        self._resume_on(new, consumer)
        self._abandon(consumer)
        return new

    def _abandon(self, consumer: Consumer) -> None:
        """Closes a consumer in the background."""
        close_in_background(consumer)

    def _resume_on(self, new: Consumer, old: Consumer) -> None:
        """Assigns the partitions to a new consumer, at the positions of the old one."""
        new.incremental_assign(self._positions(old))

    def _positions(self, consumer: Consumer) -> list[TopicPartition]:
        """Returns the positions of the partitions that are read, with the leader epochs of the last records."""
        return self._positions_of(consumer, self.lag.starts)

    def _positions_of(self, consumer: Consumer, partitions: Iterable[Partition]) -> list[TopicPartition]:
        starts = self.lag.starts
        return [
            at if at.offset >= 0 else TopicPartition(at.topic, at.partition, starts[at.topic, at.partition])
            for at in consumer.position([TopicPartition(*partition) for partition in partitions])
        ]

    def _leave(self, consumer: Consumer) -> None:
        with contextlib.suppress(KafkaException):
            consumer.close()

    def _step(self, consumer: Consumer) -> None:
        if self._signal.is_set():
            self._signal.clear()
        self._do_actions(consumer)
        if self.lag.refresh(consumer) and not self.is_member:
            self.leveling.update(consumer, self.lag)
        if not self._is_ready():
            self._wait_until_ready(consumer)
            return
        if self._more_expected and self._receiver.prefer_small_batches():
            time.sleep(_SMALL_BATCH_PAUSE)
        messages = self._fetch(consumer)
        if messages and self._actions:
            self._do_actions(consumer)
            messages = [message for message in messages if self._is_read(message)]
        if not messages:
            return
        work = (
            self._receiver.collect_inline() if len(messages) >= _FLOOD_SIZE and self._handoff.may_run_inline() else None
        )
        try:
            self._process(consumer, messages)
        finally:
            if work is not None:
                self._handoff.run_inline(work)  # last, since another thread may poll afterwards

    def _is_read(self, message: Message) -> bool:
        """Whether a message is wanted: its topic may have been released, and subscribed again at a later offset."""
        start = self.lag.starts.get((message.topic() or "", message.partition() or 0))
        return message.error() is not None or (start is not None and (message.offset() or 0) >= start)

    def _do_actions(self, consumer: Consumer) -> None:
        while self._actions:
            self._burst_until = time.monotonic() + _BURST_SECONDS
            action = self._actions.popleft()
            try:
                action(consumer)
            except KafkaException as failure:
                _log.error("%s", self._translator.error(failure, "changing what is read"))
            except Exception:  # of this action only; the thread reads for all topics
                _log.exception("changing what is read failed")

    def _is_ready(self) -> bool:
        try:
            return self._receiver.ready()
        except Exception:
            _log.exception("receiver raised in ready")
            return True  # records must not pile up for a broken receiver

    def _wait_until_ready(self, _consumer: Consumer) -> None:
        """Waits for the receiver, an action, or the next lag measurement. Kafka and the prefetch keep the records."""
        self._signal.wait(INTERVAL)

    def _fetch(self, consumer: Consumer) -> list[Message]:
        """Fetches the messages that are available. Waiting for more than one would delay the first."""
        messages = consumer.consume(self._batch_size(), 0) if self._more_expected else []
        if not messages and (first := consumer.poll(self._poll_timeout())) is not None:
            messages = [first, *consumer.consume(self._batch_size() - 1, 0)]
        self._more_expected = len(messages) >= _FLOOD_SIZE
        return messages

    def _batch_size(self) -> int:
        return _SMALL_BATCH if self._receiver.prefer_small_batches() else self._max_batch

    def _poll_timeout(self) -> float:
        return _BURST_POLL_TIMEOUT if time.monotonic() < self._burst_until else self._default_poll_timeout

    def _process(self, consumer: Consumer, messages: Sequence[Message]) -> None:
        messages = self._conflated(messages)
        records = records_of(messages)
        if len(records) < len(messages):
            self._handle_errors(consumer, [message for message in messages if message.error() is not None])
        if records:
            self._deliver(records)
            if self.leveling.is_active:
                self.leveling.add(consumer, records)

    def _conflated(self, messages: Sequence[Message]) -> Sequence[Message]:
        self._max_batch = LARGEST_BATCH
        conflation_filter = self._receiver.conflation_filter() if len(messages) > 1 else None
        if conflation_filter is None:
            return messages
        keys = [message.key() for message in messages]  # errors have none, so that they are kept
        wanted = conflation_filter(keys, lambda number: len(messages[number]))
        if wanted is None:
            return messages
        left = [messages[number] for number in wanted]
        if len(left) * 4 < len(messages):
            self._max_batch = LARGEST_CONFLATED_BATCH
        return left

    def _deliver(self, records: Sequence[Record]) -> None:
        try:
            self._receiver.receive(records)
        except Exception:
            _log.exception("receiver raised: records=%d first=%s", len(records), records[0][:3])

    def _handle_errors(self, consumer: Consumer, messages: Sequence[Message]) -> None:
        for message in messages:
            error, topic, partition = message.error(), message.topic() or "", message.partition()
            if error is None:
                continue
            if is_gone(error):
                self._listener.on_topic_missing(topic)
            elif error.code() == KafkaError._AUTO_OFFSET_RESET and partition is not None:
                self._on_position_lost(consumer, (topic, partition), LostPosition.of(message))
            elif is_forbidden(error):
                self._forbid(error, topic)
            elif (topic, error.code()) not in self._logged:
                self._logged.add((topic, error.code()))
                _log.warning("%s", self._translator.error(error, f"reading {topic or 'from Kafka'}", topic))

    def _forbid(self, error: KafkaError, topic: str) -> None:
        if not topic and not self.is_member:
            return  # librdkafka looks for a coordinator even if no group is joined
        group = "" if topic else str(self._properties["group.id"])
        reason = self._translator.reason(error, topic, group)
        _log.warning("%s", reason)
        self._health.forbid(Permission(topic or group, is_group=not topic), reason, required=not topic)

    def released(self, topic: str) -> None:
        """Drops a missing permission for a topic that was released."""
        self._health.allow(Permission(topic))

    def _on_position_lost(self, consumer: Consumer, partition: Partition, lost: LostPosition | None) -> None:
        if partition not in self.lag.starts:
            return
        (at,) = self._positions_of(consumer, [partition])
        lost = lost or LostPosition(at.offset)
        if self._stopped.add(partition, lost, at.offset):
            self._listener.on_position_lost(*partition)

    def relocate(self, consumer: Consumer, partition: Partition, held: Span) -> None:
        """Continues a partition whose position was lost, given the offsets that its log holds.

        Has no effect on a partition that was released or assigned anew meanwhile.
        """
        lost = self._stopped.take(partition)
        if lost is not None:
            _log.warning("%s", lost.warning(partition, held))
            self._restart_partition(consumer, TopicPartition(*partition, lost.continuation(held)))

    def _restart_partition(self, consumer: Consumer, partition: TopicPartition) -> None:
        """Restarts a partition at another offset. librdkafka stops it after a failed reset, so `seek` fails."""
        self.lag.add([partition])
        self.leveling.forget(consumer, [partition])
        consumer.incremental_unassign([partition])
        consumer.incremental_assign([partition])

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """Removes partitions that are no longer read."""
        self._stopped.forget(partitions)
        self.lag.remove(partitions)

    def refresh_metadata(self, consumer: Consumer, topics: Collection[str]) -> None:
        """Makes librdkafka look for the leaders of topics at once, instead of within a second.

        A request without time for its answer suffices: librdkafka processes the answer when it comes.
        """
        for question in [(topic,) for topic in topics] if len(topics) <= _SINGLE_REQUESTS else [()]:
            with contextlib.suppress(KafkaException):
                consumer.list_topics(*question, timeout=0)
