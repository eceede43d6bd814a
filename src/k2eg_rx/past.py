"""Readers of the past: what each of them needs, and the threads on which they read.

In: tales, which know what to read and whom to tell it. Out: their steps, one after another, each tale's on a thread of
its own (``k2eg-past``, a daemon that ends with the tale; it alone uses what the tale reads with). Where a scheduler
stands in for the real time, the steps are taken on that.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from reactivex import abc
from reactivex.disposable import Disposable

from k2eg_rx.discards import Discards
from k2eg_rx.errors import ClientClosedError, K2EGError, OperationTimeout, TransportError
from k2eg_rx.merging import Merge
from k2eg_rx.moments import Moment, past_interval, past_moment
from k2eg_rx.pv import PvAddress
from k2eg_rx.selection import Interval, Selection, Told, topics_of
from k2eg_rx.transport import History

_log = logging.getLogger(__name__)

_LOCATE = 1.0  # seconds for an answer, which takes milliseconds; then it is looked whether anybody still wants it
_READ = 0.1  # seconds to wait for records, which come at once if there are any; an end is told of with them
_PAUSE = 0.02  # seconds between two looks, where looking takes no time


class Reading:
    """The past of some PVs, on its way from Kafka. Belongs to the thread that takes the steps of its tale.

    Attributes:
        selection: What the records tell.

    Args:
        past: Where it is read.
        addresses: The PVs.
        interval: The event times.
        subject: What it is about, for errors.
        most: How many updates to return at a time, at most.
    """

    def __init__(self, past: Past, addresses: Sequence[PvAddress], interval: Interval, subject: str, most: int) -> None:
        self._past = past
        self._topics = topics_of(addresses)
        self._interval = interval
        self._subject = subject
        self._most = most
        self._history: History | None = None
        self._silent_since: float | None = None
        self.selection = Selection(addresses, interval, past.discards, past.limit)

    def begin(self) -> Merge | None:
        """Finds where to read. Returns None if the broker did not answer: to be called again.

        Raises:
            OperationTimeout: It has not answered for too long.
            TransportError: It refuses.
        """
        try:
            self._history = self._history or self._past.make_history(self._topics)
            interval = self._interval
            spans = self._history.locate(
                interval.kafka_start_ms, interval.kafka_stop_ms, _LOCATE * self._past.waits_itself
            )
        except TransportError as error:
            raise self._named(error) from error
        self._note(answered=spans is not None)
        return None if spans is None else Merge(self._history, self.selection, spans, self._most)

    def advance(self, merge: Merge, *, patient: bool = False) -> list[Told]:
        """Returns the next updates, perhaps none yet.

        Args:
            merge: What `begin` returned.
            patient: Whether a broker that is away is waited for, however long that takes.

        Raises:
            OperationTimeout: Nothing has come for too long.
            TransportError: The broker refuses.
        """
        before = merge.records_read
        try:
            told = merge.advance(_READ * self._past.waits_itself)
        except TransportError as error:
            raise self._named(error) from error
        self._note(answered=patient or bool(told) or merge.is_done or merge.records_read > before)
        return told

    def rest(self) -> None:
        """Takes note that nothing is asked for a while."""
        self._silent_since = None

    def _note(self, *, answered: bool) -> None:
        now = self._past.clock()
        if answered:
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = now
        elif now - self._silent_since >= self._past.timeout:
            raise OperationTimeout("replay", self._subject, self._past.timeout, "Kafka does not give its history")

    def _named(self, error: TransportError) -> TransportError:
        return TransportError(f"replay of {self._subject}: {error}")

    def close(self) -> None:
        """Leaves."""
        if self._history is not None:
            self._history.close()


class Tale(Protocol):
    """Something that is told step by step.

    Attributes:
        wake: Set by anybody who has reason to believe that a step is due before its time.
        over: Set by anybody, when no more steps are wanted.
    """

    wake: threading.Event
    over: threading.Event

    def step(self) -> float | None:
        """Does a little; returns the seconds until more is to be done, or None at the end. Raises what went wrong."""
        ...

    def fail(self, error: Exception) -> None:
        """Told that it will not come to its end. Any thread."""
        ...

    def close(self) -> None:
        """Gives back what it read with."""
        ...


class Past:
    """Reads the past for one client, for several tales at a time.

    Args:
        make_history: Makes what reads topics; called where the steps are taken.
        discards: Where bad records are counted.
        limit: Bytes that a body may have.
        timeout: Seconds that a broker may be silent.
        scheduler: Where steps are taken; None for threads.
    """

    def __init__(
        self,
        make_history: Callable[[Sequence[str]], History],
        discards: Discards,
        *,
        limit: int,
        timeout: float,
        scheduler: abc.SchedulerBase | None = None,
    ) -> None:
        self.make_history = make_history
        self.discards = discards
        self.limit = limit
        self.timeout = timeout
        self._scheduler = scheduler
        self._lock = threading.Lock()
        self._tales: dict[Tale, threading.Thread | None] = {}  # under the lock, as is `_closed`
        self._closed = False

    @property
    def waits_itself(self) -> bool:
        """Whether a step may wait; on a scheduler it may not."""
        return self._scheduler is None

    def now(self) -> datetime:
        """Returns the present time, with a time zone."""
        if self._scheduler is None:
            return datetime.now(UTC)
        now = self._scheduler.now
        return now if now.tzinfo is not None else now.replace(tzinfo=UTC)

    def beginning(self, since: Moment) -> Callable[[], int]:
        """Returns what gives the time `since` at a subscription, in nanoseconds since the Unix epoch.

        Raises:
            ValueError: It is wrong; see `past_moment`.
        """
        past_moment(since, "since", self.now())
        return lambda: past_moment(since, "since", self.now())

    def interval(self, start: Moment, stop: Moment | None) -> Callable[[], Interval]:
        """Returns what gives the interval at a subscription.

        Raises:
            ValueError: It is wrong; see `past_interval`.
        """
        past_interval(start, stop, self.now())
        return lambda: Interval(*past_interval(start, stop, self.now()))

    def clock(self) -> float:
        """Returns seconds since whenever."""
        return time.monotonic() if self._scheduler is None else self.now().timestamp()

    def start(self, tale: Tale) -> abc.DisposableBase:
        """Has a tale told; disposing ends it, without waiting for that."""
        thread = None
        if self._scheduler is None:
            thread = threading.Thread(target=self._tell, args=(tale,), name="k2eg-past", daemon=True)
        with self._lock:
            closed = self._closed
            if not closed:
                self._tales[tale] = thread
        if closed:
            tale.fail(ClientClosedError("the client is closed"))
        elif thread is not None:
            thread.start()
        else:
            self._schedule(tale, 0.0)

        def stop() -> None:
            tale.over.set()
            tale.wake.set()

        return Disposable(stop)

    def _tell(self, tale: Tale) -> None:
        while (pause := self._step(tale)) is not None:
            if pause > 0:
                tale.wake.wait(pause)

    def _schedule(self, tale: Tale, pause: float) -> None:
        def turn(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            next_pause = self._step(tale)
            if next_pause is not None:
                self._schedule(tale, max(next_pause, _PAUSE))

        if self._scheduler is not None:
            self._scheduler.schedule_relative(pause, turn)

    def _step(self, tale: Tale) -> float | None:
        """Takes a step; after the last one, clears up."""
        pause = None
        tale.wake.clear()
        try:
            pause = None if tale.over.is_set() else tale.step()
        except K2EGError as error:
            tale.fail(error)
        except Exception as error:
            _log.exception("reading the past failed")
            tale.fail(error)
        if pause is None:
            tale.over.set()
            tale.close()
            with self._lock:
                self._tales.pop(tale, None)
        return pause

    def close(self, timeout: float) -> None:
        """Fails what is still being told, and waits for the threads, for at most `timeout` seconds. Idempotent."""
        deadline = time.monotonic() + timeout
        with self._lock:
            self._closed = True
            tales = dict(self._tales)
        for tale in tales:
            if not tale.over.is_set():
                tale.fail(ClientClosedError("the client was closed before the past was told"))
            tale.over.set()
            tale.wake.set()
        for thread in tales.values():
            if thread is not None and thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
