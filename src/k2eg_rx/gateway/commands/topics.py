"""Kafka topics as the gateway needs them: made before they are written to, and looked after whether anybody reads.

In: names. Out: Observables that complete when a topic is there (or Kafka did not say so in time), and who listens.
The administration blocks, so it has threads of its own, `k2eg-gateway-topics`, with a request each; the rest belongs to
the gateway's thread, and never waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Protocol

import reactivex
from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable, SerialDisposable

from k2eg_rx.concurrency import WorkerPool
from k2eg_rx.gateway.runtime.event_loop import call_soon
from k2eg_rx.gateway.runtime.metrics import RateLimitedWarning

_log = logging.getLogger(__name__)

PV_PARTITIONS = 3  # the deployed gateway's numbers
SNAPSHOT_PARTITIONS = 1

# Seconds without an answer of Kafka for which a first event waits for its topic; an answer takes 0.1 to 5 s, or comes
# after 11 s or not at all. A record for a topic that is not there yet is lost, or makes one with another number of
# partitions: as long as Kafka gets on with two thousand topics, each waits for its turn.
_PATIENCE = 12.0
# Seconds that a topic is taken to be there, for those who want it at the same time. Others may delete it at once; a
# client that notices asks again after half a second. Asking Kafka once more costs a request.
_MEMORY = 0.3
# Topics in one request: the first of many need not wait for the last; the others do not cost a round trip, and the wait
# for a broker that has to make its files, for each hundred.
_AT_FIRST, _AT_MOST = 100, 400
# Requests under way: while one is waited for until the broker has made its files, the next is with the controller.
_SIDE_BY_SIDE = 2
_RETRY = 1.0  # seconds until what Kafka has not answered is asked again, at first
_LONGEST_RETRY = 30.0  # a broker may not know the request at all
_PAUSE = 0.5  # seconds between noticing that a topic is missing and asking for it: it may be about to be deleted


class TopicAdmin(Protocol):
    """Kafka's administration. Methods block, for a bounded time; any thread, several at a time."""

    def create(self, topics: Mapping[str, int]) -> Mapping[str, str]:
        """Creates the topics (name: partitions) that are not there yet.

        Returns:
            The topics that Kafka refused, with what it said.

        Raises:
            Exception: Kafka did not answer.
        """
        ...

    def listeners(self) -> Mapping[str, int] | None:
        """Returns how many members the consumer groups have that are assigned each topic; None if that is unknown."""
        ...

    def close(self) -> None:
        """Ends it."""
        ...


