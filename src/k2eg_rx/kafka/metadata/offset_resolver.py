"""Resolves the initial offsets of subscribed topics and watches for topics that appear or are deleted.

Topics that are added together are looked up together. A subscription is PENDING until its topic is looked up, then
ACTIVE, or MISSING while the topic does not exist. A topic that existed when it was added is read from its end offsets;
one that was missing, from its beginning.

Thread safety: look-ups, `Target` and `Creation` run on the thread ``k2eg-offsets``; `OffsetResolver.add`,
``on_missing``, ``wake`` and ``close`` may be called from any thread.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from k2eg_rx.concurrency import join
from k2eg_rx.errors import TransportError
from k2eg_rx.kafka.metadata.cluster import PartitionOffsets, TopicMetadata
from k2eg_rx.kafka.metadata.held_offsets import HeldOffsets
from k2eg_rx.kafka.metadata.topic_subscription import FIRST_DELAY, Phase, TopicSubscription
from k2eg_rx.texts import get_logger
from k2eg_rx.transport import Partition, Span

_log = get_logger(__name__)

_LONGEST_DELAY = 1.0  # seconds; a PV that does not exist may be waited for all day
_LONGEST_DELAY_OF_MANY = 5.0
_DELAY_PER_MISSING = 0.005  # seconds; a look-up costs up to a millisecond: 20 % of a thread at most
_LEAST_DELAY_PER_MISSING = 0.0002  # seconds; while thousands of topics are created, each request finds many of them
_REST = 4  # pause after a look-up, in multiples of its duration: limits the load on a slow broker likewise
_RETRY = 0.5  # seconds until a request that was not answered is repeated
_PROBE = 1.0  # seconds between probes while the connection is suspicious
_CHECK = 30.0  # seconds in which each topic is checked once: a new partition is noticed in no other way
_CHECK_AT_ONCE = 4  # topics; new ones must not wait for more than a few round trips
_CHECK_PAUSE = 0.05
_SLACK = 0.005  # topics due within these seconds are looked up together
_IDLE = 10.0  # seconds; nothing is due then, but logs are written


class ClusterMetadata(Protocol):
    """The part of `Cluster` that `OffsetResolver` uses."""

    @property
    def cluster_id(self) -> str | None: ...
    def partition_counts(self, topics: Sequence[str]) -> Mapping[str, TopicMetadata] | None: ...
    def held_offsets(self, partitions: Collection[Partition]) -> Mapping[Partition, Span]: ...
    def end_offsets(self, partition_counts: Mapping[str, int]) -> Mapping[str, PartitionOffsets]: ...
    def probe(self) -> bool: ...
    def poll(self) -> None: ...
    def close(self) -> None: ...


class OffsetResolver:
    """Resolves offsets for all sources of a transport.

    Args:
        cluster: Looks up topics.
        is_suspicious: Whether the cluster has to be probed.
        clock: Returns the time in seconds.
    """

    def __init__(
        self, cluster: ClusterMetadata, is_suspicious: Callable[[], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cluster = cluster
        self._is_suspicious = is_suspicious
        self._clock = clock
        self._added: deque[TopicSubscription] = deque()
        self._reported_missing: deque[tuple[TopicSubscription, bool]] = deque()
        self._held_offsets = HeldOffsets(cluster, self._on_deleted, clock)
        self._subscriptions: list[TopicSubscription] = []
        self._unchecked: deque[TopicSubscription] = deque()
        self._next_check = clock() + _CHECK
        self._next_probe = clock()
        self._soonest, self._longest = 0.0, _LONGEST_DELAY  # seconds until missing topics are looked up again
        self._signal = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="k2eg-offsets", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def add(self, subscription: TopicSubscription) -> None:
        """Adds a subscription, whose target is called when the offsets are known."""
        self._added.append(subscription)
        self._signal.set()
        if self._closed.is_set():
            self._fail_all()

    def on_missing(self, subscription: TopicSubscription, *, deleted: bool = False) -> None:
        """Looks up a topic at once, since a consumer does not find it.

        Args:
            subscription: The topic's subscription.
            deleted: Whether the topic was certainly deleted; one of its name is then read from its beginning.
        """
        self._reported_missing.append((subscription, deleted))
        self._signal.set()

    def on_position_lost(self, subscription: TopicSubscription, partition: int) -> None:
        """Looks up at once where to continue a partition: the record at the reader's position does not exist."""
        self._held_offsets.add(subscription, partition)
        self._signal.set()

    def wake(self) -> None:
        """Wakes the thread, which probes the cluster if the connection is suspicious."""
        self._signal.set()

    def close(self, timeout: float) -> None:
        """Stops the thread; pending subscriptions fail. Idempotent.

        Args:
            timeout: Seconds to wait for the thread; an unanswered request may last longer.
        """
        self._closed.set()
        self._signal.set()
        join(self._thread, timeout)
        self._fail_all()

    def _fail_all(self) -> None:
        while self._added:
            self._subscriptions.append(self._added.popleft())
        for subscription in self._subscriptions:
            subscription.fail(TransportError(f"cannot read {subscription.topic!r}: the connection to Kafka is closed"))

    def _run(self) -> None:
        while not self._closed.is_set():
            self._signal.clear()
            try:
                pause = self.step()
            except Exception:
                _log.exception("topic look-up failed")
                pause = _RETRY
            self._signal.wait(pause)
        self._cluster.close()

    def step(self) -> float:
        """Performs what is due; returns the seconds until something is due again."""
        self._take_requests()
        self._held_offsets.step()
        now = self._clock()
        due = [
            subscription for subscription in self._subscriptions if subscription.due <= now + _SLACK
        ] or self._to_check(now)
        if due:
            self._look_up(due)
        elif self._is_suspicious() and now >= self._next_probe:
            self._cluster.probe()
            self._next_probe = self._clock() + _PROBE
        self._cluster.poll()
        return self._seconds_until_due()

    def _take_requests(self) -> None:
        while self._added:
            self._subscriptions.append(self._added.popleft())
        while self._reported_missing:
            subscription, deleted = self._reported_missing.popleft()
            if subscription.phase is Phase.ACTIVE and not subscription.released:
                if deleted:
                    self._on_deleted(subscription)
                else:
                    subscription.due, subscription.seen_missing = 0.0, True
        self._subscriptions = [subscription for subscription in self._subscriptions if not subscription.released]

    def _on_deleted(self, subscription: TopicSubscription) -> None:
        subscription.due, subscription.seen_missing = 0.0, True
        self._stop(subscription)

    def _to_check(self, now: float) -> list[TopicSubscription]:
        """Returns the next few active topics to check for new partitions."""
        if not self._unchecked and now >= self._next_check:
            self._unchecked.extend(
                subscription for subscription in self._subscriptions if subscription.phase is Phase.ACTIVE
            )
            self._next_check = now + _CHECK
        some = [self._unchecked.popleft() for _ in range(min(_CHECK_AT_ONCE, len(self._unchecked)))]
        return [
            subscription for subscription in some if subscription.phase is Phase.ACTIVE and not subscription.released
        ]

    def _seconds_until_due(self) -> float:
        now = self._clock()
        times = [self._held_offsets.due, *(subscription.due for subscription in self._subscriptions)]
        times.append(now + _CHECK_PAUSE if self._unchecked else self._next_check)
        if self._is_suspicious():
            times.append(self._next_probe)
        return min(max(min(times) - now, 0.0), _IDLE)

    def _look_up(self, due: Sequence[TopicSubscription]) -> None:
        since = self._clock()
        metadata = self._cluster.partition_counts(list(dict.fromkeys(subscription.topic for subscription in due)))
        if metadata is None:
            for subscription in due:
                subscription.due = self._clock() + _RETRY
            return
        self._next_probe = self._clock() + _PROBE
        self._set_pace(self._clock() - since)
        were_missing = [subscription for subscription in due if subscription.phase is Phase.MISSING]
        starts: list[tuple[TopicSubscription, PartitionOffsets]] = []
        to_end: list[tuple[TopicSubscription, int]] = []
        for subscription in due:
            match metadata[subscription.topic]:
                case None:
                    self._look_up_later(subscription)
                case 0:
                    self._on_missing_topic(subscription)
                case int(count) if subscription.phase is Phase.PENDING and not subscription.seen_missing:
                    to_end.append((subscription, count))
                case int(count):
                    starts.extend(self._on_present(subscription, count))
                case TransportError() as error:
                    self._on_refused(subscription, error)
        starts.extend(self._starts_at_end(to_end))
        self._begin(starts)
        if any(subscription.phase is Phase.ACTIVE for subscription in were_missing):
            self._look_up_missing_soon()

    def _set_pace(self, cost: float) -> None:
        """Sets the shortest and longest delay for missing topics, given the seconds that a look-up took."""
        absent = sum(subscription.phase is Phase.MISSING for subscription in self._subscriptions)
        self._longest = min(max(_LONGEST_DELAY, absent * _DELAY_PER_MISSING), _LONGEST_DELAY_OF_MANY)
        self._soonest = min(max(_REST * cost, absent * _LEAST_DELAY_PER_MISSING), self._longest)

    def _look_up_missing_soon(self) -> None:
        """Looks up the other missing topics soon: topics are often created together, over some time."""
        delay = max(FIRST_DELAY, self._soonest)
        soon = self._clock() + delay
        for subscription in self._subscriptions:
            if subscription.phase is Phase.MISSING and subscription.creation is None:
                subscription.due, subscription.delay = min(subscription.due, soon), delay

    def _on_missing_topic(self, subscription: TopicSubscription) -> None:
        if subscription.phase is Phase.ACTIVE:
            self._stop(subscription)
        subscription.phase, subscription.seen_missing = Phase.MISSING, True
        if subscription.creation is None:
            subscription.set_ready()
        elif (error := subscription.creation.step()) is not None:
            self._on_refused(subscription, error)
            return
        self._look_up_later(subscription)

    def _stop(self, subscription: TopicSubscription) -> None:
        _log.info("topic %s is gone; waiting for it", subscription.topic)
        subscription.target.halt(subscription)
        subscription.phase, subscription.partitions, subscription.delay = Phase.MISSING, 0, FIRST_DELAY

    def _look_up_later(self, subscription: TopicSubscription) -> None:
        """Schedules the next look-up, with growing delays."""
        if subscription.phase is Phase.MISSING and subscription.creation is None:  # otherwise a client waits for it
            subscription.delay = max(subscription.delay, self._soonest)
        subscription.due = self._clock() + subscription.delay
        subscription.delay = min(2 * subscription.delay, self._longest)

    def _on_refused(self, subscription: TopicSubscription, error: TransportError) -> None:
        if subscription.ready.done():
            _log.warning("%s", error)
            subscription.due = self._clock() + _LONGEST_DELAY_OF_MANY
        else:
            subscription.released = True
            subscription.fail(error)

    def _on_present(
        self, subscription: TopicSubscription, count: int
    ) -> list[tuple[TopicSubscription, PartitionOffsets]]:
        """Returns the partitions to read from their beginning; none if the topic was reported missing by mistake."""
        subscription.due = float("inf")
        if subscription.phase is Phase.ACTIVE and count < subscription.partitions:
            self._stop(subscription)  # deleted and created again
        new = dict.fromkeys(range(subscription.partitions, count), 0)
        was_missed, subscription.seen_missing = subscription.seen_missing, False
        return [(subscription, new)] if new or was_missed else []

    def _starts_at_end(
        self, subscriptions: Sequence[tuple[TopicSubscription, int]]
    ) -> list[tuple[TopicSubscription, PartitionOffsets]]:
        if not subscriptions:
            return []
        ends = self._cluster.end_offsets({subscription.topic: count for subscription, count in subscriptions})
        starts: list[tuple[TopicSubscription, PartitionOffsets]] = []
        for subscription, _ in subscriptions:
            if subscription.topic in ends:
                subscription.due = float("inf")
                starts.append((subscription, ends[subscription.topic]))
            else:
                self._look_up_later(subscription)
        return starts

    def _begin(self, starts: Sequence[tuple[TopicSubscription, PartitionOffsets]]) -> None:
        targets = dict.fromkeys(subscription.target for subscription, _ in starts)
        for target in targets:
            target.begin([(subscription, ends) for subscription, ends in starts if subscription.target is target])
        for subscription, ends in starts:
            subscription.phase, subscription.delay = Phase.ACTIVE, FIRST_DELAY
            subscription.cluster_id = self._cluster.cluster_id
            subscription.partitions = max(subscription.partitions, *(n + 1 for n in ends), 0)
            if subscription.creation is not None:
                subscription.creation.finish()
            subscription.set_ready()
