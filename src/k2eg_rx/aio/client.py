"""The client for asyncio: operations to await and updates to iterate over, on the core of `k2eg_rx.Client`.

In: calls, on one event loop. Out: values, to the coroutines that wait. All of it is subscriptions to the streams of one
`k2eg_rx.Client`, whose own threads do what they do for everybody.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from reactivex import Observable

from k2eg_rx import client as reactive
from k2eg_rx.aio.awaiting import first
from k2eg_rx.aio.iteration import Iteration, iterate
from k2eg_rx.aio.threads import in_thread
from k2eg_rx.client import DEFAULT_SILENCE, DEFAULT_TIMEOUT, GetResult, PutResult
from k2eg_rx.delivery import DEFAULT_CAPACITY, Overflow
from k2eg_rx.errors import ClientClosedError
from k2eg_rx.history import Moment
from k2eg_rx.protocol import PVData, PVUpdate, Reply, Snapshot, SnapshotProperties
from k2eg_rx.settings import Settings
from k2eg_rx.transport import Transport

_T = TypeVar("_T")

_CLOSE_TIMEOUT = 5.0


class Client:
    """A client of a K2EG gateway for asyncio; an asynchronous context manager, within which it is open.

    It connects when it is entered, and neither that nor its close holds up the loop. Bad arguments raise ValueError.
    Cancelling an operation gives it up: its reply is not waited for any more, but a put that was sent may be carried
    out.

    Args:
        environment_id: The environment: the name of its ``.ini`` file.
        app_name: The application: its instances share a reply topic.
        group_name: Given, the clients of that group share the events among them.
        settings: An environment made in the program, in place of a file.
        transport: Another way to a gateway than Kafka.
        timeout: Seconds that operations may take which are given no timeout of their own.
        silence: Seconds without an event after which a monitor is asked for again; as of `k2eg_rx.Client`.

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
        group_name: str | None = None,
        *,
        settings: Settings | None = None,
        transport: Transport | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        silence: float = DEFAULT_SILENCE,
    ) -> None:
        def connect() -> reactive.Client:
            return reactive.Client(
                environment_id,
                app_name,
                group_name,
                settings=settings,
                transport=transport,
                timeout=timeout,
                silence=silence,
            )

        self._connect: Callable[[], reactive.Client] = connect
        self._streams: reactive.Client | None = None
        self._iterations: weakref.WeakSet[Iteration[Any]] = weakref.WeakSet()

    @property
    def streams(self) -> reactive.Client:
        """The client underneath, with all its streams; for `first` and `iterate`. Not to be closed by itself.

        Raises:
            RuntimeError: The client has not been entered.
        """
        if self._streams is None:
            raise RuntimeError("the client is not connected: use it within 'async with'")
        return self._streams

    async def __aenter__(self) -> Self:
        """Connects.

        Raises:
            ValueError: The environment is missing or wrong, or another argument is.
            RuntimeError: It was entered before.
        """
        if self._streams is not None:
            raise RuntimeError("a client is entered once; make another one")
        self._streams = await in_thread(self._connect, "k2eg-aio-connect", undo=lambda late: late.close())
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
            OperationTimeout: There was no answer in time.
            OperationError: The gateway could not read the PV.
        """
        return await first(self.streams.get_stream(uri, timeout))

    async def put(self, uri: str, value: object, timeout: float | None = None, *, check: bool = True) -> Reply:
        """Writes a PV; returns the gateway's reply.

        Args:
            uri: The PV.
            value: As for `k2eg_rx.Client.put_stream`.
            timeout: Seconds.
            check: As for `k2eg_rx.Client.put_stream`.

        Raises:
            ValueError: The value does not fit the PV.
            OperationTimeout: There was no answer in time; the put may still be carried out.
            OperationError: The gateway could not write the PV.
        """
        return await first(self.streams.put_stream(uri, value, timeout, check=check))

    async def get_many(self, uris: Iterable[str], timeout: float | None = None) -> dict[str, GetResult]:
        """Returns a result per PV by URI, data or error, in the order given; all are read at once.

        Args:
            uris: The PVs.
            timeout: Seconds for all of them.

        Example:
            >>> import asyncio
            >>> from k2eg_rx import aio
            >>> from k2eg_rx.testing import ScriptedGateway
            >>> async def main() -> None:
            ...     async with aio.Client("demo", "my-service") as client:
            ...         results = await client.get_many(["pva://my:x", "ca://my:dead"], timeout=0.5)
            ...         for uri, got in results.items():
            ...             print(uri, got.error or got.result().value)
            >>> with ScriptedGateway() as gateway, gateway.clock.running():
            ...     _ = gateway.pv("my:x", 1.5)
            ...     asyncio.run(main())
            pva://my:x 1.5
            ca://my:dead get of ca://my:dead: no reply within 0.5 s
        """
        given = uris if isinstance(uris, str) else list(uris)  # a string is refused by the next
        results = await self._all(self.streams.get_many_stream(given, timeout), len(given))
        by_uri = {got.uri: got for got in results}
        return {uri: by_uri.get(uri) or GetResult(uri, error=_closed()) for uri in given}

    async def put_many(
        self, values: Mapping[str, object], timeout: float | None = None, *, check: bool = True
    ) -> dict[str, PutResult]:
        """Writes many PVs at once; returns a result per PV by URI, reply or error, in the order given.

        Args:
            values: By URI what to write.
            timeout: Seconds for all of them.
            check: As for `k2eg_rx.Client.put_stream`.
        """
        results = await self._all(self.streams.put_many_stream(values, timeout, check=check), len(values))
        by_uri = {put.uri: put for put in results}
        return {uri: by_uri.get(uri) or PutResult(uri, error=_closed()) for uri in values}

    async def snapshot(
        self, uris: Iterable[str], timeout: float | None = None, *, time_window: float | None = None
    ) -> Snapshot:
        """Returns the values of several PVs, acquired together by the gateway.

        Args:
            uris: The PVs. One that has no data in time has an empty list in the snapshot.
            timeout: Seconds, the time window included.
            time_window: Seconds that the gateway waits for the PVs; 1 by default.

        Raises:
            OperationTimeout: It was not complete in time.
            OperationError: The gateway refused.
        """
        return await first(self.streams.snapshot_stream(uris, timeout, time_window=time_window))

    async def snapshot_trigger(
        self, name: str, timeout: float | None = None, tags: Mapping[str, str] | None = None
    ) -> Reply:
        """Has a triggered recurring snapshot make an iteration; returns the gateway's reply."""
        return await first(self.streams.snapshot_trigger_stream(name, timeout, tags))

    async def snapshot_stop(self, name: str, timeout: float | None = None) -> Reply:
        """Stops a recurring snapshot; returns the gateway's reply. Iterations over it end after its last one."""
        return await first(self.streams.snapshot_stop_stream(name, timeout))

    def monitor(
        self,
        uri: str,
        maxsize: int = DEFAULT_CAPACITY,
        overflow: Overflow | str = Overflow.BLOCK,
        *,
        since: Moment | None = None,
    ) -> Iteration[PVUpdate]:
        """Returns a PV's updates, to iterate over; the first is the last known one.

        Args:
            uri: The PV.
            maxsize: How many updates may wait for the loop, and as many in the client.
            overflow: What happens when there are more; see `iterate`.
            since: Given, it begins with what Kafka still has from then on; as for `k2eg_rx.Client.monitor_stream`.
        """
        return self.monitor_many([uri], maxsize, overflow, since=since)

    def monitor_many(
        self,
        uris: Iterable[str],
        maxsize: int = DEFAULT_CAPACITY,
        overflow: Overflow | str = Overflow.BLOCK,
        *,
        since: Moment | None = None,
    ) -> Iteration[PVUpdate]:
        """Returns the updates of several PVs, to iterate over, in the order in which they come.

        Args:
            uris: The PVs.
            maxsize: As for `monitor`; for all PVs together.
            overflow: As for `monitor`.
            since: As for `monitor`.
        """
        updates = self.streams.monitor_many_stream(uris, overflow=overflow, capacity=maxsize, since=since)
        return self._iterate(updates, maxsize, overflow)

    def snapshot_recurring(
        self,
        properties: SnapshotProperties,
        maxsize: int = DEFAULT_CAPACITY,
        overflow: Overflow | str = Overflow.BLOCK,
        *,
        check_fields: bool = True,
    ) -> Iteration[Snapshot]:
        """Returns the iterations of a recurring snapshot, to iterate over. It runs on until `snapshot_stop`.

        Args:
            properties: What to acquire, and when.
            maxsize: As for `monitor`.
            overflow: As for `monitor`.
            check_fields: As for `k2eg_rx.Client.snapshot_recurring_stream`.
        """
        snapshots = self.streams.snapshot_recurring_stream(
            properties, check_fields=check_fields, overflow=overflow, capacity=maxsize
        )
        return self._iterate(snapshots, maxsize, overflow)

    async def close(self, timeout: float = _CLOSE_TIMEOUT) -> None:
        """Ends the iterations after what waits in them, fails what is pending, and disconnects. Idempotent.

        Args:
            timeout: Seconds that it may take at most.
        """
        streams = self._streams
        if streams is None:
            return
        for iteration in list(self._iterations):
            iteration.end()
        await in_thread(lambda: streams.close(timeout), "k2eg-aio-close")

    def _iterate(self, stream: Observable[_T], maxsize: int, overflow: Overflow | str) -> Iteration[_T]:
        iteration = iterate(stream, maxsize, overflow)
        self._iterations.add(iteration)
        return iteration

    @staticmethod
    async def _all(stream: Observable[_T], most: int) -> list[_T]:
        """Returns all results of a batch. To send a thousand commands takes a while: not on the loop's thread."""
        async with iterate(stream, max(1, most)) as items:
            return [item async for item in items]


def _closed() -> ClientClosedError:
    """Returns the error of a PV whose turn came when the client was being closed."""
    return ClientClosedError("the client was closed before the command was sent")
