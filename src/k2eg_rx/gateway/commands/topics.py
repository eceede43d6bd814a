"""Kafka topics of the gateway: creation before the first record, deletion, and the number of consumers.

Thread safety: belongs to the event loop thread. Blocking admin requests run on worker threads, `k2eg-gateway-topics`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Protocol

import reactivex
from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable, SerialDisposable

from k2eg_rx.concurrency import WorkerPool
from k2eg_rx.gateway.runtime.event_loop import SlicedDisposable, call_soon, in_slices
from k2eg_rx.gateway.runtime.metrics import RateLimitedWarning
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

# as the deployed gateway creates them
PV_PARTITIONS = 3
SNAPSHOT_PARTITIONS = 1

# Seconds without any response of Kafka after which waiting for a topic ends. A response takes 0.1 to 11 s, and comes
# after any outage. Records for a topic that does not exist are lost, or create it with another number of partitions;
# but a broker that never answers these requests should not keep monitors from starting.
_SILENCE_LIMIT = 300.0
# Seconds that a created topic is assumed to exist, which saves a request when several commands need it at once. Short,
# as topics may be deleted at any time; clients repeat a command 0.5 s after they notice.
_CREATED_TTL = 0.3
# Topics per request: small at first, so that the first of many topics exist soon; then larger, as each request costs a
# round trip and a wait for the broker's log files.
_FIRST_BATCH, _MAX_BATCH = 100, 400
_MAX_REQUESTS = 2  # concurrent requests: one waits for the broker's log files, the other is at the controller
_RETRY_DELAY = 1.0  # seconds until a failed request is repeated, at first; doubles with each failure
_MAX_RETRY_DELAY = 10.0  # seconds; monitors wait for the topics, and some brokers do not support the request at all
_RECREATE_DELAY = 0.5  # seconds before a missing topic is recreated: its deletion may still be in progress
_MAX_REPLY_TOPICS = 1000  # applications that are remembered per monitor; a laboratory has fewer


class TopicAdmin(Protocol):
    """Kafka administration requests.

    Thread safety: methods block for a bounded time; callable on any thread, concurrently.
    """

    def create(self, topics: Mapping[str, int]) -> Mapping[str, str]:
        """Creates those topics that do not exist.

        Args:
            topics: The number of partitions by topic name.

        Returns:
            The error message of each topic that Kafka refused.

        Raises:
            Exception: Kafka did not respond.
        """
        ...

    def listeners(self) -> Mapping[str, int] | None:
        """Returns the number of consumer group members assigned to each topic; None if unknown."""
        ...

    def end_offsets(self, topics: Collection[str]) -> Mapping[str, int]:
        """Returns the sum of the end offsets of all partitions of each topic; topics that do not exist are left out.

        Raises:
            Exception: Kafka did not respond.
        """
        ...

    def delete(self, topics: Collection[str]) -> Mapping[str, str]:
        """Deletes topics.

        Returns:
            The error message of each topic that Kafka refused to delete.

        Raises:
            Exception: Kafka did not respond.
        """
        ...

    def close(self) -> None:
        """Closes the connection to Kafka."""
        ...


class ConsumedTopics:
    """The topics whose consumers keep a monitor or a snapshot active: its own, and the reply topics of its clients.

    Clients that read events without a consumer group join one for the reply topic.

    Args:
        topic: Its own topic.
    """

    def __init__(self, topic: str) -> None:
        self._own = topic
        self._reply_topics: dict[str, None] = {}  # the latest one last
        self._unconsumed_since: datetime | None = None

    def add(self, reply_topic: str) -> None:
        """Adds the reply topic of a client that has requested the monitor or snapshot, if it has one."""
        self._unconsumed_since = None
        self._reply_topics.pop(reply_topic, None)
        if reply_topic:
            self._reply_topics[reply_topic] = None
        if len(self._reply_topics) > _MAX_REPLY_TOPICS:
            del self._reply_topics[next(iter(self._reply_topics))]

    @property
    def applications(self) -> tuple[str, ...]:
        """The reply topics."""
        return tuple(self._reply_topics)

    def have_expired(self, listeners: Mapping[str, int] | None, now: datetime, expiration: float) -> bool:
        """Returns whether none of the topics has had consumers for too long.

        Args:
            listeners: The number of consumers per topic; None if unknown.
            now: The scheduler's time.
            expiration: Seconds without consumers, from the first check that found none.
        """
        if listeners is None or any(listeners.get(topic) for topic in (self._own, *self._reply_topics)):
            self._unconsumed_since = None
            return False
        self._unconsumed_since = self._unconsumed_since or now
        return (now - self._unconsumed_since).total_seconds() >= expiration


class Topics:
    """Creates topics in batches and looks up their consumers.

    Args:
        admin: Kafka administration; None where it is unavailable.
        scheduler: The event loop.
        create: Whether topics are created.
    """

    def __init__(self, admin: TopicAdmin | None, scheduler: abc.SchedulerBase, *, create: bool) -> None:
        self._admin = admin
        self._create = create and admin is not None
        self._scheduler = scheduler
        self._exists_until: dict[str, datetime] = {}
        self._requested: dict[str, int] = {}  # partitions by topic, waiting for a request
        self._partitions: dict[str, int] = {}  # of the topics in use
        self._waiting: dict[str, list[abc.ObserverBase[Any]]] = {}
        self._request_scheduled = False
        self._running_requests = 0
        self._batch_size = _FIRST_BATCH
        self._last_response: datetime | None = None
        self._retry_delay = _RETRY_DELAY
        self._recreating: dict[str, abc.DisposableBase] = {}
        self._deleting: set[str] = set()  # created again only when the deletion is over
        self._failed = RateLimitedWarning(_log, "{} requests to create topics failed")
        self._worker = WorkerPool(_MAX_REQUESTS, "k2eg-gateway-topics")

    def ensure(self, topic: str, partitions: int) -> Observable[Any]:
        """Returns an empty stream that completes when the topic exists or Kafka refuses to create it.

        It also completes when Kafka does not respond for minutes, so that a monitor starts in any case.
        """

        def subscribe(observer: abc.ObserverBase[Any], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            self._partitions[topic] = partitions
            if not self._create or self._exists(topic):
                observer.on_completed()
                return Disposable()
            self._requested.setdefault(topic, partitions)
            self._schedule_request(0.0)  # one request for all topics of this turn of the event loop
            self._waiting.setdefault(topic, []).append(observer)
            timer = SerialDisposable()
            self._complete_on_silence(self._scheduler.now, observer, timer)
            return CompositeDisposable(timer, Disposable(lambda: self._remove_observer(topic, observer)))

        return reactivex.create(subscribe)

    def ensure_all(
        self, topics: Collection[str], partitions: int, ready: Callable[[], None], failed: Callable[[Exception], None]
    ) -> abc.DisposableBase:
        """Calls `ready` when all topics exist, as for `ensure`.

        Released clients subscribe to a topic once they have the reply. One that does not exist yet is looked for again
        a minute later, and they miss what is published until then.
        """
        waiting, missing = SlicedDisposable(self._scheduler), dict.fromkeys(topics)
        if not missing:
            ready()

        def wait_for(topic: str) -> None:
            waiting.add(self.ensure(topic, partitions).subscribe(on_completed=lambda: made(topic)))

        def made(topic: str) -> None:
            del missing[topic]
            if not missing:
                ready()

        waiting.add(in_slices(self._scheduler, list(missing), wait_for, failed=failed))
        return waiting

    def _complete_on_silence(self, since: datetime, observer: abc.ObserverBase[Any], timer: SerialDisposable) -> None:
        """Completes an observer once Kafka has not responded to anything for `_SILENCE_LIMIT`."""

        def check(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            if self._last_response is None or self._last_response <= since:
                observer.on_completed()
            else:
                self._complete_on_silence(self._last_response, observer, timer)

        timer.disposable = self._scheduler.schedule_absolute(since + timedelta(seconds=_SILENCE_LIMIT), check)

    def _remove_observer(self, topic: str, observer: abc.ObserverBase[Any]) -> None:
        waiting = self._waiting.get(topic, [])
        if observer in waiting:
            waiting.remove(observer)

    def _exists(self, topic: str) -> bool:
        return topic in self._exists_until and self._scheduler.now < self._exists_until[topic]

    def _schedule_request(self, delay: float) -> None:
        if not self._request_scheduled:
            self._request_scheduled = True
            self._scheduler.schedule_relative(delay, self._send_requests)

    def _send_requests(self, _scheduler: abc.SchedulerBase | None = None, _state: object = None) -> None:
        self._request_scheduled = False
        while (admin := self._admin) is not None and self._requested and self._running_requests < _MAX_REQUESTS:
            ready = (topic for topic in self._requested if topic not in self._deleting)
            batch = {topic: self._requested.pop(topic) for topic in list(islice(ready, self._batch_size))}
            if not batch:
                break
            self._send_request(admin, batch)
            self._batch_size = min(2 * self._batch_size, _MAX_BATCH)
        if not self._running_requests:
            self._batch_size = _FIRST_BATCH

    def _send_request(self, admin: TopicAdmin, batch: Mapping[str, int]) -> None:
        self._running_requests += 1
        self._run(lambda: admin.create(batch), lambda done: self._on_response(batch, done))

    def _on_response(self, batch: Mapping[str, int], done: Future[Any]) -> None:
        self._running_requests -= 1
        error = done.exception()
        if error is None:
            self._last_response = self._scheduler.now
            until = self._last_response + timedelta(seconds=_CREATED_TTL)
            now = self._last_response
            self._exists_until = {topic: until for topic, until in self._exists_until.items() if until > now}
            self._exists_until.update(dict.fromkeys(batch, until))  # refused ones too, so as not to repeat at once
            self._retry_delay = _RETRY_DELAY
            for topic, reason in done.result().items():
                self._failed.count(f"topic={topic} error={reason}")
            self._send_requests()
        else:
            self._failed.count(error)
            self._requested = {**batch, **self._requested}
            if not self._request_scheduled:  # otherwise the concurrent request failed just before
                self._schedule_request(self._retry_delay)
                self._retry_delay = min(2 * self._retry_delay, _MAX_RETRY_DELAY)
            return  # what waits for the topics goes on waiting
        waiting = [(topic, observer) for topic in batch for observer in self._waiting.pop(topic, [])]
        in_slices(self._scheduler, waiting, lambda pair: self._complete(*pair))

    @staticmethod
    def _complete(topic: str, observer: abc.ObserverBase[Any]) -> None:
        try:
            observer.on_completed()
        except Exception:  # of this observer only
            _log.exception("waiting for a topic failed: topic=%s", topic)

    def forget(self, topic: str) -> None:
        """Notes that nothing is published to a topic any more: it is not recreated."""
        self._partitions.pop(topic, None)

    def recreate(self, topic: str, on_created: Callable[[], None]) -> None:
        """Creates a missing topic again, if this gateway created it before.

        Args:
            topic: Its name.
            on_created: Called when the topic exists, or Kafka did not respond in time.
        """
        partitions = self._partitions.get(topic)
        if partitions is None or topic in self._recreating:
            return

        def create(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            del self._recreating[topic]
            self._exists_until.pop(topic, None)
            self.ensure(topic, partitions).subscribe(on_completed=on_created)

        self._recreating[topic] = self._scheduler.schedule_relative(_RECREATE_DELAY, create)

    def listeners(self, on_result: Callable[[Mapping[str, int] | None], None]) -> None:
        """Looks up the number of consumers of each topic; calls `on_result` with None if it is unknown."""
        admin = self._admin
        if admin is None:
            on_result(None)
            return

        def on_done(done: Future[Any]) -> None:
            error = done.exception()
            if error is not None:
                _log.debug("consumer lookup failed: error=%s", error)
            on_result(None if error is not None else done.result())

        self._run(admin.listeners, on_done)

    def end_offsets(self, topics: Collection[str], on_result: Callable[[Mapping[str, int]], None]) -> None:
        """Looks up the sum of the end offsets of topics; calls `on_result` with those that are known."""
        admin = self._admin
        if admin is None:
            return

        def on_done(done: Future[Any]) -> None:
            error = done.exception()
            if error is None:
                on_result(done.result())
            else:
                _log.debug("look-up of end offsets failed: error=%s", error)

        self._run(lambda: admin.end_offsets(topics), on_done)

    def delete(self, topics: Collection[str], on_no_answer: Callable[[Collection[str]], None] = lambda _: None) -> None:
        """Deletes topics that nothing here needs; one that is needed meanwhile is created again after that.

        Args:
            topics: The topics.
            on_no_answer: Called with the topics if Kafka has not answered.
        """
        admin = self._admin
        topics = [topic for topic in topics if topic not in self._partitions]
        if admin is None or not topics:
            return
        self._deleting.update(topics)
        for topic in topics:
            self._exists_until.pop(topic, None)

        def on_done(done: Future[Any]) -> None:
            self._deleting.difference_update(topics)
            error = done.exception()
            refused: Mapping[str, str] = dict.fromkeys(topics, str(error)) if error is not None else done.result()
            for topic in topics:
                if topic in refused:
                    _log.warning("topic not deleted: topic=%s error=%s", topic, refused[topic])
                else:
                    _log.info("topic deleted: topic=%s reason=no consumers", topic)
            if error is not None:
                on_no_answer(topics)
            if self._requested:
                self._schedule_request(0.0)

        self._run(lambda: admin.delete(topics), on_done)

    def _run(self, request: Callable[[], Any], on_done: Callable[[Future[Any]], None]) -> None:
        """Runs a blocking request on a worker thread and calls `on_done` on the event loop thread."""
        future: Future[Any] = Future()

        def work() -> None:
            try:
                future.set_result(request())
            except Exception as error:
                future.set_exception(error)
            call_soon(self._scheduler, lambda: on_done(future))

        self._worker.submit(work)

    def close(self, timeout: float) -> None:
        """Closes the admin client; a running request ends by itself, and the exit of the process waits for it."""
        self._worker.close(timeout, at_exit=True)
        if self._admin is not None:
            self._admin.close()
