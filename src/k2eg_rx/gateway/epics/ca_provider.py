"""Channel Access for the gateway, over aioca.

In: gets, puts and subscriptions, on any thread. Out: futures and callbacks, on the thread ``k2eg-ca``, which all
providers of the process share; what is done in a callback delays all that is read over Channel Access.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

import aioca

from k2eg_rx.errors import OperationError
from k2eg_rx.gateway.epics.ca_loop import CALoop, cadef
from k2eg_rx.gateway.epics.ca_subscription import CASubscription
from k2eg_rx.gateway.epics.ca_values import ChannelType, checked_put, structure_of, types_of
from k2eg_rx.gateway.epics.provider import PUT_COMPLETION, ProviderError, ProviderTimeout, PVReading, Subscription
from k2eg_rx.gateway.epics.pv_types import NOTHING_TO_PUT
from k2eg_rx.protocol import Structure, select_field
from k2eg_rx.pv import PVAddress

_log = logging.getLogger(__name__)

_aioca: Any = aioca

_CLOSED = "the Channel Access provider is closed"
_CLOSE_SECONDS = 5.0  # for the tasks to end, of which none waits for anything then
_PUT_FAILED = 160  # ECA_PUTFAIL, caerr.h
_FTVL_SECONDS = 1.0  # a record answers within a round trip; what is no record never does
_EPICS_ERRORS = (aioca.CANothing, cadef.CAException, cadef.Disconnected)

Result = TypeVar("Result")


def _channel_name(address: PVAddress) -> str:
    """A record's field is a channel of its own; a path in the structure is selected from the whole."""
    return address.name if address.is_record_field else address.base


