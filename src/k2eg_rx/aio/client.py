"""The client for asyncio: coroutines for operations, asynchronous iterators for streams.

Thread safety: a client belongs to one event loop. It wraps a `k2eg_rx.Client`, which has threads of its own.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

from reactivex import Observable

from k2eg_rx import client as reactive
from k2eg_rx.aio.awaiting import first
from k2eg_rx.aio.iteration import Iteration, iterate
from k2eg_rx.aio.threads import run_in_thread
from k2eg_rx.arguments import items_of
from k2eg_rx.client import (
    DEFAULT_SILENCE,
    DEFAULT_TIMEOUT,
    DEFAULT_WAIT,
    GetResult,
    PutResult,
    Status,
    check_arguments,
    check_snapshot_wait,
    results_by_uri,
)
from k2eg_rx.delivery import DEFAULT_CAPACITY, Overflow
from k2eg_rx.history import Moment, Positions
from k2eg_rx.protocol import (
    ColumnBatch,
    ConnectionEvent,
    GatewayReport,
    PVData,
    PVUpdate,
    Reply,
    Snapshot,
    SnapshotMessage,
    SnapshotProperties,
)
from k2eg_rx.settings import Settings
from k2eg_rx.transport import Transport

_T = TypeVar("_T")

_CLOSE_TIMEOUT = 5.0
_MOST_GATEWAYS = 1024  # reports that may wait; more are read while they arrive


class Client:
    """A client of a K2EG gateway for asyncio; an asynchronous context manager that connects and closes.

    Each method corresponds to a method of `k2eg_rx.Client`: ``X`` awaits or iterates over the stream that ``X_stream``
    returns there. Connecting and closing do not block the event loop. Invalid arguments raise ValueError. Cancelling
    an operation stops waiting for its reply; the gateway may still execute a put that was sent.

    Args:
        environment_id: The environment: the name of its ``.ini`` file.
        app_name: The application: its instances share a reply topic.
        group_name: Clients with the same group share the events of monitors and snapshots among them. Any object, whose
            text names the group.
        settings: Settings to use instead of the environment's file.
        transport: A connection to a gateway other than Kafka.
        timeout: Seconds for operations without a timeout of their own.
        silence: Seconds without an event after which a monitor is activated again; as of `k2eg_rx.Client`.
        snapshot_wait: Seconds that missing messages of an iteration are waited for; as of `k2eg_rx.Client`.

    Example:
        >>> import asyncio
        >>> from k2eg_rx import aio
        >>> from k2eg_rx.testing import ScriptedGateway
        >>> async def main() -> None:
        ...     async with aio.Client("demo", "my-service") as client:
        ...         print((await client.get("pva://my:setpoint")).value)
        ...         async with client.monitor("pva://my:setpoint") as updates:
        ...             async for update in updates:
        ...                 print(update.name, update.value)
        ...                 if update.value > 4.0:
        ...                     break
        ...                 await client.put("pva://my:setpoint", 4.5, timeout=2.0)
        >>> with ScriptedGateway() as gateway, gateway.clock.running():
        ...     _ = gateway.pv("my:setpoint", 1.5)
        ...     asyncio.run(main())
        1.5
        my:setpoint 1.5
        my:setpoint 4.5
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
        check_arguments(environment_id, app_name, group_name, settings, transport, timeout=timeout, silence=silence)
        check_snapshot_wait(snapshot_wait)

        def connect() -> reactive.Client:
            return reactive.Client(
                environment_id,
                app_name,
                group_name=group_name,
                settings=settings,
                transport=transport,
                timeout=timeout,
                silence=silence,
                snapshot_wait=snapshot_wait,
            )

        self._connect: Callable[[], reactive.Client] = connect
        self._streams: reactive.Client | None = None
        self._iterations: weakref.WeakSet[Iteration[Any]] = weakref.WeakSet()

    @property
    def streams(self) -> reactive.Client:
        """The `k2eg_rx.Client` underneath, for streams to transform before `first` or `iterate`. Do not close it.

        Raises:
            RuntimeError: The client has not been entered.
        """
        if self._streams is None:
            raise RuntimeError("the client is not connected: use it within 'async with'")
        return self._streams

    async def __aenter__(self) -> Self:
        """Connects.

        Raises:
            ValueError: The environment does not exist or is invalid, or another argument is.
            RuntimeError: The client was entered before.
        """
        if self._streams is not None:
            raise RuntimeError("a client can be entered once: create another one")
        self._streams = await run_in_thread(self._connect, "k2eg-aio-connect", undo=lambda client: client.close())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def get(self, uri: str, timeout: float | None = None) -> PVData:
        """Returns a PV's value.

        Args:
            uri: The PV, ``pva://NAME`` or ``ca://NAME``.
            timeout: Seconds.

        Raises:
            OperationTimeout: No reply arrived in time.
            OperationError: The gateway could not read the PV.
        """
        return await first(self.streams.get_stream(uri, timeout))

    async def put(
        self, uri: str, value: object, timeout: float | None = None, *, wait: bool = False, check: bool = True
    ) -> Reply:
        """Writes a PV and returns the gateway's reply.

        Args:
            uri: The PV.
            value: As for `k2eg_rx.Client.put_stream`.
            timeout: Seconds.
            wait: As for `k2eg_rx.Client.put_stream`.
            check: As for `k2eg_rx.Client.put_stream`.

        Raises:
            ValueError: The value does not fit the PV.
            OperationTimeout: No reply arrived in time; the put may still be executed.
            OperationError: The gateway could not write the PV.
        """
        return await first(self.streams.put_stream(uri, value, timeout, wait=wait, check=check))

    async def get_many(self, uris: Iterable[str], timeout: float | None = None) -> dict[str, GetResult]:
        """Reads PVs concurrently; returns a result by URI, with data or an error, in the given order.

        Args:
            uris: The PVs.
            timeout: Seconds for all PVs together.

        Example:
            >>> import asyncio
            >>> from k2eg_rx import aio
            >>> from k2eg_rx.testing import ScriptedGateway
            >>> async def main() -> None:
            ...     async with aio.Client("demo", "my-service") as client:
            ...         results = await client.get_many(["pva://my:x", "ca://my:dead"], timeout=0.5)
            ...         for uri, got in results.items():
            ...             print(uri, type(got.error).__name__ if got.error else got.result().value)
            >>> with ScriptedGateway() as gateway, gateway.clock.running():
            ...     _ = gateway.pv("my:x", 1.5)
            ...     asyncio.run(main())
            pva://my:x 1.5
            ca://my:dead OperationTimeout
        """
        given = items_of(uris, "uris", "a list of PV URIs")
        results = await self._all(self.streams.get_many_stream(given, timeout), len(given))
        return results_by_uri(given, results, GetResult)

    async def put_many(
        self,
        values: Mapping[str, object],
        timeout: float | None = None,
        *,
        wait: bool = False,
        check: bool = True,
        all_or_none: bool = False,
    ) -> dict[str, PutResult]:
        """Writes PVs concurrently; returns a result by URI, with a reply or an error, in the given order.

        Args:
            values: The values to write, by URI.
            timeout: Seconds for all PVs together.
            wait: As for `k2eg_rx.Client.put_stream`.
            check: As for `k2eg_rx.Client.put_stream`.
            all_or_none: As for `k2eg_rx.Client.put_many_stream`.
        """
        puts = self.streams.put_many_stream(values, timeout, wait=wait, check=check, all_or_none=all_or_none)
        results = await self._all(puts, len(values))
        return results_by_uri(values, results, PutResult)

    @overload
    def monitor(
        self,
        uri: str,
        *,
        since: Moment | Positions | None = ...,
        connection: Literal[False] = ...,
        overflow: Overflow | str = ...,
        capacity: int = ...,
        last: bool = ...,
    ) -> Iteration[PVUpdate]: ...

    @overload
    def monitor(
        self,
        uri: str,
        *,
        since: Moment | Positions | None = ...,
        connection: Literal[True],
        overflow: Overflow | str = ...,
        capacity: int = ...,
        last: bool = ...,
    ) -> Iteration[PVUpdate | ConnectionEvent]: ...

    def monitor(
        self,
        uri: str,
        *,
        since: Moment | Positions | None = None,
        connection: bool = False,
        overflow: Overflow | str = Overflow.BLOCK,
        capacity: int = DEFAULT_CAPACITY,
        last: bool = True,
    ) -> Iteration[Any]:
        """Returns an iteration over a PV's updates; the first is the last known one.

        Args:
            uri: The PV.
            since: Start with the events that Kafka keeps from this time on; as for `k2eg_rx.Client.monitor_stream`.
            connection: Whether to get a `ConnectionEvent` for the PV's connection and each change of it too.
            overflow: What happens to updates beyond `capacity`; see `iterate`.
            capacity: Maximum number of updates queued for the loop, and again in the client.
            last: False starts without the last known update; as for `k2eg_rx.Client.monitor_many_stream`.
        """
        updates = self.streams.monitor_stream(
            uri, since=since, connection=connection, overflow=overflow, capacity=capacity, last=last
        )
        return self._iterate(updates, overflow, capacity)

    @overload
    def monitor_many(
        self,
        uris: Iterable[str],
        *,
        since: Moment | Positions | None = ...,
        connection: Literal[False] = ...,
        overflow: Overflow | str = ...,
        capacity: int = ...,
        last: bool = ...,
    ) -> Iteration[PVUpdate]: ...

    @overload
    def monitor_many(
        self,
        uris: Iterable[str],
        *,
        since: Moment | Positions | None = ...,
        connection: Literal[True],
        overflow: Overflow | str = ...,
        capacity: int = ...,
        last: bool = ...,
    ) -> Iteration[PVUpdate | ConnectionEvent]: ...

    def monitor_many(
        self,
        uris: Iterable[str],
        *,
        since: Moment | Positions | None = None,
        connection: bool = False,
        overflow: Overflow | str = Overflow.BLOCK,
        capacity: int = DEFAULT_CAPACITY,
        last: bool = True,
    ) -> Iteration[Any]:
        """Returns an iteration over the updates of several PVs, in the order of their arrival.

        Args:
            uris: The PVs.
            since: As for `monitor`.
            connection: As for `monitor`.
            overflow: As for `monitor`.
            capacity: As for `monitor`; for all PVs together.
            last: As for `monitor`.
        """
        updates = self.streams.monitor_many_stream(
            uris, since=since, connection=connection, overflow=overflow, capacity=capacity, last=last
        )
        return self._iterate(updates, overflow, capacity)

    def monitor_columns(
        self,
        uris: Iterable[str],
        *,
        every: float | None = None,
        count: int | None = None,
        overflow: Overflow | str = Overflow.BLOCK,
        capacity: int = DEFAULT_CAPACITY,
    ) -> Iteration[ColumnBatch]:
        """Returns an iteration over the updates of several PVs in batches of numpy arrays.

        Args:
            uris: The PVs.
            every: Seconds after which a batch is emitted; as for `k2eg_rx.Client.monitor_columns`.
            count: Updates of all PVs together after which a batch is emitted.
            overflow: What happens to updates while the loop is busy: ``block`` or ``drop_oldest``.
            capacity: Maximum number of updates queued in the client. One batch is queued for the loop.
        """
        batches = self.streams.monitor_columns(uris, every=every, count=count, overflow=overflow, capacity=capacity)
        return self._iterate(batches, Overflow.BLOCK, 1)

    def connection(
        self, uris: Iterable[str], *, overflow: Overflow | str = Overflow.BLOCK, capacity: int = DEFAULT_CAPACITY
    ) -> Iteration[ConnectionEvent]:
        """Returns an iteration over the connections of several PVs: the current state of each, then each change.

        Args:
            uris: The PVs.
            overflow: As for `monitor`.
            capacity: As for `monitor`; for all PVs together.
        """
        events = self.streams.connection_stream(uris, overflow=overflow, capacity=capacity)
        return self._iterate(events, overflow, capacity)

    async def values_ready(self, uris: Iterable[str], timeout: float | None = None) -> Mapping[str, PVUpdate]:
        """Waits until each of several PVs has a value; returns the first values by URI.

        Args:
            uris: The PVs; monitored until then.
            timeout: Seconds.

        Raises:
            OperationTimeout: PVs have no value; the text names them and says why.
        """
        return await first(self.streams.values_ready_stream(uris, timeout))

    def replay(
        self,
        uris: Iterable[str],
        start: Moment,
        stop: Moment | None = None,
        *,
        speed: float | None = None,
        capacity: int = DEFAULT_CAPACITY,
    ) -> Iteration[PVUpdate]:
        """Returns an iteration over the updates that Kafka keeps of several PVs, merged by event time.

        Args:
            uris: The PVs.
            start: As for `k2eg_rx.Client.replay_stream`.
            stop: As for `k2eg_rx.Client.replay_stream`.
            speed: 1 for the original speed, 60 for an hour in a minute, None for as fast as possible.
            capacity: As for `monitor`; the replay waits for a slow loop.
        """
        updates = self.streams.replay_stream(uris, start, stop, speed=speed, capacity=capacity)
        return self._iterate(updates, Overflow.BLOCK, capacity)

    async def activation(self, uris: Iterable[str], timeout: float | None = None) -> Reply:
        """Returns the gateway's reply to the activation of PVs that this client monitors.

        A gateway replies before it knows whether the PV exists.

        Args:
            uris: The PVs.
            timeout: Seconds.

        Raises:
            OperationTimeout: No reply arrived in time.
            OperationError: The gateway rejected the monitor.
        """
        return await first(self.streams.activation_stream(uris, timeout))

    async def snapshot(
        self, uris: Iterable[str], timeout: float | None = None, *, duration: float | None = None
    ) -> Snapshot:
        """Returns the values of several PVs, acquired together by the gateway.

        Args:
            uris: The PVs. A PV without data in time has an empty list in the snapshot.
            timeout: Seconds, `duration` included.
            duration: Seconds that the gateway waits for the PVs; 1 by default.

        Raises:
            OperationTimeout: The snapshot was not complete in time.
            OperationError: The gateway rejected the snapshot.
        """
        return await first(self.streams.snapshot_stream(uris, timeout, duration=duration))

    def snapshot_recurring(
        self,
        properties: SnapshotProperties,
        *,
        check_fields: bool = True,
        overflow: Overflow | str = Overflow.BLOCK,
        capacity: int = DEFAULT_CAPACITY,
    ) -> Iteration[Snapshot]:
        """Returns an iteration over the snapshots of a recurring snapshot, which runs until `snapshot_stop`.

        Args:
            properties: What to acquire, and when.
            check_fields: As for `k2eg_rx.Client.snapshot_recurring_stream`.
            overflow: As for `monitor`.
            capacity: As for `monitor`.
        """
        snapshots = self.streams.snapshot_recurring_stream(
            properties, check_fields=check_fields, overflow=overflow, capacity=capacity
        )
        return self._iterate(snapshots, overflow, capacity)

    def snapshot_events(
        self,
        properties: SnapshotProperties,
        *,
        check_fields: bool = True,
        overflow: Overflow | str = Overflow.BLOCK,
        capacity: int = DEFAULT_CAPACITY,
    ) -> Iteration[SnapshotMessage]:
        """Returns an iteration over the headers, data and tails of a recurring snapshot, as they arrive.

        Args:
            properties: As for `snapshot_recurring`.
            check_fields: As for `snapshot_recurring`.
            overflow: As for `monitor`.
            capacity: As for `monitor`.
        """
        messages = self.streams.snapshot_events_stream(
            properties, check_fields=check_fields, overflow=overflow, capacity=capacity
        )
        return self._iterate(messages, overflow, capacity)

    async def snapshot_activation(self, name: str, timeout: float | None = None) -> Reply:
        """Returns the gateway's reply to the start of a recurring snapshot that this client is subscribed to."""
        return await first(self.streams.snapshot_activation_stream(name, timeout))

    async def snapshot_trigger(
        self, name: str, timeout: float | None = None, *, tags: Mapping[str, str] | None = None
    ) -> Reply:
        """Triggers an iteration of a triggered recurring snapshot; returns the gateway's reply."""
        return await first(self.streams.snapshot_trigger_stream(name, timeout, tags=tags))

    async def snapshot_stop(self, name: str, timeout: float | None = None) -> Reply:
        """Stops a recurring snapshot; returns the gateway's reply. Iterations over it end after its last snapshot."""
        return await first(self.streams.snapshot_stop_stream(name, timeout))

    async def gateways(self, timeout: float | None = DEFAULT_WAIT, *, monitors: bool = False) -> list[GatewayReport]:
        """Returns what each gateway of the command topic says of itself, after the timeout.

        Args:
            timeout: Seconds for which answers are collected.
            monitors: Whether the reports have the gateways' monitors.

        Raises:
            OperationError: The gateway is of another kind, which does not know the command.
            OperationTimeout: No gateway has answered.
        """
        return await self._all(self.streams.gateways_stream(timeout, monitors=monitors), _MOST_GATEWAYS)

    async def ready(self, timeout: float | None = None) -> Status:
        """Waits until replies can be received; returns the client's status.

        Raises:
            OperationTimeout: The reply topic was not readable in time.
            TransportError: The reply topic cannot be read; the text says what to do.
        """
        return await first(self.streams.ready_stream(timeout))

    def status_stream(self) -> Iteration[Status]:
        """Returns an iteration over the client's status: the current one, then each change."""
        return self._iterate(self.streams.status_stream(), Overflow.LATEST, DEFAULT_CAPACITY)

    @property
    def status(self) -> Status:
        """The client's current status."""
        return self.streams.status

    async def close(self, timeout: float = _CLOSE_TIMEOUT) -> None:
        """Ends iterations after their queued items, fails pending operations, and disconnects. Idempotent.

        Args:
            timeout: Maximum duration in seconds.
        """
        streams = self._streams
        if streams is None:
            return
        for iteration in list(self._iterations):
            iteration.end()
        await run_in_thread(lambda: streams.close(timeout), "k2eg-aio-close")

    def _iterate(self, stream: Observable[_T], overflow: Overflow | str, capacity: int) -> Iteration[_T]:
        iteration = iterate(stream, overflow=overflow, capacity=capacity)
        self._iterations.add(iteration)
        return iteration

    @staticmethod
    async def _all(stream: Observable[_T], count: int) -> list[_T]:
        """Returns all results of a batch. Iterating sends its commands on a thread, not on the loop."""
        async with iterate(stream, capacity=max(1, count)) as items:
            return [item async for item in items]
