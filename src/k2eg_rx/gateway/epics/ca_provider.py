"""Channel Access for the gateway, over aioca.

Thread safety: methods are callable on any thread. Callbacks run on the thread ``k2eg-ca``, which all providers of the
process share; a slow callback delays everything that is read over Channel Access.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

import aioca

from k2eg_rx.gateway.epics.ca_loop import CALoop, cadef
from k2eg_rx.gateway.epics.ca_puts import PlainPuts, put_and_wait
from k2eg_rx.gateway.epics.ca_signs import RecordSigns
from k2eg_rx.gateway.epics.ca_subscription import CASubscription
from k2eg_rx.gateway.epics.ca_values import ChannelType, checked_put, structure_of, types_of
from k2eg_rx.gateway.epics.provider import (
    NotSentError,
    ProviderError,
    ProviderTimeout,
    PVReading,
    Subscription,
    channel_name,
    no_answer,
    selected_field,
)
from k2eg_rx.gateway.epics.pv_types import NOTHING_TO_PUT
from k2eg_rx.protocol import Structure
from k2eg_rx.pv import PVAddress
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

_aioca: Any = aioca

_CLOSED = "the Channel Access provider is closed"
_CLOSE_SECONDS = 5.0  # for cancelled tasks to end, none of which waits for anything

Result = TypeVar("Result")


class ChannelAccessProvider:
    """A `Provider` for Channel Access.

    libca reads the EPICS_CA_* environment variables at the first use of Channel Access in the process: set them before.
    Channels stay open until the last provider of the process is closed, which closes all channels of aioca.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._thread = CALoop.acquire()
        # the rest belongs to the loop's thread
        self._tasks: dict[object, asyncio.Task[Any]] = {}
        self._signs = RecordSigns()
        self._plain_puts = PlainPuts()

    def problem(self) -> str:
        """Returns why nothing can be read; empty if something can."""
        if self._closed:
            return _CLOSED
        return "" if self._thread.loop.is_running() else "the Channel Access thread has ended"

    def get(self, address: PVAddress, timeout: float) -> Future[PVReading]:
        """See `Provider.get`."""
        return self._submit(address.name, lambda: self._get(address), timeout, lambda: no_answer(address.name, timeout))

    def put(
        self,
        address: PVAddress,
        fields: Mapping[str, Any],
        timeout: float,
        *,
        wait: bool = False,
        on_written: Callable[[], None] = lambda: None,
        may_send: Callable[[], bool] = lambda: True,
    ) -> Future[None]:
        """See `Provider.put`. Only the value can be put over Channel Access."""
        sent = threading.Event()

        def send() -> None:
            if not may_send():
                raise NotSentError
            sent.set()

        return self._submit(
            address.name,
            lambda: self._put(address, fields, send, wait=wait, on_written=on_written),
            timeout,
            lambda: no_answer(address.name, timeout, sent, wait=wait),
        )

    def subscribe(
        self,
        address: PVAddress,
        on_update: Callable[[Structure], None],
        on_connection: Callable[[bool], None],
        on_unreadable: Callable[[], None] = lambda: None,
    ) -> Subscription:
        """See `Provider.subscribe`."""
        name = channel_name(address)
        subscription = CASubscription(
            address,
            name,
            on_update,
            on_connection,
            on_unreadable,
            connect=lambda: self._connect(name),
            on_close=self._on_subscription_closed,
        )
        with self._lock:
            if self._closed:
                raise ProviderError(_CLOSED)
            self._call_soon(lambda: self._start(subscription))
        return subscription

    def close(self) -> None:
        """Ends all subscriptions and threads. Idempotent; not callable in a callback."""
        with self._lock:
            closed, self._closed = self._closed, True
        if not closed:
            try:
                if not self._thread.loop.is_closed():  # it is when the process is ending
                    asyncio.run_coroutine_threadsafe(self._cancel_all(), self._thread.loop).result(_CLOSE_SECONDS)
            finally:
                self._thread.release()

    def _submit(
        self,
        name: str,
        work: Callable[[], Coroutine[Any, Any, Result]],
        timeout: float,
        timeout_error: Callable[[], ProviderTimeout],
    ) -> Future[Result]:
        """Runs an operation on the Channel Access thread and returns its future."""
        with self._lock:
            if not self._closed:
                operation = self._run(name, work, timeout, timeout_error)
                return asyncio.run_coroutine_threadsafe(operation, self._thread.loop)
        refused: Future[Result] = Future()
        refused.set_exception(ProviderError(_CLOSED))
        return refused

    async def _run(
        self,
        name: str,
        work: Callable[[], Coroutine[Any, Any, Result]],
        timeout: float,
        timeout_error: Callable[[], ProviderTimeout],
    ) -> Result:
        """Runs an operation with a timeout, and maps the library's errors to `ProviderError`."""
        task = asyncio.current_task()
        if task is not None:
            self._tasks[task] = task
        try:
            async with asyncio.timeout(timeout):
                return await work()
        except TimeoutError:
            raise timeout_error() from None
        except aioca.CANothing as error:
            raise ProviderError(str(error)) from None  # its text names the channel
        except (cadef.CAException, cadef.Disconnected) as error:
            raise ProviderError(f"{name}: {error}") from None
        except asyncio.CancelledError:
            if self._closed:
                raise ProviderError(_CLOSED) from None
            raise
        finally:
            self._tasks.pop(task, None)

    async def _connect(self, name: str) -> ChannelType:
        """Waits until a channel is connected, and returns its type."""
        while True:
            await self._thread.open(name)
            info = await _aioca.cainfo(name, wait=False, timeout=None)
            if info.state == cadef.cs_conn:  # otherwise it disconnected in between
                break
        signed = info.datatype == aioca.DBR_CHAR and await self._signs.is_signed(name)
        return ChannelType.of(name, info.datatype, info.count, signed=signed)

    async def _get(self, address: PVAddress) -> PVReading:
        name = channel_name(address)
        channel = await self._connect(name)
        reads = [_aioca.caget(name, format=aioca.FORMAT_TIME, count=channel.count, timeout=None)]
        if channel.has_control:
            reads.append(_aioca.caget(name, format=aioca.FORMAT_CTRL, count=channel.count, timeout=None))
        parts = await asyncio.gather(*reads)
        structure = structure_of(channel, parts[0], parts[-1])
        types = types_of(channel, structure)
        if address.field and not address.is_record_field:
            structure = selected_field(structure, address)
            types = {"value": types.get(address.field, "any")}
        return PVReading(structure, types)

    async def _put(
        self,
        address: PVAddress,
        fields: Mapping[str, Any],
        send: Callable[[], None],
        *,
        wait: bool,
        on_written: Callable[[], None],
    ) -> None:
        name = channel_name(address)
        if "value" not in fields:
            raise ProviderError(NOTHING_TO_PUT)
        if not address.is_record_field and address.field not in ("", "value"):
            raise ProviderError(f"{address}: over Channel Access only the value can be put")
        channel = await self._connect(name)
        choices: list[str] = []
        if channel.kind == "enum":
            choices = (await _aioca.caget(name, format=aioca.FORMAT_CTRL, timeout=None)).enums
        value, datatype = checked_put(channel, fields["value"], address.name, choices)
        if wait:
            await put_and_wait(name, value, datatype, send, on_written)
        else:
            await self._plain_puts.put(name, value, datatype, send)

    def _call_soon(self, action: Callable[[], object]) -> None:
        self._thread.loop.call_soon_threadsafe(action)

    def _start(self, subscription: CASubscription) -> None:
        self._tasks[subscription] = self._thread.loop.create_task(subscription.run())

    def _on_subscription_closed(self, subscription: CASubscription) -> None:
        with self._lock:
            if not self._closed:  # otherwise close() cancels all of them
                self._call_soon(lambda: self._cancel(subscription))

    def _cancel(self, subscription: CASubscription) -> None:
        task = self._tasks.pop(subscription, None)
        if task is not None:
            task.cancel()

    async def _cancel_all(self) -> None:
        tasks = list(self._tasks.values())
        for started, task in list(self._tasks.items()):
            if isinstance(started, CASubscription):
                started.close()  # prevents callbacks while it ends
            task.cancel()
        self._signs.close()
        await asyncio.gather(*tasks, return_exceptions=True)
