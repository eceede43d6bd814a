"""Finds out from where each topic has to be read, exactly, and keeps an eye on topics that come and go.

In: topics to be read, from any thread. Out: partitions and offsets, to the `Target` that reads, on the thread
``k2eg-positions``. Topics that are asked for at the same time are looked up together.

A reading goes from ASKED to READ, by way of ABSENT if there is no such topic yet, and back to ABSENT if it is deleted.
What was absent is read from its beginning.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from k2eg_rx.errors import TransportError
from k2eg_rx.kafka.metadata.cluster import PartitionOffsets, TopicMetadata
from k2eg_rx.kafka.metadata.topic_subscription import FIRST_DELAY, Phase, TopicSubscription

_log = logging.getLogger(__name__)

_LONGEST_DELAY = 1.0  # a PV that does not exist may be waited for all day
_LONGEST_DELAY_OF_MANY = 5.0
_DELAY_PER_ABSENT = 0.005  # a look-up costs up to a millisecond: 20 % of a thread at most
_LEAST_DELAY_PER_ABSENT = 0.0002  # a broker that makes thousands of topics is not asked for each dozen that it has made
_REST = 4  # times the duration of a look-up is not looked up for: the same on a broker that is slow at the moment
# Seconds that a question without an answer may still take when all is closed. It is waited for: if the process ended
# meanwhile, librdkafka would be in a TLS handshake as OpenSSL takes itself apart, and the process would crash.
_UNANSWERED = 2.5
_RETRY = 0.5  # seconds until a broker that gave no answer is asked again
_PROBE = 1.0  # seconds between questions while it is not clear that the broker is there
_CHECK = 30.0  # seconds in which each topic is looked at once: a change of its partition count has no other sign
_CHECK_AT_ONCE = 4  # topics; new ones must not wait for more than a few round trips
_CHECK_PAUSE = 0.05
_SLACK = 0.005  # what is due within these seconds is looked up together
_IDLE = 10.0  # seconds; nothing is due then, but logs are written


class ClusterMetadata(Protocol):
    """What `OffsetResolver` needs of `Cluster`."""

    def partition_counts(self, topics: Sequence[str]) -> Mapping[str, TopicMetadata] | None: ...
    def end_offsets(self, partition_counts: Mapping[str, int]) -> Mapping[str, PartitionOffsets]: ...
    def probe(self) -> bool: ...
    def poll(self) -> None: ...
    def close(self) -> None: ...


class OffsetResolver:
    """Keeps the readings of a transport.

    Args:
        cluster: Where it looks topics up.
        is_suspicious: Whether the broker has to be probed.
        clock: Returns seconds.
    """

    def __init__(
        self, cluster: ClusterMetadata, is_suspicious: Callable[[], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cluster = cluster
        self._is_suspicious = is_suspicious
        self._clock = clock
        self._added: deque[TopicSubscription] = deque()
        self._reported_missing: deque[tuple[TopicSubscription, bool]] = deque()
        self._subscriptions: list[TopicSubscription] = []
        self._unchecked: deque[TopicSubscription] = deque()
        self._next_check = clock() + _CHECK
        self._next_probe = clock()
        self._soonest, self._longest = 0.0, _LONGEST_DELAY  # seconds until what is absent is looked up again
        self._signal = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="k2eg-positions", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def add(self, subscription: TopicSubscription) -> None:
        """Takes a topic to be read."""
        self._added.append(subscription)
        self._signal.set()
        if self._closed.is_set():
            self._fail_all()

    def on_missing(self, subscription: TopicSubscription, *, deleted: bool = False) -> None:
        """Takes note that a consumer does not find the topic any more.

        Args:
            reading: The topic.
            for_certain: Whether it was deleted; if it is there at the next look, it is another one.
        """
        self._reported_missing.append((subscription, deleted))
        self._signal.set()

    def wake(self) -> None:
        """Has the broker probed if there is reason to."""
        self._signal.set()

    def close(self, timeout: float) -> None:
        """Ends the thread; what is not fixed yet fails. Idempotent.

        Args:
            timeout: Seconds that it may take; a request that a broker does not answer may take longer.
        """
        self._closed.set()
        self._signal.set()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(max(timeout, _UNANSWERED))
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
                _log.exception("looking topics up failed")
                pause = _RETRY
            self._signal.wait(pause)
        self._cluster.close()

    def step(self) -> float:
        """Does what is due; returns the seconds until something is due again."""
        self._take_requests()
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
                subscription.due, subscription.seen_missing = 0.0, True
                if deleted:
                    self._stop(subscription)
        self._subscriptions = [subscription for subscription in self._subscriptions if not subscription.released]

    def _to_check(self, now: float) -> list[TopicSubscription]:
        """The next few of the topics that are to be looked at once in a while."""
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
        times = [subscription.due for subscription in self._subscriptions]
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
        was_absent = [subscription for subscription in due if subscription.phase is Phase.MISSING]
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
        if any(subscription.phase is Phase.ACTIVE for subscription in was_absent):
            self._look_up_missing_soon()

    def _set_pace(self, cost: float) -> None:
        """Sets how soon and how late what is absent is looked up again, after a look-up that took so many seconds."""
        absent = sum(subscription.phase is Phase.MISSING for subscription in self._subscriptions)
        self._longest = min(max(_LONGEST_DELAY, absent * _DELAY_PER_ABSENT), _LONGEST_DELAY_OF_MANY)
        self._soonest = min(max(_REST * cost, absent * _LEAST_DELAY_PER_ABSENT), self._longest)

    def _look_up_missing_soon(self) -> None:
        """Has what else is absent looked up soon: who makes one topic often makes many, and not all at once."""
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
        """Has it looked up again, soon at first."""
        if subscription.phase is Phase.MISSING and subscription.creation is None:  # else somebody waits
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
        """Which partitions have to be read from their beginning now; none if it was missed by mistake."""
        subscription.due = float("inf")
        if subscription.phase is Phase.ACTIVE and count < subscription.partitions:
            self._stop(subscription)  # it was deleted and made again
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
            subscription.partitions = max(subscription.partitions, *(n + 1 for n in ends), 0)
            if subscription.creation is not None:
                subscription.creation.finish()
            subscription.set_ready()
