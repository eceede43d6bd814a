"""The past of PVs on its way from Kafka: from when, by which patience, and told by whom.

In: PVs and event times. Out: updates, pulled by the tale that tells them, where its steps are taken (see `telling`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from reactivex import abc

from k2eg_rx.errors import OperationTimeout, TransportError
from k2eg_rx.history.merging import Merge
from k2eg_rx.history.selection import Interval, Selection, TimedUpdate, topics_of
from k2eg_rx.history.tasks import StepTask, TaskRunner
from k2eg_rx.history.time_points import Moment, past_interval, past_moment
from k2eg_rx.pv import PVAddress
from k2eg_rx.transport import DecodeErrorCounter, History

# Seconds for an answer, which takes milliseconds; then it is looked whether anybody still wants it. And for each topic:
# a question about one takes half a millisecond, and there are four about each of its partitions.
_LOCATE = 1.0
_LOCATE_TOPIC = 0.005
_READ = 0.1  # seconds to wait for records, which come at once if there are any; an end is told of with them
_PAUSE = 0.02  # seconds until the next try after one that gave nothing, perhaps at once


class Reading:
    """The past of some PVs, on its way from Kafka. Belongs to where the steps of its tale are taken.

    Attributes:
        selection: What the records tell.
        pause: Seconds to wait before the next call, after one that gave nothing.

    Args:
        past: Where it is read.
        addresses: The PVs.
        interval: The event times.
        subject: What it is about, for errors.
        most: How many updates to return at a time, at most.
    """

    def __init__(self, past: Past, addresses: Sequence[PVAddress], interval: Interval, subject: str, most: int) -> None:
        self._past = past
        self._topics = topics_of(addresses)
        self._interval = interval
        self._subject = subject
        self._most = most
        self._history: History | None = None
        self._silent_since: float | None = None
        self._wait = past.tellers.may_wait
        self.selection = Selection(addresses, interval, past.discards, past.limit)
        self.pause = 0.0

    def begin(self) -> Merge | None:
        """Finds where to read. Returns None if the broker did not answer: to be called again.

        Raises:
            OperationTimeout: It has not answered for too long.
            TransportError: It refuses.
        """
        began = self._past.tellers.clock()
        start, stop = self._interval.kafka_start_ms, self._interval.kafka_stop_ms
        try:
            self._history = self._history or self._past.make_history(self._topics)
            patience = _LOCATE + _LOCATE_TOPIC * len(self._topics) if self._wait else 0.0
            spans = self._history.locate(start, stop, patience)
        except TransportError as error:
            raise self._named(error) from error
        self._note(began, answered=spans is not None, patient=False)
        return None if spans is None else Merge(self._history, self.selection, spans, self._most)

    def advance(self, merge: Merge, *, patient: bool = False) -> list[TimedUpdate]:
        """Returns the next updates, perhaps none yet.

        Args:
            merge: What `begin` returned.
            patient: Whether a broker that is away is waited for, however long that takes.

        Raises:
            OperationTimeout: Nothing has come for too long.
            TransportError: The broker refuses.
        """
        began, before = self._past.tellers.clock(), merge.records_read
        try:
            told = merge.advance(_READ if self._wait else 0.0)
        except TransportError as error:
            raise self._named(error) from error
        self._note(began, answered=bool(told) or merge.is_done or merge.records_read > before, patient=patient)
        return told

    def rest(self) -> None:
        """Takes note that nothing is asked for a while."""
        self._silent_since = None

    def _note(self, began: float, *, answered: bool, patient: bool) -> None:
        self.pause = 0.0 if answered else _PAUSE
        if answered or patient:
            self._silent_since = None
            return
        self._silent_since = began if self._silent_since is None else self._silent_since
        timeout = self._past.timeout
        if self._past.tellers.clock() - self._silent_since >= timeout:
            raise OperationTimeout("replay", self._subject, timeout, "Kafka does not give its history")

    def _named(self, error: TransportError) -> TransportError:
        return TransportError(f"replay of {self._subject}: {error}")

    def close(self) -> None:
        """Leaves."""
        if self._history is not None:
            self._history.close()


class Past:
    """Reads the past for one client.

    Attributes:
        make_history: Makes what reads topics; called where the steps are taken.
        discards: Where bad records are counted.
        limit: Bytes that a body may have.
        timeout: Seconds that a broker may be silent.
        tellers: What takes the steps.

    Args:
        make_history: As above.
        discards: As above.
        limit: As above.
        timeout: As above.
        scheduler: Where steps are taken; None for threads.
    """

    def __init__(
        self,
        make_history: Callable[[Sequence[str]], History],
        discards: DecodeErrorCounter,
        *,
        limit: int,
        timeout: float,
        scheduler: abc.SchedulerBase | None = None,
    ) -> None:
        self.make_history = make_history
        self.discards = discards
        self.limit = limit
        self.timeout = timeout
        self.tellers = TaskRunner(scheduler)

    def beginning(self, since: Moment) -> Callable[[], int]:
        """Returns what gives the time `since` at a subscription, in nanoseconds since the Unix epoch.

        Raises:
            ValueError: It is wrong; see `past_moment`.
        """
        past_moment(since, "since", self.tellers.now())
        return lambda: past_moment(since, "since", self.tellers.now())

    def interval(self, start: Moment, stop: Moment | None) -> Callable[[], Interval]:
        """Returns what gives the interval at a subscription.

        Raises:
            ValueError: It is wrong; see `past_interval`.
        """
        past_interval(start, stop, self.tellers.now())
        return lambda: Interval(*past_interval(start, stop, self.tellers.now()))

    def start(self, tale: StepTask) -> abc.DisposableBase:
        """Has a tale told; disposing ends it, without waiting for that."""
        return self.tellers.start(tale)

    def stop(self) -> None:
        """Fails what is still being told, and has the threads end. Idempotent."""
        self.tellers.stop()

    def close(self, timeout: float) -> None:
        """Stops, and waits for the threads, for at most `timeout` seconds. Idempotent."""
        self.tellers.close(timeout)
