"""The streams of a client: a connection to a K2EG gateway whose PVs and snapshots are Observables.

Thread safety: any thread. A client has the threads of its transport, one for timers, and a pool that calls
subscribers; `Client.close` ends them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from reactivex import Observable, abc
from reactivex import operators as ops

from k2eg_rx.arguments import (
    LONGEST_TIMEOUT,
    addressed,
    at_least_one,
    check_one_protocol,
    flag,
    instance,
    mapping,
    named,
    non_negative,
    one_of,
    positive,
    text,
    text_of,
    timeout_of,
)
from k2eg_rx.client.batch import GetResult, PutResult
from k2eg_rx.client.blocking import RequestObservable
from k2eg_rx.client.core import Core
from k2eg_rx.client.gateways import DEFAULT_WAIT, gateway_reports
from k2eg_rx.client.get_put import get_request, warns_if_unused
from k2eg_rx.client.lifecycle import Lifecycle
from k2eg_rx.client.requests import Request
from k2eg_rx.client.snapshots import one_shot_snapshot
from k2eg_rx.client.status import Status
from k2eg_rx.concurrency import PRODUCTION, close_at_exit, current_runtime
from k2eg_rx.delivery import DEFAULT_CAPACITY, Overflow, SubscriberInput
from k2eg_rx.errors import require_extra
from k2eg_rx.history import Moment, Positions
from k2eg_rx.protocol import (
    ColumnBatch,
    ConnectionEvent,
    PVData,
    PVUpdate,
    Reply,
    Snapshot,
    SnapshotMessage,
    SnapshotProperties,
)
from k2eg_rx.pv import PULSE_ID_MASK, PVAddress
from k2eg_rx.settings import Settings, check_app_name, check_group_name
from k2eg_rx.texts import shown
from k2eg_rx.transport import Transport

if TYPE_CHECKING:
    from k2eg_rx.protocol import GatewayReport

_T = TypeVar("_T")

DEFAULT_TIMEOUT = 12.0  # the deployed gateway itself reports a timeout of a get or put after 10 s
DEFAULT_SILENCE = 60.0  # long enough to cost little for PVs that never change, short enough for an operator to wait
_CLOSE_TIMEOUT = 5.0
_SHORTEST_SILENCE = 0.001  # seconds: with less, a client would do nothing but activate monitors


class StreamClient:
    """The streams of a client of a K2EG gateway: what `Client` and `k2eg.dml` have in common.

    For the arguments see `Client`, which has blocking methods beside the streams. Use this class as the type of an
    argument that takes a `Client` or a `k2eg.dml`.

    Raises:
        ValueError: The environment does not exist or is invalid, or another argument is.
    """

    def __init__(
        self,
        environment_id: str,
        app_name: str,
        *,
        group_name: object = None,
        settings: Settings | None = None,
        transport: Transport | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        silence: float = DEFAULT_SILENCE,
        snapshot_wait: float | None = None,
    ) -> None:
        group = check_arguments(
            environment_id, app_name, group_name, settings, transport, timeout=timeout, silence=silence
        )
        check_snapshot_wait(snapshot_wait)
        runtime = current_runtime()
        self.settings = settings or runtime.settings(environment_id, app_name)
        self.app_name = app_name
        self.timeout = float(timeout)
        self._environment_id = environment_id
        self._group_name = group
        self._lifecycle = Lifecycle()
        self._core = Core(
            self.settings,
            transport,
            app_name,
            group,
            timeout=self.timeout,
            silence=float(silence),
            snapshot_wait=None if snapshot_wait is None else float(snapshot_wait),
            # a transport that is given has threads of its own, which do not follow virtual time
            runtime=runtime if transport is None else PRODUCTION,
        )
        close_at_exit(self)

    def __repr__(self) -> str:
        connection = self.status.connection.value if self._lifecycle.is_open else "closed"
        return (
            f"<{type(self).__name__} environment={self._environment_id!r} app={self.app_name!r}"
            f" connection={connection!r} monitors={len(self._core.monitors)}>"
        )

    def get_stream(self, uri: str, timeout: float | None = None) -> Observable[PVData]:
        """Returns a PV's value as a single-item Observable.

        Args:
            uri: The PV, ``pva://NAME`` or ``ca://NAME``, or a field of it.
            timeout: Seconds until `OperationTimeout`.
        """
        address, seconds = PVAddress.parse(uri), self._seconds(timeout)
        return self._request(get_request(address, seconds))

    def put_stream(
        self, uri: str, value: object, timeout: float | None = None, *, wait: bool = False, check: bool = True
    ) -> Observable[Reply]:
        """Returns the gateway's reply to a put as a single-item Observable.

        It fails with ValueError if the value does not fit the PV. Nothing is written before it is subscribed to; one
        that is never subscribed to is a UserWarning.

        Args:
            uri: The PV.
            value: A plain value or one of numpy, pandas or p4p: a number, string, sequence, mapping of fields, mapping
                of columns, rows or a DataFrame for a table, a p4p `Value`, an enum's index or label. Or a
                `MessagePackSerializable`, which is sent as given.
            timeout: Seconds until `OperationTimeout`; the gateway may still execute the put after that.
            wait: Whether the reply waits until the record has completed what the put started, such as a motor's move.
                Otherwise the put is written at once. A gateway without support ignores it: `Reply.completed` tells.
            check: False sends a plain value without regard to the PV's type. The deployed gateway then writes wrong
                values without an error: an enum's label sets index 0, a scalar empties an array.
        """
        address, seconds = PVAddress.parse(uri), self._seconds(timeout)
        flag(check, "check")
        flag(wait, "wait")
        put = self._core.puts.put(address, value, seconds, wait=wait, check=check)
        return self._dispatched(warns_if_unused(put, f"put_stream({shown(uri)})"), address.uri)

    def get_many_stream(self, uris: Iterable[str], timeout: float | None = None) -> Observable[GetResult]:
        """Returns one result per PV, with data or an error, in the order of arrival.

        All commands are sent at once, so that the stream takes about as long as the slowest PV. A PV without a reply in
        time has `OperationTimeout` as its result and delays no other. If the client is closed meanwhile, PVs without a
        reply have `ClientClosedError`.

        Args:
            uris: The PVs; repeated ones are read once.
            timeout: Seconds for all PVs together.

        Example:
            >>> from reactivex import operators as ops
            >>> from k2eg_rx import first
            >>> from k2eg_rx.testing import ScriptedGateway
            >>> with ScriptedGateway() as gateway, gateway.client() as client:
            ...     _ = gateway.pv("my:x", 1.5)
            ...     stream = client.get_many_stream(["pva://my:x", "ca://my:dead"], timeout=2.0)
            ...     for got in first(stream.pipe(ops.to_list())):
            ...         print(got.uri, type(got.error).__name__ if got.error else got.result().value)
            pva://my:x 1.5
            ca://my:dead OperationTimeout
        """
        addresses, seconds = self._addresses(uris), self._seconds(timeout)
        return self._core.batches.get_many(addresses, seconds)

    def put_many_stream(
        self,
        values: Mapping[str, object],
        timeout: float | None = None,
        *,
        wait: bool = False,
        check: bool = True,
        all_or_none: bool = False,
    ) -> Observable[PutResult]:
        """Returns one result per PV, with a reply or an error, in the order of arrival.

        All PVs are written at once, in no particular order. A value that does not fit its PV is an error of that PV
        only. Types of PVs that are not known yet are requested first, all at once.

        Args:
            values: The values to write, by URI; see `put_stream`.
            timeout: Seconds for all PVs together.
            wait: As for `put_stream`.
            check: As for `put_stream`.
            all_or_none: Whether a value that does not fit, or a type that is not known in time, withholds all puts; the
                other results then have `PutWithheldError`. A put that fails after that does not affect the others.
                To end the subscription stops nothing once a part was sent.

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
        flag(check, "check")
        flag(wait, "wait")
        flag(all_or_none, "all_or_none")
        given = mapping(values, "values", "a mapping of PV URIs to values")
        addresses, seconds = self._addresses(given), self._seconds(timeout)
        pairs = zip(addresses, given.values(), strict=True)
        puts = self._core.batches.put_many(pairs, seconds, wait=wait, check=check, all_or_none=all_or_none)
        return warns_if_unused(puts, f"put_many_stream({shown(list(given))})")

    @overload
    def monitor_stream(
        self,
        uri: str,
        *,
        since: Moment | Positions | None = ...,
        connection: Literal[False] = ...,
        overflow: Overflow | str = ...,
        capacity: int = ...,
        last: bool = ...,
    ) -> Observable[PVUpdate]: ...

    @overload
    def monitor_stream(
        self,
        uri: str,
        *,
        since: Moment | Positions | None = ...,
        connection: Literal[True],
        overflow: Overflow | str = ...,
        capacity: int = ...,
        last: bool = ...,
    ) -> Observable[PVUpdate | ConnectionEvent]: ...

    def monitor_stream(
        self,
        uri: str,
        *,
        since: Moment | Positions | None = None,
        connection: bool = False,
        overflow: Overflow | str = Overflow.BLOCK,
        capacity: int = DEFAULT_CAPACITY,
        last: bool = True,
    ) -> Observable[Any]:
        """Returns a PV's updates as a hot Observable; a later subscriber starts with the last known update.

        Args:
            uri: The PV.
            since: Start with the updates that Kafka keeps from this time on; see `monitor_many_stream`.
            connection: Whether to emit a `ConnectionEvent` for the PV's connection and each change of it too, in order
                with the updates, and after a loss the first value also if it is the one before. Not with `since`.
            overflow: What happens to updates that this subscriber is too slow for; see `Overflow`.
            capacity: Maximum number of updates queued for this subscriber.
            last: Whether a later subscriber starts with the last known update. See `monitor_many_stream`.
        """
        flag(connection, "connection")
        if connection:
            return self.monitor_many_stream(
                [uri], since=since, connection=True, overflow=overflow, capacity=capacity, last=last
            )
        return self.monitor_many_stream([uri], since=since, overflow=overflow, capacity=capacity, last=last)

    @overload
    def monitor_many_stream(
        self,
        uris: Iterable[str],
        *,
        since: Moment | Positions | None = ...,
        connection: Literal[False] = ...,
        overflow: Overflow | str = ...,
        capacity: int = ...,
        last: bool = ...,
    ) -> Observable[PVUpdate]: ...

    @overload
    def monitor_many_stream(
        self,
        uris: Iterable[str],
        *,
        since: Moment | Positions | None = ...,
        connection: Literal[True],
        overflow: Overflow | str = ...,
        capacity: int = ...,
        last: bool = ...,
    ) -> Observable[PVUpdate | ConnectionEvent]: ...

    def monitor_many_stream(
        self,
        uris: Iterable[str],
        *,
        since: Moment | Positions | None = None,
        connection: bool = False,
        overflow: Overflow | str = Overflow.BLOCK,
        capacity: int = DEFAULT_CAPACITY,
        last: bool = True,
    ) -> Observable[Any]:
        """Returns the updates of several PVs as one hot Observable, in the order of arrival.

        With `since`, each subscriber first gets the PVs' history from that time on, merged by event time, in updates
        whose `replayed` is True, then live updates, without gap or duplicate. A PV without history in that time starts
        with its last known update, as for any later subscriber.

        - Time is EPICS time (Kafka's for an event without it). An event is found if Kafka received it at most a minute
          before its EPICS time.
        - Kafka keeps events for the topic's retention time, an hour by default. Older events, and those of a PV that
          no client has monitored, are missing without an error.
        - A slow subscriber gets the history more slowly, whatever its `overflow`. Live updates beyond `capacity` are
          read from Kafka later, as history. Other subscribers are not affected.
        - Each subscription reads history with a consumer of its own: prefer one for many PVs to many for one PV each.

        Args:
            uris: The PVs.
            since: A time with a time zone, or a duration before the subscription; None for live updates only. Or the
                `Positions` of a recording, to go on where it ends. Not available with a `group_name`, since its members
                share events.
            connection: As for `monitor_stream`. ``drop_oldest`` may drop events of connections like updates.
            overflow: As for `monitor_stream`. ``latest`` and ``drop_oldest`` apply to the history too, which is read
                fast: use ``block``, the default, to get all of it.
            capacity: As for `monitor_stream`, for all PVs together.
            last: False starts without the last known updates. A PV that this client does not monitor yet starts with
                its present value, as the gateway publishes it, and updates may be on their way: for measurements after
                a change use `k2eg_rx.operators.fresh`, too. Not available with `since`.

        Example:
            >>> def last_minutes(client):
            ...     stream = client.monitor_stream("pva://gun:current", since=timedelta(minutes=10))
            ...     return stream.subscribe(lambda update: print(update.replayed, update.value))
        """
        addresses, (policy, capacity) = self._addresses(uris), _queue(overflow, capacity)
        flag(last, "last")
        flag(connection, "connection")
        if since is None:
            return self._core.monitors.updates(addresses, policy, capacity, connections=connection, last=last)
        if connection:
            raise ValueError(
                f"connection must be False with since, got since={shown(since)}: the history has no connections;"
                " subscribe to connection_stream beside it"
            )
        if not last:
            raise ValueError("last must be True with since: history comes before the last known update")
        if self._group_name is not None:
            raise ValueError(
                f"since must be None with group_name, got {shown(since)}: members of a group share events; use a client"
                " without group_name"
            )
        start = since if isinstance(since, Positions) else self._core.history.beginning(since)
        return self._core.monitors.updates_since(addresses, start, policy, capacity)

    def monitor_columns(
        self,
        uris: Iterable[str],
        *,
        every: float | None = None,
        count: int | None = None,
        overflow: Overflow | str = Overflow.BLOCK,
        capacity: int = DEFAULT_CAPACITY,
    ) -> Observable[ColumnBatch]:
        """Returns the updates of several PVs in batches: numpy arrays of time, value and severity for each PV.

        For programs that read many updates: it has no object for each of them. The PVs are monitored as by
        `monitor_many_stream`, with which it shares them: hot, beginning with the last known update of each PV, each
        update once. An update that cannot be decoded is left out, counted and logged. A batch without updates is not
        emitted. What was collected is emitted before the stream completes or fails, such as when the client is closed.

        Args:
            uris: The PVs.
            every: Seconds after which a batch is emitted. A subscriber that takes longer gets fewer, larger batches.
            count: Updates of all PVs together after which a batch is emitted. With `every`, whichever comes first.
            overflow: What happens to updates while this subscriber is busy with a batch: ``block`` or ``drop_oldest``;
                see `Overflow`. ``latest`` is a ValueError: a batch has every update.
            capacity: Maximum number of updates queued for this subscriber meanwhile. Those of the batch that is being
                collected are not among them: a scalar takes 21 bytes there.

        Raises:
            ValueError: There is neither `every` nor `count`, or the client has a `group_name`: its members share
                events, and what one has collected would be lost to the others.
            ModuleNotFoundError: numpy is not installed; the text names the extra.

        Example:
            >>> from k2eg_rx.testing import ScriptedGateway
            >>> def show(batch):
            ...     for uri, column in batch.items():
            ...         print(uri, column.value, column.severity)
            >>> with ScriptedGateway() as gateway, gateway.client() as client:
            ...     x, y = gateway.pv("my:x", 1.5), gateway.pv("my:y", "warm")
            ...     _ = client.monitor_columns(["pva://my:x", "pva://my:y"], every=1.0).subscribe(show)
            ...     gateway.advance(0.5)
            ...     x.post(2.5)
            ...     gateway.advance(0.5)
            pva://my:x [1.5 2.5] [0 0]
            pva://my:y [0] [0]
        """
        require_extra("analysis", ["numpy"], "monitor_columns")
        addresses, (policy, capacity) = self._addresses(uris), _queue(overflow, capacity)
        seconds = None if every is None else positive(every, "every")
        number = None if count is None else at_least_one(count, "count")
        if seconds is None and number is None:
            raise ValueError("monitor_columns needs every (seconds) or count (updates), got neither")
        if policy is Overflow.LATEST:
            raise ValueError(
                "overflow must be 'block' or 'drop_oldest' for batches of all updates, got 'latest': use"
                " monitor_many_stream for newest values"
            )
        if self._group_name is not None:
            raise ValueError(
                f"monitor_columns needs a client without group_name, got {shown(self._group_name)}: other members would"
                " lose what a batch has collected"
            )
        return self._core.monitors.columns(addresses, policy, capacity, every=seconds, count=number)

    def connection_stream(
        self, uris: Iterable[str], *, overflow: Overflow | str = Overflow.BLOCK, capacity: int = DEFAULT_CAPACITY
    ) -> Observable[ConnectionEvent]:
        """Returns the connections of several PVs as one hot Observable: the current state of each, then each change.

        The PVs are monitored meanwhile, as by `monitor_many_stream`, with which it shares them. A gateway of this
        library tells the state of each PV at once, or some seconds after its first search for a PV without a server.
        The deployed gateway does not tell: with it a PV has one event, ``connected``, with its first update.

        A gateway that ends says nothing: its PVs keep their last state. `status_stream` tells that a gateway is silent.

        Args:
            uris: The PVs.
            overflow: As for `monitor_stream`. ``latest`` keeps the newest state of each PV.
            capacity: As for `monitor_stream`, for all PVs together.

        Example:
            >>> from k2eg_rx.testing import ScriptedGateway
            >>> def show(event):
            ...     print(event.name, event.state, event.reason)
            >>> with ScriptedGateway() as gateway, gateway.client() as client:
            ...     x = gateway.pv("my:x", 1.5)
            ...     _ = client.connection_stream(["pva://my:x", "ca://my:dead"]).subscribe(show)
            ...     gateway.advance(6.0)
            ...     x.disconnect()
            my:x connected
            my:dead never_connected no value since it was searched for first
            my:x disconnected the connection to the server is lost
        """
        addresses, (policy, capacity) = self._addresses(uris), _queue(overflow, capacity)
        return self._core.monitors.updates(addresses, policy, capacity, values=False, connections=True)

    def values_ready_stream(
        self, uris: Iterable[str], timeout: float | None = None
    ) -> Observable[Mapping[str, PVUpdate]]:
        """Returns the first values of several PVs as a single-item Observable, emitted once all of them have one.

        It monitors the PVs until then. To keep them, subscribe to `monitor_many_stream` before, with which it shares
        them. A PV that is disconnected has no value, even if it had one before.

        It fails with `OperationTimeout`, which names the PVs without a value and says why: ``never connected``,
        ``disconnected``, ``no event``, or that the gateway has not replied.

        Args:
            uris: The PVs. The mapping is by URI.
            timeout: Seconds until `OperationTimeout`.

        Raises:
            ValueError: The client has a `group_name`: other members get some of the values.

        Example:
            >>> from k2eg_rx import OperationTimeout, first
            >>> from k2eg_rx.testing import ScriptedGateway
            >>> with ScriptedGateway() as gateway, gateway.client() as client:
            ...     _ = gateway.pv("my:x", 1.5)
            ...     print(first(client.values_ready_stream(["pva://my:x"]))["pva://my:x"].value)
            ...     try:
            ...         first(client.values_ready_stream(["pva://my:x", "ca://my:dead"], timeout=6.0))
            ...     except OperationTimeout as error:
            ...         print(error.missing)
            1.5
            no value of 1 of 2 PVs: ca://my:dead (never connected)
        """
        addresses, seconds = self._addresses(uris), self._seconds(timeout)
        if self._group_name is not None:
            raise ValueError(
                f"values_ready_stream needs a client without group_name, got {shown(self._group_name)}: other members"
                " of the group get some of the values"
            )
        return self._core.monitors.first_values(addresses, seconds, lambda: self.status.reason)

    def replay_stream(
        self,
        uris: Iterable[str],
        start: Moment,
        stop: Moment | None = None,
        *,
        speed: float | None = None,
        capacity: int = DEFAULT_CAPACITY,
    ) -> Observable[PVUpdate]:
        """Returns the history of several PVs as one finite Observable, merged by event time.

        It needs no gateway and affects no monitor: it reads what Kafka keeps, as for `since` of `monitor_many_stream`.
        The `replayed` of all updates is True. Updates are in the order of EPICS time, those of one PV in the order in
        which they were published. Each subscription reads with a consumer of its own, as fast as `speed` and the
        subscriber allow; what Kafka removes meanwhile is missing. With a `group_name`, too, a client replays all
        events.

        The Observable fails with `OperationTimeout` if Kafka does not respond within the client's timeout.

        Args:
            uris: The PVs. A PV without a topic has no history.
            start: The event time of the first update, with a time zone; or a duration before the subscription.
            stop: The event time before which the replay ends, likewise; None for the time of the subscription.
            speed: 1 for the original speed, 60 for an hour in a minute, None for as fast as possible. The first update
                comes at once.
            capacity: Maximum number of updates queued for this subscriber.

        Example:
            >>> def an_hour_in_a_minute(client):
            ...     stream = client.replay_stream(["pva://bpm:1:x", "pva://bpm:2:x"], timedelta(hours=1), speed=60)
            ...     return stream.subscribe(lambda update: print(update.name, update.value))
        """
        addresses, interval = self._addresses(uris), self._core.history.interval(start, stop)
        capacity = at_least_one(capacity, "capacity")
        check_one_protocol(addresses, "updates in a history")
        return self._core.replays.updates(addresses, interval, speed, capacity)

    def activation_stream(self, uris: Iterable[str], timeout: float | None = None) -> Observable[Reply]:
        """Returns the gateway's reply to the activation of monitored PVs as a single-item Observable.

        A gateway acknowledges a monitor before it knows whether the PV exists.

        Args:
            uris: PVs that this client monitors.
            timeout: Seconds until `OperationTimeout`.
        """
        activation = self._core.monitors.activation(self._addresses(uris), self._seconds(timeout))
        return self._dispatched(activation, "activation")

    def snapshot_stream(
        self, uris: Iterable[str], timeout: float | None = None, *, duration: float | None = None
    ) -> Observable[Snapshot]:
        """Returns the values of several PVs, acquired together by the gateway, as a single-item Observable.

        Args:
            uris: The PVs. A PV without data in time has an empty list in the snapshot.
            timeout: Seconds until `OperationTimeout`, `duration` included.
            duration: Seconds that the gateway waits for the PVs; 1 by default.
        """
        addresses, seconds = self._addresses(uris), self._seconds(timeout)
        window = None if duration is None else timeout_of(duration, "duration")
        check_one_protocol(addresses, "the values of a snapshot")
        snapshot = one_shot_snapshot(self._core.requests, addresses, seconds, window)
        return self._dispatched(snapshot, f"snapshot of {len(addresses)} PVs")

    def snapshot_recurring_stream(
        self,
        properties: SnapshotProperties,
        *,
        check_fields: bool = True,
        overflow: Overflow | str = Overflow.BLOCK,
        capacity: int = DEFAULT_CAPACITY,
    ) -> Observable[Snapshot]:
        """Returns a recurring snapshot as a hot Observable of its iterations, in order.

        The first subscriber starts it. It runs in the gateway, for other clients too, until `snapshot_stop_stream`.
        An iteration of which messages are missing says so (`Snapshot.missing`).

        Args:
            properties: What to acquire, and when.
            check_fields: Whether to check that each PV has the fields of a ``timedbuffered`` snapshot's filter before
                the snapshot is started; a missing field kills the deployed gateway.
            overflow: As for `monitor_stream`.
            capacity: As for `monitor_stream`.
        """
        self._lifecycle.require_open()
        wanted, (policy, capacity) = _properties(properties, check_fields), _queue(overflow, capacity)
        return self._core.recurring.snapshots(wanted, policy, capacity, check_fields=check_fields)

    def snapshot_events_stream(
        self,
        properties: SnapshotProperties,
        *,
        check_fields: bool = True,
        overflow: Overflow | str = Overflow.BLOCK,
        capacity: int = DEFAULT_CAPACITY,
    ) -> Observable[SnapshotMessage]:
        """Returns a recurring snapshot as a hot Observable of its headers, data and tails.

        With `sub_push_delay_msec` data arrive before the window ends. The messages are as they arrive, not sorted by
        their numbers. For the arguments see `snapshot_recurring_stream`.
        """
        self._lifecycle.require_open()
        wanted, (policy, capacity) = _properties(properties, check_fields), _queue(overflow, capacity)
        return self._core.recurring.messages(wanted, policy, capacity, check_fields=check_fields)

    def snapshot_activation_stream(self, name: str, timeout: float | None = None) -> Observable[Reply]:
        """Returns the gateway's reply to the start of a subscribed recurring snapshot as a single-item Observable."""
        return self._dispatched(self._core.recurring.activation(named(name), self._seconds(timeout)), name)

    def snapshot_trigger_stream(
        self, name: str, timeout: float | None = None, *, tags: Mapping[str, str] | None = None
    ) -> Observable[Reply]:
        """Returns the gateway's reply to the trigger of a triggered snapshot as a single-item Observable."""
        return self._dispatched(self._core.recurring.trigger(named(name), self._seconds(timeout), _tags(tags)), name)

    def snapshot_stop_stream(self, name: str, timeout: float | None = None) -> Observable[Reply]:
        """Returns the gateway's reply to a stop as a single-item Observable.

        The streams of the snapshot complete after its last iteration. The one that a gateway publishes at the stop of a
        triggered snapshot is not emitted: each trigger has one. The last iteration may reach Kafka after the reply: a
        snapshot that is started with the same name at once may emit it first.
        """
        return self._dispatched(self._core.recurring.stop(named(name), self._seconds(timeout)), name)

    def gateways_stream(
        self, timeout: float | None = DEFAULT_WAIT, *, monitors: bool = False
    ) -> Observable[GatewayReport]:
        """Returns what each gateway of the command topic says of itself, in order of arrival.

        Completes after the timeout. It fails if no gateway has answered by then; with `OperationError` if the gateway
        is of another kind, which does not know the command.

        Args:
            timeout: Seconds for which answers are collected.
            monitors: Whether the reports have the gateways' monitors.

        Example:
            >>> from k2eg_rx import first
            >>> from k2eg_rx.testing import ScriptedGateway
            >>> with ScriptedGateway() as gateway, gateway.client() as client:
            ...     report = first(client.gateways_stream())
            ...     print(report.monitors, report.connected)
            0 0
        """
        seconds = self._seconds(timeout)
        reports = gateway_reports(self._core.requests, seconds, monitors=flag(monitors, "monitors"))
        return self._dispatched(reports, "gateways")

    def ready_stream(self, timeout: float | None = None) -> Observable[Status]:
        """Returns the client's status as a single-item Observable, emitted when replies can be received.

        For PVs that have values see `values_ready_stream`.
        """
        ready = self._core.requests.ready(self._seconds(timeout))
        return self._dispatched(ready.pipe(ops.map(lambda _: self.status)), "ready")

    def status_stream(self) -> Observable[Status]:
        """Returns the client's status: the current one, then each change."""
        self._lifecycle.require_open()
        status = self._core.status.stream()

        def attach(subscriber: SubscriberInput[Status]) -> abc.DisposableBase:
            return status.subscribe(lambda item: subscriber.offer((item,)), subscriber.finish, subscriber.finish)

        return self._core.dispatcher.stream(attach, "status", Overflow.LATEST)

    @property
    def status(self) -> Status:
        """The client's current status."""
        return self._core.status.now()

    def close(self, timeout: float = _CLOSE_TIMEOUT) -> None:
        """Completes the hot streams, fails pending requests, disconnects and ends the threads. Idempotent.

        May be called on any thread, also by a subscriber.

        Args:
            timeout: Maximum seconds to take.
        """
        timeout = non_negative(timeout, "timeout", LONGEST_TIMEOUT)
        if self._lifecycle.is_forked():
            return  # the threads are the parent's
        if not self._lifecycle.begin_close():
            self._lifecycle.wait_closed(0 if self._core.dispatcher.is_worker() else timeout)
            return
        self._core.close(timeout)
        self._lifecycle.end_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _dispatched(self, source: Observable[_T], label: str) -> Observable[_T]:
        return self._core.dispatcher.deliver(source, label)

    def _request(self, request: Request[_T]) -> Observable[_T]:
        def stream() -> Observable[_T]:
            return self._dispatched(self._core.requests.single(request), request.subject)

        def wait(timeout: float | None) -> _T:
            return self._core.requests.wait(request, timeout)

        return RequestObservable(stream, wait, request.subject)

    def _addresses(self, uris: Iterable[str]) -> list[PVAddress]:
        self._lifecycle.require_open()
        mask = self.settings.pulse_id_mask
        addresses = addressed(uris)
        return addresses if mask == PULSE_ID_MASK else [replace(each, pulse_id_mask=mask) for each in addresses]

    def _seconds(self, timeout: float | None) -> float:
        self._lifecycle.require_open()
        return self.timeout if timeout is None else timeout_of(timeout)


