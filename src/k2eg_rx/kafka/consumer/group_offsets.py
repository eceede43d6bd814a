"""Offsets of a consumer group: commits, committed offsets, and initial offsets of partitions not read before.

The first member that subscribes to a topic commits the initial offsets, for whichever member is assigned the
partitions. Members that subscribe at about the same time may have resolved different offsets: the lowest counts until a
member has read on. Metadata marks a commit as an initial offset.

Thread safety: used by the thread that owns the consumer.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from queue import Empty, SimpleQueue

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from k2eg_rx.kafka.connection.errors import kafka_error
from k2eg_rx.kafka.consumer.lag import Partition
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

# Errors of a commit while the group rebalances. The second: Kafka answers a member's requests in order, so a commit
# after a request to join waits until all members have joined, and then belongs to a generation that is over.
REBALANCE_ERRORS = frozenset({KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION})

# Errors of a coordinator that may answer later.
_NO_ANSWER = frozenset(
    {
        KafkaError._TIMED_OUT,
        KafkaError._WAIT_COORD,
        KafkaError._TRANSPORT,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
    }
)

COMMIT_TIMEOUT = 15.0  # seconds for a commit; without a coordinator it usually fails after a session
_COORDINATOR_TIMEOUT = 10.0  # seconds to wait for the group's committed offsets after an assignment
COMMITTED_TIMEOUT = 5.0  # seconds; the whole group waits for a member that is being assigned partitions
# Seconds that a rebalance or a coordinator without an answer may delay the commit of initial offsets: longer than a
# session (45 s), for which a group waits for a member that was killed.
PATIENCE = 60.0
# Seconds for another member to commit offset 0: one that has waited for the topic looks for it once a second and reads
# it from its beginning, while a member that starts later finds it at once, with its first records in it.
GRACE = 1.2
# The same while all records of a topic are younger than this: the other member, if there is one, has yet to find the
# topic, and may be on a busy machine. Its records are lost if this one commits before it.
GRACE_OF_NEW = 10.0
RETRY = 0.1  # seconds between attempts to commit
_LOOK_UP_TIMEOUT = 1.0  # seconds that records may wait for an answer about initial offsets, which is requested again
_START = "start"  # metadata of a committed initial offset, until a member has read on

Commit = Callable[[Consumer, Iterable[tuple[Partition, int]], str], KafkaError | None]


def partition_of(partition: TopicPartition) -> Partition:
    """Returns the topic and number of a partition."""
    return partition.topic, partition.partition


def topic_partitions(offsets: Iterable[tuple[Partition, int]], metadata: str = "") -> list[TopicPartition]:
    """Returns offsets in the form that librdkafka takes."""
    return [TopicPartition(topic, partition, offset, metadata) for (topic, partition), offset in offsets]


class Committer:
    """Commits offsets of one consumer on a thread of its own, ``k2eg-commit``.

    librdkafka's commit waits without limit. If the consumer loses its coordinator meanwhile, it may never return (seen
    with 2.16.1, in a restart of the only broker), and the thread that polls would do nothing any more.

    Attributes:
        is_stuck: Whether a commit did not return in time. Nothing is committed any more.
    """

    def __init__(self) -> None:
        self.is_stuck = False
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def commit(self, consumer: Consumer, offsets: list[TopicPartition]) -> KafkaError | None:
        """Commits offsets and waits for the coordinator, as `commit`. Not in a rebalance callback."""
        if self.is_stuck:
            return KafkaError(KafkaError._TIMED_OUT)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="k2eg-commit", daemon=True)
            self._thread.start()
        result: SimpleQueue[KafkaError | None] = SimpleQueue()
        self._calls.put(lambda: result.put(commit(consumer, offsets)))
        try:
            return result.get(timeout=COMMIT_TIMEOUT)
        except Empty:
            self.is_stuck = True
            _log.warning("a commit did not return within %g s, the consumer is replaced", COMMIT_TIMEOUT)
            return KafkaError(KafkaError._TIMED_OUT)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    def close(self) -> None:
        """Ends the thread, after a commit that has not returned yet. Idempotent."""
        self._calls.put(None)

    def join(self) -> None:
        """Waits until the thread has ended after `close`. Any thread."""
        if self._thread is not None:
            self._thread.join()


def commit(consumer: Consumer, offsets: list[TopicPartition]) -> KafkaError | None:
    """Commits offsets and waits for the coordinator; returns the error, if any."""
    if not offsets:
        return None
    try:
        committed: list[TopicPartition] | None = consumer.commit(offsets=offsets, asynchronous=False)
        error = next((partition.error for partition in committed or () if partition.error is not None), None)
    except KafkaException as failure:
        error = kafka_error(failure)
    except RuntimeError:  # closed meanwhile
        error = KafkaError(KafkaError._DESTROY)
    if error is not None:
        _log.info("commit failed: error=%s", error)
    return error


def fetch_committed(
    consumer: Consumer, partitions: list[TopicPartition], gives_up: Callable[[], bool]
) -> list[TopicPartition] | None:
    """Returns the group's committed offsets; None if the coordinator, which may be moving, does not answer."""
    deadline = time.monotonic() + _COORDINATOR_TIMEOUT
    while True:
        try:
            committed = consumer.committed(partitions, timeout=COMMITTED_TIMEOUT)
            failure = next((partition.error for partition in committed if partition.error is not None), None)
            if failure is None:
                return committed
        except KafkaException as raised:
            failure = raised
        _log.info("committed offsets not known yet: error=%s", failure)
        if gives_up() or time.monotonic() > deadline:
            return None
        time.sleep(RETRY)


