"""Reads the history of PVs from Kafka for one client.

Thread safety: `HistoryReader` any thread; a `HistoryQuery` belongs to the thread of its task's steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from reactivex import abc

from k2eg_rx.errors import OperationTimeout, TransportError
from k2eg_rx.history.merging import Merge
from k2eg_rx.history.selection import Interval, Selection, TimedUpdate, topics_of
from k2eg_rx.history.tasks import StepTask, TaskRunner
from k2eg_rx.history.time_points import Moment, Positions, past_interval, past_moment
from k2eg_rx.pv import PVAddress
from k2eg_rx.transport import DecodeErrorCounter, History

# Seconds for an answer, which takes milliseconds, before the task looks whether it was cancelled; and for each topic: a
# look-up takes half a millisecond, and there are four for each of its partitions.
_LOCATE = 1.0
_LOCATE_TOPIC = 0.005
_READ = 0.1  # seconds to wait for records, which come at once if there are any, and with them the end
_RETRY = 0.02  # seconds to the next call after one without result, which may have returned at once


class HistoryQuery:
    """One query for the history of some PVs. Belongs to the thread of its task's steps.

    Attributes:
        selection: Which records belong to the query.
        pause: Seconds to wait before the next call.

    Args:
        reader: The client's reader.
        addresses: The PVs.
        interval: The event times.
        subject: The PVs in words, for errors.
        limit: How many updates to return at a time, at most.
        patient: Whether to wait for an unavailable broker without limit, as a live stream does.
        positions: Where to begin; None for the beginning of the interval.
    """

    def __init__(
        self,
        reader: HistoryReader,
        addresses: Sequence[PVAddress],
        interval: Interval,
        subject: str,
        limit: int,
        *,
        patient: bool = False,
        positions: Positions | None = None,
    ) -> None:
        self._reader = reader
        self._positions = positions
        self._patient = patient
        self._topics = topics_of(addresses)
        self._interval = interval
        self._subject = subject
        self._limit = limit
        self._history: History | None = None
        self._silent_since: float | None = None
        self._may_block = reader.runner.may_block
        self.selection = Selection(addresses, interval, reader.decode_errors, reader.max_bytes)
        self.pause = 0.0

    def begin(self) -> Merge | None:
        """Locates the interval. Returns None if the broker did not answer yet: call it again after `pause`.

        Raises:
            OperationTimeout: The broker has not answered within the client's timeout, and the query is not patient.
            TransportError: Retrying is useless.
        """
        began = self._reader.runner.clock()
        start, stop = self._interval.kafka_start_ms, self._interval.kafka_stop_ms
        try:
            self._history = self._history or self._reader.make_history(self._topics)
            timeout = _LOCATE + _LOCATE_TOPIC * len(self._topics) if self._may_block else 0.0
            spans = self._history.locate(start, stop, timeout)
        except TransportError as error:
            raise self._with_subject(error) from error
        self._check_timeout(began, answered=spans is not None)
        if spans is None:
            return None
        if self._positions is not None:
            spans = self._positions.within(spans)
        return Merge(self._history, self.selection, spans, self._limit)

    def advance(self, merge: Merge) -> list[TimedUpdate]:
        """Returns the next updates of the result of `begin`, perhaps none yet.

        Raises:
            OperationTimeout: Nothing was read within the client's timeout, and the query is not patient.
            TransportError: Retrying is useless.
        """
        began, before = self._reader.runner.clock(), merge.records_read
        try:
            updates = merge.advance(_READ if self._may_block else 0.0)
        except TransportError as error:
            raise self._with_subject(error) from error
        self._check_timeout(began, answered=bool(updates) or merge.is_done or merge.records_read > before)
        return updates

    def suspend(self) -> None:
        """Restarts the timeout, as nothing is read for a while."""
        self._silent_since = None

    def _check_timeout(self, began: float, *, answered: bool) -> None:
        self.pause = 0.0 if answered else _RETRY
        if answered or self._patient:
            self._silent_since = None
            return
        self._silent_since = began if self._silent_since is None else self._silent_since
        timeout = self._reader.timeout
        if self._reader.runner.clock() - self._silent_since >= timeout:
            raise OperationTimeout("replay", self._subject, timeout, "the broker did not return its history", "nothing")

    def _with_subject(self, error: TransportError) -> TransportError:
        return TransportError(f"replay of {self._subject}: {error}")

    def close(self) -> None:
        """Releases the connection."""
        if self._history is not None:
            self._history.close()


class HistoryReader:
    """Reads history for one client. Immutable, except for the runner.

    Attributes:
        runner: Runs the tasks that read.

    Args:
        make_history: Makes a reader of topics; called on the thread of a task's steps.
        decode_errors: Counts undecodable records.
        max_bytes: The largest size of a value.
        timeout: Seconds that the broker may not answer.
        scheduler: Runs the tasks in virtual time; None: threads.
    """

    def __init__(
        self,
        make_history: Callable[[Sequence[str]], History],
        decode_errors: DecodeErrorCounter,
        *,
        max_bytes: int,
        timeout: float,
        scheduler: abc.SchedulerBase | None = None,
    ) -> None:
        self.make_history = make_history
        self.decode_errors = decode_errors
        self.max_bytes = max_bytes
        self.timeout = timeout
        self.runner = TaskRunner(scheduler)

    def beginning(self, since: Moment) -> Callable[[], int]:
        """Returns a function for the time `since` at a subscription, in nanoseconds since the Unix epoch.

        Raises:
            ValueError: The time is wrong; see `past_moment`.
        """
        past_moment(since, "since", self.runner.now())
        return lambda: past_moment(since, "since", self.runner.now())

    def interval(self, start: Moment, stop: Moment | None) -> Callable[[], Interval]:
        """Returns a function for the interval at a subscription.

        Raises:
            ValueError: A time is wrong; see `past_interval`.
        """
        past_interval(start, stop, self.runner.now())
        return lambda: Interval(*past_interval(start, stop, self.runner.now()))

    def start(self, task: StepTask) -> abc.DisposableBase:
        """Starts a task; disposing the result ends it, without waiting for that."""
        return self.runner.start(task)

    def stop(self) -> None:
        """Fails the running tasks and ends their threads, without waiting for them. Idempotent."""
        self.runner.stop()

    def close(self, timeout: float) -> None:
        """Stops, and waits for the threads, for at most `timeout` seconds. Idempotent."""
        self.runner.close(timeout)
