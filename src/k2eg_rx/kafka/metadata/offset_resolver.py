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
from k2eg_rx.kafka.metadata.cluster import Ends, Sight
from k2eg_rx.kafka.metadata.topic_subscription import FIRST_DELAY, Phase, Reading

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


class Sights(Protocol):
    """What `OffsetResolver` needs of `Cluster`."""

    def partition_counts(self, topics: Sequence[str]) -> Mapping[str, Sight] | None: ...
    def end_offsets(self, partition_counts: Mapping[str, int]) -> Mapping[str, Ends]: ...
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
        self, cluster: Sights, is_suspicious: Callable[[], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cluster = cluster
        self._is_suspicious = is_suspicious
        self._clock = clock
        self._inbox: deque[Reading] = deque()
        self._lost: deque[tuple[Reading, bool]] = deque()
        self._readings: list[Reading] = []
        self._unchecked: deque[Reading] = deque()
        self._next_check = clock() + _CHECK
        self._next_probe = clock()
        self._soonest, self._longest = 0.0, _LONGEST_DELAY  # seconds until what is absent is looked up again
        self._signal = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="k2eg-positions", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def add(self, reading: Reading) -> None:
        """Takes a topic to be read."""
        self._inbox.append(reading)
        self._signal.set()
        if self._closed.is_set():
            self._refuse()

    def lose(self, reading: Reading, *, for_certain: bool = False) -> None:
        """Takes note that a consumer does not find the topic any more.

        Args:
            reading: The topic.
            for_certain: Whether it was deleted; if it is there at the next look, it is another one.
        """
        self._lost.append((reading, for_certain))
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
        self._refuse()

    def _refuse(self) -> None:
        while self._inbox:
            self._readings.append(self._inbox.popleft())
        for reading in self._readings:
            reading.fail(TransportError(f"cannot read {reading.topic!r}: the connection to Kafka is closed"))

    def _run(self) -> None:
        while not self._closed.is_set():
            self._signal.clear()
            try:
                pause = self.turn()
            except Exception:
                _log.exception("looking topics up failed")
                pause = _RETRY
            self._signal.wait(pause)
        self._cluster.close()

    def turn(self) -> float:
        """Does what is due; returns the seconds until something is due again."""
        self._admit()
        now = self._clock()
        due = [reading for reading in self._readings if reading.due <= now + _SLACK] or self._to_check(now)
        if due:
            self._look_up(due)
        elif self._is_suspicious() and now >= self._next_probe:
            self._cluster.probe()
            self._next_probe = self._clock() + _PROBE
        self._cluster.poll()
        return self._pause()

    def _admit(self) -> None:
        while self._inbox:
            self._readings.append(self._inbox.popleft())
        while self._lost:
            reading, for_certain = self._lost.popleft()
            if reading.phase is Phase.READ and not reading.released:
                reading.due, reading.missed = 0.0, True
                if for_certain:
                    self._stop(reading)
        self._readings = [reading for reading in self._readings if not reading.released]

    def _to_check(self, now: float) -> list[Reading]:
        """The next few of the topics that are to be looked at once in a while."""
        if not self._unchecked and now >= self._next_check:
            self._unchecked.extend(reading for reading in self._readings if reading.phase is Phase.READ)
            self._next_check = now + _CHECK
        some = [self._unchecked.popleft() for _ in range(min(_CHECK_AT_ONCE, len(self._unchecked)))]
        return [reading for reading in some if reading.phase is Phase.READ and not reading.released]

    def _pause(self) -> float:
        now = self._clock()
        times = [reading.due for reading in self._readings]
        times.append(now + _CHECK_PAUSE if self._unchecked else self._next_check)
        if self._is_suspicious():
            times.append(self._next_probe)
        return min(max(min(times) - now, 0.0), _IDLE)

    def _look_up(self, due: Sequence[Reading]) -> None:
        since = self._clock()
        sights = self._cluster.partition_counts(list(dict.fromkeys(reading.topic for reading in due)))
        if sights is None:
            for reading in due:
                reading.due = self._clock() + _RETRY
            return
        self._next_probe = self._clock() + _PROBE
        self._set_pace(self._clock() - since)
        was_absent = [reading for reading in due if reading.phase is Phase.ABSENT]
        starts: list[tuple[Reading, Ends]] = []
        to_end: list[tuple[Reading, int]] = []
        for reading in due:
            match sights[reading.topic]:
                case None:
                    self._later(reading)
                case 0:
                    self._is_missing(reading)
                case int(count) if reading.phase is Phase.ASKED and not reading.missed:
                    to_end.append((reading, count))
                case int(count):
                    starts.extend(self._is_there(reading, count))
                case TransportError() as error:
                    self._is_refused(reading, error)
        starts.extend(self._at_their_ends(to_end))
        self._begin(starts)
        if any(reading.phase is Phase.READ for reading in was_absent):
            self._expect_more()

    def _set_pace(self, cost: float) -> None:
        """Sets how soon and how late what is absent is looked up again, after a look-up that took so many seconds."""
        absent = sum(reading.phase is Phase.ABSENT for reading in self._readings)
        self._longest = min(max(_LONGEST_DELAY, absent * _DELAY_PER_ABSENT), _LONGEST_DELAY_OF_MANY)
        self._soonest = min(max(_REST * cost, absent * _LEAST_DELAY_PER_ABSENT), self._longest)

    def _expect_more(self) -> None:
        """Has what else is absent looked up soon: who makes one topic often makes many, and not all at once."""
        delay = max(FIRST_DELAY, self._soonest)
        soon = self._clock() + delay
        for reading in self._readings:
            if reading.phase is Phase.ABSENT and reading.creation is None:
                reading.due, reading.delay = min(reading.due, soon), delay

    def _is_missing(self, reading: Reading) -> None:
        if reading.phase is Phase.READ:
            self._stop(reading)
        reading.phase, reading.missed = Phase.ABSENT, True
        if reading.creation is None:
            reading.fix()
        elif (error := reading.creation.step()) is not None:
            self._is_refused(reading, error)
            return
        self._later(reading)

    def _stop(self, reading: Reading) -> None:
        _log.info("topic %s is gone; waiting for it", reading.topic)
        reading.target.halt(reading)
        reading.phase, reading.partitions, reading.delay = Phase.ABSENT, 0, FIRST_DELAY

    def _later(self, reading: Reading) -> None:
        """Has it looked up again, soon at first."""
        if reading.phase is Phase.ABSENT and reading.creation is None:  # else somebody waits
            reading.delay = max(reading.delay, self._soonest)
        reading.due = self._clock() + reading.delay
        reading.delay = min(2 * reading.delay, self._longest)

    def _is_refused(self, reading: Reading, error: TransportError) -> None:
        if reading.fixed.done():
            _log.warning("%s", error)
            reading.due = self._clock() + _LONGEST_DELAY_OF_MANY
        else:
            reading.released = True
            reading.fail(error)

    def _is_there(self, reading: Reading, count: int) -> list[tuple[Reading, Ends]]:
        """Which partitions have to be read from their beginning now; none if it was missed by mistake."""
        reading.due = float("inf")
        if reading.phase is Phase.READ and count < reading.partitions:
            self._stop(reading)  # it was deleted and made again
        new = dict.fromkeys(range(reading.partitions, count), 0)
        was_missed, reading.missed = reading.missed, False
        return [(reading, new)] if new or was_missed else []

    def _at_their_ends(self, readings: Sequence[tuple[Reading, int]]) -> list[tuple[Reading, Ends]]:
        if not readings:
            return []
        ends = self._cluster.end_offsets({reading.topic: count for reading, count in readings})
        starts: list[tuple[Reading, Ends]] = []
        for reading, _ in readings:
            if reading.topic in ends:
                reading.due = float("inf")
                starts.append((reading, ends[reading.topic]))
            else:
                self._later(reading)
        return starts

    def _begin(self, starts: Sequence[tuple[Reading, Ends]]) -> None:
        targets = dict.fromkeys(reading.target for reading, _ in starts)
        for target in targets:
            target.begin([(reading, ends) for reading, ends in starts if reading.target is target])
        for reading, ends in starts:
            reading.phase, reading.delay = Phase.READ, FIRST_DELAY
            reading.partitions = max(reading.partitions, *(n + 1 for n in ends), 0)
            if reading.creation is not None:
                reading.creation.finish()
            reading.fix()
