"""Reads retained records of topics, from a point in time on.

Thread safety: used by one thread, which makes the reader.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from k2eg_rx.kafka.connection.configuration import Properties
from k2eg_rx.kafka.connection.errors import ErrorTranslator, is_final, is_forbidden, is_gone, kafka_error
from k2eg_rx.kafka.connection.health import Health
from k2eg_rx.kafka.connection.librdkafka_log import librdkafka_log
from k2eg_rx.kafka.connection.reconnect import ConnectionWatchdog, close_in_background
from k2eg_rx.kafka.consumer.records import records_of
from k2eg_rx.texts import get_logger
from k2eg_rx.transport import Excerpt, Partition, Record, Span

_log = get_logger(__name__)

_T = TypeVar("_T")

# Records of one read. Live batches are smaller (128), to be decoded while they are in the processor's cache; these wait
# in the buffers of a merge, and fewer reads save checks of all partitions. A bisection ends within one read.
_LARGEST_BATCH = 500
_SINGLE_REQUESTS = 32  # topics requested one by one; for more, one request for all topics of the cluster is cheaper
_WAKE_TIMEOUT = 0.005  # seconds; the answer is not needed
_LOOKUP_TIMEOUT = 1.0  # seconds for the offsets of a partition, which take a few milliseconds
_LEAST_MARGIN = 16  # records
_EPOCH = 0  # earlier than every record: a broker that looks up times finds an offset for it


class KafkaHistory:
    """Reads retained records with its own consumer; a `History`.

    Args:
        topics: The topics.
        properties: The consumer's properties.
        health: Receives the consumer's errors.
        translator: Words errors.

    Raises:
        TransportError: A property is invalid.
    """

    def __init__(
        self, topics: Sequence[str], properties: Properties, health: Health, translator: ErrorTranslator
    ) -> None:
        self._topics = list(dict.fromkeys(topics))
        self._properties: Properties = {**properties, "error_cb": health.on_error}
        self._translator = translator
        self._watchdog = ConnectionWatchdog(health)
        self._next: dict[Partition, int] = {}  # assigned partitions, with the next offset
        self._paused: set[Partition] = set()
        self._floors: dict[Partition, int] = {}  # where retention has overtaken the reader: the next offset at least
        self._margins: dict[Partition, int] = {}  # records to skip when it does so again
        self._searched: dict[tuple[Partition, int], tuple[int, int]] = {}  # the offsets between which a time is
        self._logged: set[int] = set()
        self._consumer = self._make_consumer()

    def _make_consumer(self) -> Consumer:
        try:
            return Consumer(self._properties, logger=librdkafka_log)
        except KafkaException as failure:
            raise self._translator.error(failure, "cannot start a Kafka consumer") from failure

    def _replace_if_disconnected(self) -> None:
        """Replaces a consumer that has lost its brokers; the new one continues at the same offsets."""
        if self._topics and self._watchdog.is_disconnected(self._consumer, self._topics[0]):
            _log.info("history consumer has lost its brokers; replacing it")
            close_in_background(self._consumer)
            self._consumer = self._make_consumer()
            self._next.clear()
            self._paused.clear()

    def locate(self, start_ms: int, stop_ms: int | None, timeout: float) -> Mapping[Partition, Span] | None:
        """Returns the offsets of a time interval; see `History.locate`."""
        spans = self._spans(start_ms, stop_ms, time.monotonic() + timeout)
        if spans is None:
            if not self._next:  # with an assignment, poll could return a record
                self._consumer.poll(0)  # runs the error callback, which reports why there is no answer
            self._replace_if_disconnected()
        return spans

    def _spans(self, start_ms: int, stop_ms: int | None, deadline: float) -> Mapping[Partition, Span] | None:
        partitions = self._partitions(deadline)
        if partitions is None:
            return None
        firsts = self._offsets(partitions, OFFSET_BEGINNING, deadline)
        ends = self._offsets(partitions, OFFSET_END, deadline)
        if firsts is None or ends is None:
            return None
        filled = [partition for partition in partitions if firsts.get(partition, 0) < ends.get(partition, 0)]
        starts = self._starts(filled, start_ms, firsts, ends, deadline)
        stops = ends if stop_ms is None else self._offsets_at(filled, stop_ms, ends, deadline)
        if starts is None or stops is None:
            return None
        spans: dict[Partition, Span] = {}
        for partition, end in ends.items():
            start = starts.get(partition, end)
            spans[partition] = Span(start, max(start, stops.get(partition, end)))
        return spans

    def _starts(
        self,
        partitions: Sequence[Partition],
        time_ms: int,
        firsts: Mapping[Partition, int],
        ends: Mapping[Partition, int],
        deadline: float,
    ) -> Mapping[Partition, int] | None:
        """Returns the first offsets at a time. The mock cluster does not look up times: it finds none at all."""
        starts = self._offsets_at(partitions, time_ms, ends, deadline)
        late = [] if starts is None else [partition for partition in partitions if starts[partition] >= ends[partition]]
        known = self._offsets(late[:1], _EPOCH, deadline)
        if starts is None or known is None:
            return None
        if not late or known.get(late[0], -1) >= 0:
            return starts
        searched = self._search(late, time_ms, firsts, ends, deadline)
        return None if searched is None else {**starts, **searched}

    def _search(
        self,
        partitions: Sequence[Partition],
        time_ms: int,
        firsts: Mapping[Partition, int],
        ends: Mapping[Partition, int],
        deadline: float,
    ) -> dict[Partition, int] | None:
        """Returns the first offsets at a time, or slightly earlier ones, for a broker that does not look up times.

        Bisects by the time stamps of single records: a dozen for an hour of a fast PV; the next call continues a search
        that took too long. Uses another consumer, since the records fetched on the way are not to be read.
        """
        found = {place: firsts[place] for place in partitions}
        long = [place for place in partitions if ends[place] - firsts[place] > _LARGEST_BATCH]
        if not long:
            return found
        probe = self._make_consumer()
        try:
            for place in long:
                low, high = self._searched.get((place, time_ms), (firsts[place], ends[place]))
                low, high = _bisect(probe, place, time_ms, (max(low, firsts[place]), high), deadline)
                self._searched[place, time_ms] = low, high
                if high - low > _LARGEST_BATCH:
                    return None
                found[place] = low
        finally:
            probe.close()
        return found

    def _offsets_at(
        self, partitions: Sequence[Partition], time_ms: int, ends: Mapping[Partition, int], deadline: float
    ) -> dict[Partition, int] | None:
        """Returns the first offsets at a time; the end offset if all records are earlier."""
        found = self._offsets(partitions, max(time_ms, _EPOCH), deadline)
        if found is None:
            return None
        late = {partition: ends[partition] for partition in partitions if found.get(partition, -1) < 0}
        return found | late

    def _partitions(self, deadline: float) -> list[Partition] | None:
        """Returns all partitions of the existing topics; None if no broker answers."""
        questions = [(topic,) for topic in self._topics] if len(self._topics) <= _SINGLE_REQUESTS else [()]
        partitions: list[Partition] = []
        for request in questions:
            known = self._request(
                lambda *topic: self._consumer.list_topics(*topic, timeout=_seconds_left(deadline)), *request
            )
            if known is None:
                return None
            for topic in request or self._topics:
                metadata = known.topics.get(topic)
                error = metadata.error if metadata is not None else None
                if error is not None and not is_gone(error):
                    self._raise_if_final(error, topic)
                    return None
                if metadata is not None and error is None:
                    partitions.extend((topic, number) for number in metadata.partitions)
        return partitions

    def _offsets(self, partitions: Collection[Partition], at: int, deadline: float) -> dict[Partition, int] | None:
        """Returns the offsets at a time (ms), or OFFSET_BEGINNING or OFFSET_END; None if some are unknown."""
        asked = [TopicPartition(topic, number, at) for topic, number in partitions]
        if not asked:
            return {}
        found = self._request(lambda: self._consumer.offsets_for_times(asked, timeout=_seconds_left(deadline)))
        if found is None:
            return None
        offsets: dict[Partition, int] = {}
        for answer in found:
            if answer.error is None:
                offsets[answer.topic, answer.partition] = answer.offset
            elif not is_gone(answer.error):
                self._raise_if_final(answer.error, answer.topic)
                return None
        return offsets

    def _request(self, request: Callable[..., _T], *arguments: str) -> _T | None:
        try:
            return request(*arguments)
        except KafkaException as failure:
            self._raise_if_final(kafka_error(failure), "")
            return None

    def _raise_if_final(self, error: KafkaError, topic: str) -> None:
        if is_final(error) or is_forbidden(error):
            raise self._translator.error(error, f"reading the history of {topic or 'topics'}", topic)
        _log.debug("no answer about history: topic=%s error=%s", topic, error)

    def read(self, wanted: Mapping[Partition, int], timeout: float) -> Excerpt:
        """Returns a batch of records; see `History.read`."""
        try:
            self._assign({place: max(offset, self._floors.get(place, offset)) for place, offset in wanted.items()})
            first = self._consumer.poll(timeout)
            messages = [] if first is None else [first, *self._consumer.consume(_LARGEST_BATCH - 1, 0)]
        except KafkaException as failure:
            self._raise_if_final(kafka_error(failure), "")
            messages = []
        if not messages:
            self._replace_if_disconnected()
            return Excerpt((), {})
        ends: dict[Partition, int] = {}
        for message in messages:
            if (error := message.error()) is not None:
                self._handle_error(error, message, ends)
        return Excerpt(self._without_repeats(records_of(messages)), ends)

    def _assign(self, wanted: Mapping[Partition, int]) -> None:
        """Assigns, pauses and resumes partitions so that only the wanted ones are read.

        A pause discards the records fetched of a partition; callers read many records before they pause one.
        """
        moved = [partition for partition, offset in wanted.items() if self._next.get(partition, offset) != offset]
        if moved:
            self._consumer.incremental_unassign(_topic_partitions(moved))
            self._paused.difference_update(moved)
            for partition in moved:
                del self._next[partition]
        new = {partition: offset for partition, offset in wanted.items() if partition not in self._next}
        if new:
            self._consumer.incremental_assign([TopicPartition(*partition, offset) for partition, offset in new.items()])
            self._next.update(new)
        idle = [partition for partition in self._next if partition not in wanted and partition not in self._paused]
        if idle:
            self._consumer.pause(_topic_partitions(idle))
            self._paused.update(idle)
        again = [partition for partition in self._paused if partition in wanted]
        if again:
            self._consumer.resume(_topic_partitions(again))
            self._paused.difference_update(again)
        if new or again:
            self._wake_fetchers([*new, *again])

    def _wake_fetchers(self, partitions: Iterable[Partition]) -> None:
        """Makes librdkafka fetch at once. Its broker threads check for partitions to fetch once a second, or when
        they have another request to send: here, one for end offsets."""
        with contextlib.suppress(KafkaException):
            self._consumer.offsets_for_times(
                [TopicPartition(*place, OFFSET_END) for place in partitions], timeout=_WAKE_TIMEOUT
            )

    def _handle_error(self, error: KafkaError, message: Message, ends: dict[Partition, int]) -> None:
        topic, number = message.topic() or "", message.partition()
        if error.code() == KafkaError._PARTITION_EOF and number is not None:
            ends[topic, number] = message.offset() or 0
        elif error.code() == KafkaError._AUTO_OFFSET_RESET and number is not None:
            self._continue_behind_deleted((topic, number), ends)
        elif is_gone(error):
            ends.update((partition, 0) for partition in self._next if partition[0] == topic)
        else:
            self._raise_if_final(error, topic)
            if error.code() not in self._logged:
                self._logged.add(error.code())
                _log.warning("%s", self._translator.error(error, f"reading the history of {topic or 'topics'}", topic))

    def _continue_behind_deleted(self, partition: Partition, ends: dict[Partition, int]) -> None:
        """Continues with the oldest record after retention has removed the next one.

        The embedded broker removes a record for each new one. If that is faster than a request, the oldest record is
        always gone when it is asked for; so more and more records are skipped until one arrives.
        """
        deadline = time.monotonic() + _LOOKUP_TIMEOUT
        first, end = (self._offsets([partition], at, deadline) for at in (OFFSET_BEGINNING, OFFSET_END))
        position = self._next.pop(partition, None)
        if position is None:
            return
        self._consumer.incremental_unassign(_topic_partitions([partition]))
        self._paused.discard(partition)
        if not first or not end:
            return  # assigned again, and refused again, by the next read
        if position >= end[partition]:
            ends[partition] = end[partition]  # the log was truncated, or the topic created again
            return
        margin = self._margins.get(partition, 0)
        self._margins[partition] = max(_LEAST_MARGIN, 4 * margin)
        self._floors[partition] = min(first[partition] + margin, end[partition])
        _log.debug("history was removed while it was read: partition=%s skipped=%d", partition, margin)

    def _without_repeats(self, records: Sequence[Record]) -> list[Record]:
        """Returns the records that were not read before: a pause may repeat some."""
        new: list[Record] = []
        for record in records:
            partition = record[:2]
            if record.offset >= self._next.get(partition, record.offset):
                self._next[partition] = record.offset + 1
                new.append(record)
        for partition in self._margins.keys() & {record[:2] for record in new}:
            del self._margins[partition]
        return new

    def close(self) -> None:
        """Closes the consumer. Idempotent."""
        try:
            self._consumer.close()
        except (KafkaException, RuntimeError) as failure:  # closed already, or unusable
            _log.debug("closing the history consumer failed: error=%s", failure)


def _bisect(
    probe: Consumer, place: Partition, time_ms: int, between: tuple[int, int], deadline: float
) -> tuple[int, int]:
    """Returns the offsets between which a time is: a batch apart, or further if the deadline has passed."""
    low, high = between
    while high - low > _LARGEST_BATCH and time.monotonic() < deadline:
        middle = (low + high) // 2
        probe.assign([TopicPartition(*place, middle)])
        message = probe.poll(_seconds_left(deadline))
        if message is None:
            break
        if (error := message.error()) is not None:
            if error.code() != KafkaError._AUTO_OFFSET_RESET:
                continue  # the next poll asks again
            low = middle + 1  # retention has removed it
        elif message.timestamp()[1] < time_ms:
            low = min((message.offset() or 0) + 1, high)
        else:
            high = middle
    return low, high


def _topic_partitions(partitions: Iterable[Partition]) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for topic, number in partitions]


def _seconds_left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())  # librdkafka waits without limit for 0 or less