class ChannelAccessProvider:
    """A `Provider` for Channel Access.

    libca reads the EPICS_CA_* variables of the process environment when Channel Access is first used in the process:
    set them before. Channels stay open until the last provider of the process is closed; that closes all of aioca's.
    """

    def __init__(self, *, completion: float = PUT_COMPLETION) -> None:
        """
        Args:
            completion: Seconds that a put waits, once it is sent, for the record to be processed to its end, as a motor
                at its target; a refusal comes in that time. After it the put counts as done.
        """
        self._completion = completion
        self._lock = threading.Lock()
        self._closed = False
        self._thread = CALoop.acquire()
        self._tasks: dict[object, asyncio.Task[Any]] = {}
        self._signed: dict[str, bool] = {}
        self._late_puts: set[asyncio.Future[Any]] = set()  # belongs to the loop's thread

    def get(self, address: PVAddress, timeout: float) -> Future[PVReading]:
        """Reads a PV (or the field the address names), within `timeout` seconds."""
        late = f"{address.name}: no answer within {timeout:g} s"
        return self._submit(address.name, lambda: self._get(address), timeout, lambda: late)

    def put(self, address: PVAddress, fields: Mapping[str, Any], timeout: float) -> Future[None]:
        """Writes the value of a PV, checking its type first: nothing is written that would not read back as given."""
        sent = threading.Event()

        def late() -> str:
            what = "it was sent, and may still be carried out" if sent.is_set() else "nothing was written"
            return f"{address.name}: no answer within {timeout:g} s; {what}"

        return self._submit(address.name, lambda: self._put(address, fields, sent), timeout, late)

    def subscribe(
        self,
        address: PVAddress,
        on_update: Callable[[Structure], None],
        on_connection: Callable[[bool], None],
    ) -> Subscription:
        """Subscribes to a PV: its value now, then each update; reconnects for as long as it is open."""
        name = _channel_name(address)
        subscription = CASubscription(
            address, name, on_update, on_connection, connect=lambda: self._connect(name), end=self._end
        )
        with self._lock:
            if self._closed:
                raise ProviderError(_CLOSED)
            self._call_soon(lambda: self._begin(subscription))
        return subscription

    def close(self) -> None:
        """Ends all subscriptions and threads. Idempotent; not to be called in a callback."""
        with self._lock:
            closed, self._closed = self._closed, True
        if not closed:
            try:
                if not self._thread.loop.is_closed():  # as it is when the process ends
                    asyncio.run_coroutine_threadsafe(self._cancel_all(), self._thread.loop).result(_CLOSE_SECONDS)
            finally:
                self._thread.release()

    def _submit(
        self, subject: str, work: Callable[[], Coroutine[Any, Any, Result]], timeout: float, late: Callable[[], str]
    ) -> Future[Result]:
        """Starts an operation on the Channel Access thread and returns its future."""
        with self._lock:
            if not self._closed:
                return asyncio.run_coroutine_threadsafe(self._bounded(subject, work, timeout, late), self._thread.loop)
        refused: Future[Result] = Future()
        refused.set_exception(ProviderError(_CLOSED))
        return refused

    async def _bounded(
        self, subject: str, work: Callable[[], Coroutine[Any, Any, Result]], timeout: float, late: Callable[[], str]
    ) -> Result:
        task = asyncio.current_task()
        if task is not None:
            self._tasks[task] = task
        try:
            async with asyncio.timeout(timeout):
                return await work()
        except TimeoutError:
            raise ProviderTimeout(late()) from None
        except aioca.CANothing as error:
            raise ProviderError(str(error)) from None  # it names the channel
        except (cadef.CAException, cadef.Disconnected) as error:
            raise ProviderError(f"{subject}: {error}") from None
        except asyncio.CancelledError:
            if self._closed:
                raise ProviderError(_CLOSED) from None
            raise
        finally:
            self._tasks.pop(task, None)

    async def _connect(self, name: str) -> ChannelType:
        """Returns what a channel holds, as soon as it is connected."""
        while True:
            await self._thread.open(name)
            info = await _aioca.cainfo(name, wait=False, timeout=None)
            if info.state == cadef.cs_conn:  # else it was lost again meanwhile
                break
        is_characters = info.datatype == aioca.DBR_CHAR and info.count > 1
        signed = is_characters and await self._is_signed(name.removesuffix(".VAL"))
        return ChannelType.of(name, info.datatype, info.count, signed=signed)

    async def _is_signed(self, name: str) -> bool:
        """Whether a record's characters have a sign. Only the record knows: its field FTVL says CHAR or UCHAR."""
        if "." in name:
            return False  # a field of that type
        if name not in self._signed:
            try:
                async with asyncio.timeout(_FTVL_SECONDS):
                    ftvl = await _aioca.caget(f"{name}.FTVL", datatype=aioca.DBR_ENUM_STR, timeout=None)
            except (TimeoutError, *_EPICS_ERRORS):
                ftvl = ""
            self._signed[name] = ftvl == "CHAR"
        return self._signed[name]

    async def _get(self, address: PVAddress) -> PVReading:
        name = _channel_name(address)
        layout = await self._connect(name)
        reads = [_aioca.caget(name, format=aioca.FORMAT_TIME, timeout=None)]
        if layout.has_control:
            reads.append(_aioca.caget(name, format=aioca.FORMAT_CTRL, timeout=None))
        halves = await asyncio.gather(*reads)
        structure = structure_of(layout, halves[0], halves[-1])
        types = types_of(layout, structure)
        if address.field and not address.is_record_field:
            try:
                structure = select_field(structure, address.field, address.uri)
            except OperationError as error:
                raise ProviderError(error.message) from None
            types = {"value": types.get(address.field, "any")}
        return PVReading(structure, types)

    async def _put(self, address: PVAddress, fields: Mapping[str, Any], sent: threading.Event) -> None:
        name = _channel_name(address)
        if "value" not in fields:
            raise ProviderError(NOTHING_TO_PUT)
        if not address.is_record_field and address.field not in ("", "value"):
            raise ProviderError(f"{address}: over Channel Access only the value can be put")
        layout = await self._connect(name)
        choices: list[str] = []
        if layout.kind == "enum":
            choices = (await _aioca.caget(name, format=aioca.FORMAT_CTRL, timeout=None)).enums
        value, datatype = checked_put(layout, fields["value"], address.name, choices)
        sent.set()
        caput = asyncio.ensure_future(_aioca.caput(name, value, datatype=datatype, wait=True, timeout=None))
        try:
            done, _ = await asyncio.wait([caput], timeout=self._completion)
            for put in done:
                put.result()
            if not done:
                self._late_puts.add(caput)
                caput.add_done_callback(self._late_put)
        except asyncio.CancelledError:
            caput.cancel()
            raise
        except aioca.CANothing as error:
            if error.errorcode == _PUT_FAILED:
                raise ProviderError(f"{error}; its record does not take it, as one with DISP=1") from None
            raise

    def _late_put(self, caput: asyncio.Future[Any]) -> None:
        """Takes note of how a put ended whose reply has not waited for it."""
        self._late_puts.discard(caput)
        if not caput.cancelled() and (error := caput.exception()) is not None:
            _log.warning("a put that was taken has failed later: %s", error)

    def _call_soon(self, action: Callable[[], object]) -> None:
        self._thread.loop.call_soon_threadsafe(action)

    def _begin(self, subscription: CASubscription) -> None:
        self._tasks[subscription] = self._thread.loop.create_task(subscription.run())

    def _end(self, subscription: CASubscription) -> None:
        with self._lock:
            if not self._closed:  # else it is ended with all the others
                self._call_soon(lambda: self._cancel(subscription))

    def _cancel(self, subscription: CASubscription) -> None:
        task = self._tasks.pop(subscription, None)
        if task is not None:
            task.cancel()

    async def _cancel_all(self) -> None:
        tasks = list(self._tasks.values())
        for started, task in list(self._tasks.items()):
            if isinstance(started, CASubscription):
                started.close()  # so that it does not call back while it ends
            task.cancel()
        tasks += [asyncio.ensure_future(put) for put in self._late_puts]
        for put in self._late_puts:
            put.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