def check_arguments(
    environment_id: str,
    app_name: str,
    group_name: object,
    settings: Settings | None,
    transport: Transport | None,
    *,
    timeout: float,
    silence: float,
) -> str | None:
    """Checks the arguments of a client; returns the group's name. Raises ValueError; the text names the argument."""
    text(environment_id, "environment_id")
    check_app_name(app_name)
    group = None if group_name is None else text(text_of(group_name, "group_name"), "group_name")
    if group is not None:
        check_group_name(group)
    if settings is not None:
        instance(settings, "settings", Settings, "Settings, as load_settings returns them")
    if transport is not None and not callable(getattr(transport, "replies", None)):
        raise ValueError(f"transport must be a Transport, got {shown(transport)}")
    timeout_of(timeout)
    positive(silence, "silence", least=_SHORTEST_SILENCE)
    return group


def check_snapshot_wait(snapshot_wait: float | None) -> None:
    """Checks an argument of a client. Raises ValueError."""
    if snapshot_wait is not None:
        timeout_of(snapshot_wait, "snapshot_wait")


def _queue(overflow: Overflow | str, capacity: int) -> tuple[Overflow, int]:
    return Overflow(one_of(overflow, "overflow", list(Overflow))), at_least_one(capacity, "capacity")


def _properties(properties: SnapshotProperties, check_fields: bool) -> SnapshotProperties:
    flag(check_fields, "check_fields")
    return instance(properties, "properties", SnapshotProperties, "SnapshotProperties")


def _tags(tags: Mapping[str, str] | None) -> dict[str, str]:
    return {} if tags is None else mapping(tags, "tags", "a mapping of texts to texts")