class Topics:
    """The topics of a gateway.

    Args:
        admin: Kafka's administration; None where there is none to be used.
        create: Whether topics are to be created.
        scheduler: The gateway's thread.
    """

    def __init__(self, admin: TopicAdmin | None, scheduler: abc.SchedulerBase, *, create: bool) -> None:
        self._admin = admin
        self._create = create and admin is not None
        self._scheduler = scheduler
        self._known: dict[str, datetime] = {}  # until when a topic is taken to be there
        self._wanted: dict[str, int] = {}
        self._made: dict[str, int] = {}  # what was asked for at any time, with its number of partitions
        self._waiting: dict[str, list[abc.ObserverBase[Any]]] = {}
        self._is_due = False  # a request is about to be made
        self._under_way = 0
        self._at_once = _AT_FIRST
        self._answered: datetime | None = None  # when Kafka did so last
        self._is_silent = False  # Kafka has not answered the latest request
        self._retry = _RETRY
        self._missing: dict[str, abc.DisposableBase] = {}
        self._warning = RateLimitedWarning(
            _log, "{} requests to create topics failed; events are published nevertheless"
        )
        self._worker = WorkerPool(_SIDE_BY_SIDE, "k2eg-gateway-topics")

    def ensured(self, topic: str, partitions: int) -> Observable[Any]:
        """Returns a stream without items that completes when a topic is there.

        It also completes, soon, when Kafka does not answer: a monitor begins in any case.
        """

        def subscribe(observer: abc.ObserverBase[Any], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            if not self._create or self._is_known(topic):
                observer.on_completed()
                return Disposable()
            self._want(topic, partitions)
            if self._is_silent:
                observer.on_completed()
                return Disposable()
            self._waiting.setdefault(topic, []).append(observer)
            timer = SerialDisposable()
            self._watch(self._scheduler.now, observer, timer)
            return CompositeDisposable(timer, Disposable(lambda: self._left(topic, observer)))

        return reactivex.create(subscribe)

    def _watch(self, since: datetime, observer: abc.ObserverBase[Any], timer: SerialDisposable) -> None:
        """Has an observer wait no longer once Kafka has answered nothing for too long."""

        def look(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            if self._answered is None or self._answered <= since:
                observer.on_completed()
            else:
                self._watch(self._answered, observer, timer)

        timer.disposable = self._scheduler.schedule_absolute(since + timedelta(seconds=_PATIENCE), look)

    def _left(self, topic: str, observer: abc.ObserverBase[Any]) -> None:
        waiting = self._waiting.get(topic, [])
        if observer in waiting:
            waiting.remove(observer)

    def _is_known(self, topic: str) -> bool:
        return topic in self._known and self._scheduler.now < self._known[topic]

    def _want(self, topic: str, partitions: int) -> None:
        self._wanted.setdefault(topic, partitions)
        self._request_in(0.0)  # what is wanted by the end of this turn goes into one request

    def _request_in(self, seconds: float) -> None:
        if not self._is_due:
            self._is_due = True
            self._scheduler.schedule_relative(seconds, self._request)

    def _request(self, _scheduler: abc.SchedulerBase | None = None, _state: object = None) -> None:
        self._is_due = False
        while (admin := self._admin) is not None and self._wanted and self._under_way < _SIDE_BY_SIDE:
            self._ask(admin, {topic: self._wanted.pop(topic) for topic in list(islice(self._wanted, self._at_once))})
            self._at_once = min(2 * self._at_once, _AT_MOST)
        if not self._under_way:
            self._at_once = _AT_FIRST

    def _ask(self, admin: TopicAdmin, some: Mapping[str, int]) -> None:
        self._under_way += 1
        self._do(lambda: admin.create(some), lambda done: self._created(some, done))

    def _created(self, wanted: Mapping[str, int], done: Future[Any]) -> None:
        self._under_way -= 1
        error = done.exception()
        if error is None:
            self._answered = self._scheduler.now
            until = self._answered + timedelta(seconds=_MEMORY)
            self._known.update(dict.fromkeys(wanted, until))  # what was refused is not asked for at once again either
            self._is_silent, self._retry = False, _RETRY
            for topic, reason in done.result().items():
                self._warning.count(f"{topic}: {reason}")
            self._request()
        else:
            self._warning.count(error)
            self._wanted = {**wanted, **self._wanted}
            self._is_silent = True
            if not self._is_due:  # else the other request has failed just before
                self._request_in(self._retry)
                self._retry = min(2 * self._retry, _LONGEST_RETRY)
        for topic in wanted:
            self._made[topic] = wanted[topic]
            for observer in self._waiting.pop(topic, []):
                observer.on_completed()

    def recreate(self, topic: str, then: Callable[[], None]) -> None:
        """Takes note that a topic is not there; it is made once more if it was made here.

        Args:
            topic: Its name.
            then: Called when it is there, or Kafka did not say so in time.
        """
        partitions = self._made.get(topic)
        if partitions is None or topic in self._missing:
            return

        def ask(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            del self._missing[topic]
            self._known.pop(topic, None)
            self.ensured(topic, partitions).subscribe(on_completed=then)

        self._missing[topic] = self._scheduler.schedule_relative(_PAUSE, ask)

    def listeners(self, tell: Callable[[Mapping[str, int] | None], None]) -> None:
        """Has `tell` called, on the gateway's thread, with who listens to which topic; with None if that is unknown."""
        admin = self._admin
        if admin is None:
            tell(None)
            return

        def told(done: Future[Any]) -> None:
            error = done.exception()
            if error is not None:
                _log.debug("who listens is unknown: %s", error)
            tell(None if error is not None else done.result())

        self._do(admin.listeners, told)

    def _do(self, request: Callable[[], Any], then: Callable[[Future[Any]], None]) -> None:
        future: Future[Any] = Future()

        def work() -> None:
            try:
                future.set_result(request())
            except Exception as error:
                future.set_exception(error)
            call_soon(self._scheduler, lambda: then(future))

        self._worker.submit(work)

    def close(self, timeout: float) -> None:
        """Ends the administration; a request under way ends by itself, in bounded time."""
        self._worker.close(timeout)
        if self._admin is not None:
            self._admin.close()
