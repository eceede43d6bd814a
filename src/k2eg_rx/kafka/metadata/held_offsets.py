"""Looks up the offsets that logs hold, for readers whose positions are lost.

Thread safety: used by the thread of `OffsetResolver`; ``add`` may be called from any thread.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from k2eg_rx.kafka.metadata.cluster import TopicMetadata
from k2eg_rx.kafka.metadata.topic_subscription import Phase, TopicSubscription
from k2eg_rx.transport import Partition, Span

_RETRY = 0.5  # seconds until a request that was not answered is repeated


class LogBounds(Protocol):
    """The part of `Cluster` that `HeldOffsets` uses."""

    @property
    def cluster_id(self) -> str | None: ...
    def partition_counts(self, topics: Sequence[str]) -> Mapping[str, TopicMetadata] | None: ...
    def held_offsets(self, partitions: Collection[Partition]) -> Mapping[Partition, Span]: ...


class HeldOffsets:
    """Partitions whose positions are lost, and what their logs hold.

    Args:
        cluster: Looks up topics.
        on_gone: Called with a subscription whose topic is another one: the cluster was set up anew, or has no such
            topic. It is to be read from its beginning.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        cluster: LogBounds,
        on_gone: Callable[[TopicSubscription], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._on_gone = on_gone
        self._clock = clock
        self._reported: deque[tuple[TopicSubscription, int]] = deque()
        self._waiting: dict[tuple[TopicSubscription, int], None] = {}
        self._retry_at = 0.0

    def add(self, subscription: TopicSubscription, partition: int) -> None:
        """Adds a partition, whose reader has no position any more. May be called from any thread."""
        self._reported.append((subscription, partition))

    @property
    def due(self) -> float:
        """When the next look-up is due, by the clock."""
        return 0.0 if self._reported else self._retry_at if self._waiting else float("inf")

    def step(self) -> None:
        """Looks the positions up, if that is due."""
        if self._clock() < self.due:
            return
        while self._reported:
            self._waiting[self._reported.popleft()] = None
        self._waiting = {lost: None for lost in self._waiting if lost[0].phase is Phase.ACTIVE and not lost[0].released}
        if self._waiting:
            self._retry_at = self._clock() + _RETRY
            self._look_up()

    def _look_up(self) -> None:
        counts = self._cluster.partition_counts(list({subscription.topic for subscription, _ in self._waiting}))
        if counts is None:
            return
        for subscription, number in list(self._waiting):
            count = counts[subscription.topic]
            if isinstance(count, int) and (number >= count or self._cluster.cluster_id != subscription.cluster_id):
                del self._waiting[subscription, number]
                if subscription.phase is Phase.ACTIVE:
                    self._on_gone(subscription)
        held = self._cluster.held_offsets([(subscription.topic, number) for subscription, number in self._waiting])
        for subscription, number in list(self._waiting):
            if (span := held.get((subscription.topic, number))) is not None:
                del self._waiting[subscription, number]
                subscription.target.relocate(subscription, number, span)
