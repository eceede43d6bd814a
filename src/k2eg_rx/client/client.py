"""The client: one connection to a K2EG gateway, and its PVs and snapshots as streams.

In: calls, from any thread. Out: reactivex Observables. The client starts the threads of its transport, one for timers
and, when there is something to hand over, a few for subscribers; `close` ends them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx.arguments import addressed, named, positive
from k2eg_rx.client.batches import GetResult, PutResult
from k2eg_rx.client.blocking import Answer
from k2eg_rx.client.core import Core
from k2eg_rx.client.get_put import get_request
from k2eg_rx.client.lifecycle import Lifecycle, close_at_exit
from k2eg_rx.client.requests import Request
from k2eg_rx.client.snapshots import one_shot_snapshot
from k2eg_rx.client.status import Status
from k2eg_rx.concurrency import PRODUCTION, current_runtime
from k2eg_rx.delivery import DEFAULT_CAPACITY, Overflow, SubscriberInput
from k2eg_rx.history import Moment
from k2eg_rx.protocol import PVData, PVUpdate, Reply, Snapshot, SnapshotMessage, SnapshotProperties
from k2eg_rx.pv import PVAddress
from k2eg_rx.settings import Settings
from k2eg_rx.transport import Transport

_T = TypeVar("_T")

# The deployed gateway gives up a get or a put after 10 s and says so: its word is worth waiting for.
DEFAULT_TIMEOUT = 12.0
# Long enough that PVs that never change cost nothing to speak of, short enough for an operator to wait.
DEFAULT_SILENCE = 60.0
_CLOSE_TIMEOUT = 5.0


class Client:
    """A client of a K2EG gateway.

    Every method that returns a stream raises ValueError at the call for a bad argument. Streams of one answer (`get`,
    `put`, one-shot snapshots) send one command per subscription; those of monitors and recurring snapshots are hot:
    shared by all subscribers in this client, and open while there is one.

    Subscribers are called on threads of a pool, each subscriber's items in order and one at a time; or on the
    scheduler given to `subscribe`.

    Args:
        environment_id: The environment: the name of its ``.ini`` file. See `k2eg_rx.settings`.
        app_name: The application: its instances share a reply topic.
        group_name: Given, the clients of that group share the events of monitors and snapshots among them, each event
            to one of them. Without it every client gets every event.
        settings: An environment made in the program, in place of a file.
        transport: Another way to a gateway than Kafka, such as one in memory for tests.
        timeout: Seconds that operations may take which are given no timeout of their own.
        silence: Seconds without an event after which a monitor or a recurring snapshot is asked for again, since its
            gateway may have been restarted. A PV that does not change is sent once more for it.

    Raises:
        ValueError: The environment is missing or wrong, or `app_name` is.
    """

    def __init__(
        self,
        environment_id: str,
        app_name: str,
        group_name: str | None = None,
        *,
        settings: Settings | None = None,
        transport: Transport | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        silence: float = DEFAULT_SILENCE,
    ) -> None:
        runtime = current_runtime()
        self.settings = settings or runtime.settings(environment_id, app_name)
        self.app_name = app_name
        self._group_name = group_name
        self.timeout = positive(timeout, "timeout")
        self._life = Lifecycle()
        self._core = Core(
            self.settings,
            transport,
            app_name,
            group_name,
            timeout=self.timeout,
            silence=positive(silence, "silence"),
            # a transport that is given is driven by threads of its own, not by virtual time
            runtime=runtime if transport is None else PRODUCTION,
        )
        close_at_exit(self)

    def get_stream(self, uri: str, timeout: float | None = None) -> Observable[PVData]:
        """Returns a stream of one: the PV's value.

        Args:
            uri: The PV, ``pva://NAME`` or ``ca://NAME``, also of a field.
            timeout: Seconds until `OperationTimeout`.
        """
        address, seconds = PVAddress.parse(uri), self._seconds(timeout)
        return self._answer(get_request(address, seconds))

    def put_stream(
        self, uri: str, value: object, timeout: float | None = None, *, check: bool = True
    ) -> Observable[Reply]:
        """Returns a stream of one: the gateway's reply to a put.

        Args:
            uri: The PV.
            value: A plain or numpy value: a number, string, sequence, mapping of fields, or of columns for a table; an
                enum's index or label. Or a `MessagePackSerializable`, which is sent as given.
            timeout: Seconds until `OperationTimeout`; the command may be carried out even then.
            check: False sends a plain value as it is, without a look at the PV's type. The deployed gateway then
                writes wrong values without a word (an enum's label sets index 0, a scalar empties an array).

        The stream fails with ValueError if the value does not fit the PV.
        """
        address, seconds = PVAddress.parse(uri), self._seconds(timeout)
        return self._core.delivery.hand_over(self._core.puts.put(address, value, seconds, check=check), address.uri)

    def get_many_stream(self, uris: Iterable[str], timeout: float | None = None) -> Observable[GetResult]:
        """Returns a stream of one result per PV, data or error, in the order in which they come; then it completes.

        All PVs are asked for at once, so that it takes about as long as the slowest. One that does not answer in time
        has `OperationTimeout` as its result and delays nobody else's. Each subscription asks once more. If the
        client is closed meanwhile, what has not answered has `ClientClosedError`.

        Args:
            uris: The PVs; one that is named twice is read once.
            timeout: Seconds for all of them.

        Example:
            >>> from reactivex import operators as ops
            >>> from k2eg_rx import first
            >>> from k2eg_rx.testing import ScriptedGateway
            >>> with ScriptedGateway() as gateway, gateway.client() as client:
            ...     _ = gateway.pv("my:x", 1.5)
            ...     stream = client.get_many_stream(["pva://my:x", "ca://my:dead"], timeout=2.0)
            ...     for got in first(stream.pipe(ops.to_list())):
            ...         print(got.uri, got.error or got.result().value)
            pva://my:x 1.5
            ca://my:dead get of ca://my:dead: no reply within 2 s
        """
        addresses, seconds = self._addresses(uris), self._seconds(timeout)
        return self._core.batches.get_many(addresses, seconds)

    def put_many_stream(
        self, values: Mapping[str, object], timeout: float | None = None, *, check: bool = True
    ) -> Observable[PutResult]:
        """Returns a stream of one result per PV, reply or error, in the order in which they come; then it completes.

        All PVs are written at once and in no certain order. A value that does not fit its PV is that PV's error, and
        the others are written. The types of PVs that are not known yet are asked for first, all at once.

        Args:
            values: By URI what to write, as for `put_stream`.
            timeout: Seconds for all of them.
            check: As for `put_stream`.

        Example:
            >>> from reactivex import operators as ops
            >>> from k2eg_rx import first
            >>> from k2eg_rx.testing import ScriptedGateway
            >>> with ScriptedGateway() as gateway, gateway.client() as client:
            ...     x, mode = gateway.pv("my:x", 0.0), gateway.pv("my:mode", "Off", choices=["Off", "On"])
            ...     stream = client.put_many_stream({"pva://my:x": 1.5, "pva://my:mode": "On"})
            ...     for put in first(stream.pipe(ops.to_list())):
            ...         print(put.uri, put.error or put.result().message)
            pva://my:x Successfull operation
            pva://my:mode Successfull operation
        """
        if not isinstance(values, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"a mapping of PV URIs to values is expected, not {values!r}")
        given = dict(values)
        addresses, seconds = self._addresses(given), self._seconds(timeout)
        pairs = zip(addresses, given.values(), strict=True)
        return self._core.batches.put_many(pairs, seconds, check=check)

    def monitor_stream(
        self,
        uri: str,
        *,
        since: Moment | None = None,
        overflow: Overflow | str = Overflow.BLOCK,
        capacity: int = DEFAULT_CAPACITY,
    ) -> Observable[PVUpdate]:
        """Returns the hot stream of a PV's updates; a later subscriber first gets the last known one.

        Args:
            uri: The PV.
            since: Given, the subscriber first gets what Kafka still keeps of the PV from then on, as fast as it takes
                it, and then what comes, without gap or duplicate: see `monitor_many_stream`.
            overflow: What happens to updates that this subscriber is too slow for; see `Overflow`.
            capacity: How many updates may wait for this subscriber.
        """
        return self.monitor_many_stream([uri], since=since, overflow=overflow, capacity=capacity)

    def monitor_many_stream(
        self,
        uris: Iterable[str],
        *,
        since: Moment | None = None,
        overflow: Overflow | str = Overflow.BLOCK,
        capacity: int = DEFAULT_CAPACITY,
    ) -> Observable[PVUpdate]:
        """Returns the hot streams of several PVs as one, in the order in which the updates come.

        With `since`, each subscriber first gets the past from then on, merged by event time, in updates whose
        `replayed` is True; then what comes. Of a PV that has no past from then on, it first gets the last known update,
        as any later subscriber does. What counts is EPICS time (Kafka's for an event without it); an event is found if
        Kafka got it no more than a minute before its EPICS time. Kafka keeps events for as long as the topic's
        retention says, an hour by default: what is older is missing without a word, and so is the past of a PV that
        nobody has monitored. A subscriber that is slow gets the past more slowly, whatever it holds back; live updates
        that do not fit into `capacity` meanwhile are read back from Kafka, as part of the past. Other subscribers wait
        for none of that. Each subscription reads with a consumer of its own until it is live, so it takes one for many
        PVs rather than many for one.

        Args:
            uris: The PVs.
            since: A time with a time zone, or how long before the subscription. None: only what comes. A client with a
                `group_name` has no past: the events are shared out there, not repeated.
            overflow: As for `monitor_stream`. With ``latest`` and ``drop_oldest`` it applies to the past, too, which
                comes fast: use ``block``, the default, to get all of it.
            capacity: As for `monitor_stream`; for all the PVs together.

        Example:
            >>> def last_minutes(client):
            ...     stream = client.monitor_stream("pva://gun:current", since=timedelta(minutes=10))
            ...     return stream.subscribe(lambda update: print(update.replayed, update.value))
        """
        addresses, policy = self._addresses(uris), Overflow(overflow)
        if since is None:
            return self._core.monitors.updates(addresses, policy, capacity)
        if self._group_name is not None:
            raise ValueError("since: the clients of a group share events out among them; leave group_name out for that")
        began = self._core.past.beginning(since)
        return self._core.monitors.updates_since(addresses, began, policy, capacity)

    def replay_stream(
        self,
        uris: Iterable[str],
        start: Moment,
        stop: Moment | None = None,
        *,
        speed: float | None = None,
        capacity: int = DEFAULT_CAPACITY,
    ) -> Observable[PVUpdate]:
        """Returns the past of several PVs as one finite stream, merged by event time.

        It needs no gateway and disturbs no monitor: it reads what Kafka still keeps, as for `since` of
        `monitor_many_stream`; all `replayed` are True. The order is that of EPICS time, but the updates of one PV come
        in the order in which they were published. Every subscription reads anew, with a consumer of its own, only as
        fast as it is told, and the subscriber takes it; what Kafka removes meanwhile is missing. A client with a
        `group_name` replays everything, too.

        The stream fails with `OperationTimeout` if Kafka does not answer for the client's timeout.

        Args:
            uris: The PVs. One that has no topic has no past.
            start: The event time from which on, with a time zone; or how long before the subscription.
            stop: The event time before which it ends, likewise; None for all there is at the time of the subscription.
            speed: 1 as it was, 60 an hour in a minute, None as fast as possible. The first update comes at once.
            capacity: How many updates may wait for this subscriber.

        Example:
            >>> def an_hour_in_a_minute(client):
            ...     stream = client.replay_stream(["pva://bpm:1:x", "pva://bpm:2:x"], timedelta(hours=1), speed=60)
            ...     return stream.subscribe(lambda update: print(update.name, update.value))
        """
        addresses, interval = self._addresses(uris), self._core.past.interval(start, stop)
        return self._core.replays.updates(addresses, interval, speed, capacity)

    def activation_stream(self, uris: Iterable[str], timeout: float | None = None) -> Observable[Reply]:
        """Returns a stream of one: the gateway's answer to the activation of PVs that are monitored by this client.

        A gateway acknowledges a monitor before it knows whether the PV exists.

        Args:
            uris: The PVs.
            timeout: Seconds until `OperationTimeout`.
        """
        activation = self._core.monitors.activation(self._addresses(uris), self._seconds(timeout))
        return self._core.delivery.hand_over(activation, "activation")

    def snapshot_stream(
        self, uris: Iterable[str], timeout: float | None = None, *, duration: float | None = None
    ) -> Observable[Snapshot]:
        """Returns a stream of one: the values of several PVs, acquired together by the gateway.

        Args:
            uris: The PVs. One that has no data in time has an empty list in the snapshot.
            timeout: Seconds until `OperationTimeout`, `duration` included.
            duration: Seconds that the gateway waits for the PVs; 1 by default.
        """
        addresses, seconds = self._addresses(uris), self._seconds(timeout)
        window = None if duration is None else positive(duration, "duration")
        return self._core.delivery.hand_over(
            one_shot_snapshot(self._core.requests, addresses, seconds, window), f"snapshot of {len(addresses)} PVs"
        )

    def snapshot_recurring_stream(
        self,
        properties: SnapshotProperties,
        *,
        check_fields: bool = True,
        overflow: Overflow | str = Overflow.BLOCK,
        capacity: int = DEFAULT_CAPACITY,
    ) -> Observable[Snapshot]:
        """Returns the hot stream of a recurring snapshot, an item per iteration.

        The first subscriber starts it. It runs in the gateway, for other clients too, until `snapshot_stop_stream`.

        Args:
            properties: What to acquire, and when.
            check_fields: Whether a ``timedbuffered`` snapshot with a field filter is started only after a look whether
                every PV has the fields; the deployed gateway dies of one that has not.
            overflow: As for `monitor_stream`.
            capacity: As for `monitor_stream`.
        """
        self._life.require_open()
        return self._core.recurring.snapshots(properties, Overflow(overflow), capacity, check_fields=check_fields)

    def snapshot_events_stream(
        self,
        properties: SnapshotProperties,
        *,
        check_fields: bool = True,
        overflow: Overflow | str = Overflow.BLOCK,
        capacity: int = DEFAULT_CAPACITY,
    ) -> Observable[SnapshotMessage]:
        """Returns the hot stream of a recurring snapshot's headers, data and tails, as they come.

        With `sub_push_delay_msec` data come before the window ends. Arguments as for `snapshot_recurring_stream`.
        """
        self._life.require_open()
        return self._core.recurring.messages(properties, Overflow(overflow), capacity, check_fields=check_fields)

    def snapshot_activation_stream(self, name: str, timeout: float | None = None) -> Observable[Reply]:
        """Returns a stream of one: the gateway's answer to the start of a recurring snapshot subscribed to here."""
        return self._core.delivery.hand_over(self._core.recurring.activation(name, self._seconds(timeout)), name)

    def snapshot_trigger_stream(
        self, name: str, timeout: float | None = None, *, tags: Mapping[str, str] | None = None
    ) -> Observable[Reply]:
        """Returns a stream of one: the reply to a trigger of a triggered snapshot."""
        trigger = self._core.recurring.trigger(named(name), self._seconds(timeout), dict(tags or {}))
        return self._core.delivery.hand_over(trigger, name)

    def snapshot_stop_stream(self, name: str, timeout: float | None = None) -> Observable[Reply]:
        """Returns a stream of one: the reply to a stop. The snapshot's streams complete after its last iteration."""
        return self._core.delivery.hand_over(self._core.recurring.stop(named(name), self._seconds(timeout)), name)

    def ready_stream(self, timeout: float | None = None) -> Observable[Status]:
        """Returns a stream of one: the status, as soon as replies can be received."""
        seconds = self._seconds(timeout)
        return self._core.delivery.hand_over(
            self._core.requests.ready(seconds).pipe(ops.map(lambda _: self.status)), "ready"
        )

    def status_stream(self) -> Observable[Status]:
        """Returns the client's status: the present one, then each change."""
        self._life.require_open()
        status = self._core.status.stream()

        def attach(inlet: SubscriberInput[Status]) -> Any:
            return status.subscribe(lambda item: inlet.offer((item,)), inlet.finish, inlet.finish)

        return self._core.delivery.stream(attach, "status", Overflow.LATEST)

    @property
    def status(self) -> Status:
        """The client's status now."""
        return self._core.status.now()

    def close(self, timeout: float = _CLOSE_TIMEOUT) -> None:
        """Completes the hot streams, fails what is pending, leaves Kafka and ends the threads.

        May be called anywhere, in a subscriber too, and more than once.

        Args:
            timeout: Seconds that it may take at most.
        """
        if self._life.is_elsewhere():
            return  # a forked child: the threads are the parent's
        if not self._life.begin_close():
            self._life.await_end(0 if self._core.delivery.is_worker() else timeout)
            return
        self._core.close(timeout)
        self._life.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, request: Request[_T]) -> Observable[_T]:
        def stream() -> Observable[_T]:
            return self._core.delivery.hand_over(self._core.requests.single(request), request.subject)

        return Answer(stream, lambda: self._core.requests.wait(request))

    def _addresses(self, uris: Iterable[str]) -> list[PVAddress]:
        self._life.require_open()
        return addressed(uris)

    def _seconds(self, timeout: float | None) -> float:
        self._life.require_open()
        return self.timeout if timeout is None else positive(timeout, "timeout")