def _has_new(consumer: Consumer, partitions: Iterable[Partition]) -> bool:
    """Whether all records of one of the partitions, which have some, are younger than `GRACE_OF_NEW`."""
    since = round((time.time() - GRACE_OF_NEW) * 1000)
    try:
        found = consumer.offsets_for_times([TopicPartition(*key, since) for key in partitions], _LOOK_UP_TIMEOUT)
    except KafkaException as failure:
        _log.debug("age of topics not known: error=%s", failure)
        return True
    return any(partition.error is None and partition.offset == 0 for partition in found)


class InitialOffsets:
    """The initial offsets that one member has resolved.

    Args:
        commit: Commits offsets with metadata; returns the error, if any.
    """

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._offsets: dict[Partition, int] = {}
        self._uncommitted: dict[Partition, int] = {}
        self._since: float | None = None  # the first attempt to commit, by the monotonic clock
        self._next_try = 0.0

    def add(self, offsets: Mapping[Partition, int]) -> None:
        """Adds the initial offsets of a topic."""
        self._offsets.update(offsets)
        self._uncommitted.update(offsets)

    def drop(self, topic: str) -> None:
        """Removes a topic."""
        for offsets in (self._offsets, self._uncommitted):
            for key in [key for key in offsets if key[0] == topic]:
                del offsets[key]

    def ready_to_join(self, consumer: Consumer, *, joining: bool) -> bool:
        """Commits new offsets when due; returns whether the member may subscribe to their topics.

        Args:
            consumer: The member's consumer.
            joining: Whether the member is waiting for the group's next generation.
        """
        if not self._uncommitted:
            self._since = None
            return True
        now = time.monotonic()
        self._since = self._since or now
        waited = now - self._since
        if waited < PATIENCE:
            if joining or now < self._next_try:
                return False
            if not self.commit(consumer, waited=waited):
                self._next_try = time.monotonic() + RETRY
                return False
        self._uncommitted.clear()
        self._since = None
        return True

    def commit(self, consumer: Consumer, *, waited: float = math.inf) -> bool:
        """Commits new offsets of partitions that the group has not read; returns False if a retry may help.

        Kafka accepts commits only from members; other offsets are committed when the partition is assigned.

        Args:
            consumer: The member's consumer.
            waited: Seconds for which another member could have committed offset 0.
        """
        uncommitted = self._uncommitted
        if not uncommitted:
            return True
        try:
            known = consumer.committed([TopicPartition(*key) for key in uncommitted], timeout=_LOOK_UP_TIMEOUT)
        except KafkaException as failure:
            _log.debug("initial offsets not committed yet: error=%s", failure)
            return kafka_error(failure).code() not in _NO_ANSWER
        if any(partition.error is not None and partition.error.code() in _NO_ANSWER for partition in known):
            return False
        unread = {partition_of(partition) for partition in known if partition.error is None and partition.offset < 0}
        late = [key for key in unread if uncommitted[key] > 0]
        if late and (waited < GRACE or (waited < GRACE_OF_NEW and _has_new(consumer, late))):
            return False
        lower = {partition_of(p) for p in known if p.metadata == _START and p.offset > uncommitted[partition_of(p)]}
        failure = self._commit(consumer, [(key, uncommitted[key]) for key in unread | lower], _START)
        return failure is None or failure.code() not in REBALANCE_ERRORS

    def start_offset(self, committed: TopicPartition) -> int:
        """Returns where to start reading a partition, given the group's committed offset."""
        offset = self.get(partition_of(committed))
        if committed.offset < 0:
            return offset or 0
        return committed.offset if offset is None or committed.metadata != _START else min(offset, committed.offset)

    def get(self, partition: Partition) -> int | None:
        """Returns the initial offset of a partition, if it is known."""
        return self._offsets.get(partition)
