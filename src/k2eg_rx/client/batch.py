"""What gets and puts of many PVs share: results, and a batch with one handler and one deadline.

Thread safety: see `k2eg_rx.client.requests` for the threads on which results arrive.
"""

from __future__ import annotations

import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Generic, TypeVar

from reactivex import abc
from reactivex.disposable import SingleAssignmentDisposable

from k2eg_rx.client.correlation import CommandSender
from k2eg_rx.client.put_progress import PutProgress
from k2eg_rx.delivery import SubscriberInput
from k2eg_rx.errors import ClientClosedError, OperationTimeout
from k2eg_rx.protocol import Command, PVData, Reply
from k2eg_rx.pv import PVAddress


@dataclass(frozen=True, slots=True)
class GetResult:
    """The result for one PV of `Client.get_many_stream`: its data or an error.

    Attributes:
        uri: The PV.
        data: The PV's value; None if there is an error.
        error: `OperationTimeout` if no reply arrived in time, `OperationError` if the gateway could not read the PV,
            `TransportError` or `ClientClosedError` if the command or its reply did not get through.
    """

    uri: str
    data: PVData | None = None
    _: KW_ONLY
    error: Exception | None = None

    def result(self) -> PVData:
        """Returns the data, or raises the error."""
        if self.data is None:
            raise self.error or ValueError(f"{self.uri}: the result has neither data nor an error")
        return self.data


@dataclass(frozen=True, slots=True)
class PutResult:
    """The result for one PV of `Client.put_many_stream`: the gateway's reply or an error.

    Attributes:
        uri: The PV.
        reply: The gateway's reply; None if there is an error.
        error: ValueError if the value does not fit the PV, `OperationTimeout` if no reply arrived in time (its message
            says whether the put may still be carried out), `OperationError` if the gateway could not write the PV,
            `TransportError` or `ClientClosedError` if the command or its reply did not get through, `PutWithheldError`
            if nothing was sent because of another PV.
    """

    uri: str
    reply: Reply | None = None
    _: KW_ONLY
    error: Exception | None = None

    def result(self) -> Reply:
        """Returns the reply, or raises the error."""
        if self.reply is None:
            raise self.error or ValueError(f"{self.uri}: the result has neither a reply nor an error")
        return self.reply


_R = TypeVar("_R", GetResult, PutResult)


def results_by_uri(uris: Iterable[str], results: Iterable[_R], kind: type[_R]) -> dict[str, _R]:
    """Returns the results of a batch by URI, in the order of the URIs.

    Args:
        uris: The PVs.
        results: Their results, in any order. Those that are missing have not been sent: the client was closed before.
        kind: `GetResult` or `PutResult`.
    """
    found = {result.uri: result for result in results}
    unsent = ClientClosedError("the client was closed before the command was sent")
    return {uri: found[uri] if uri in found else kind(uri, error=unsent) for uri in uris}


class Batch(ABC, Generic[_R]):
    """One subscription to a batch; handles the replies to all of its commands.

    Thread safety: the tables belong to the lock; the thread that removes a PV from `_waiting` offers its result.

    Args:
        sender: Sends the commands.
        addresses: The PVs by their URIs.
        timeout: Seconds for the whole batch.
        subscriber: Gets the results.
    """

    def __init__(
        self, sender: CommandSender, addresses: Mapping[str, PVAddress], timeout: float, subscriber: SubscriberInput[_R]
    ) -> None:
        self._sender = sender
        self._addresses = addresses
        self._timeout = timeout
        self._subscriber = subscriber
        self._lock = threading.Lock()
        self._waiting = dict.fromkeys(addresses, True)
        self._not_offered = len(addresses)
        self._uris: dict[str, str] = {}  # by reply id, of all commands ever sent
        self._id = uuid.uuid4().hex
        self._timer = SingleAssignmentDisposable()

    @abstractmethod
    def _begin(self) -> None:
        """Sends the first command for each PV."""

    @abstractmethod
    def _handle(self, replies: Iterable[tuple[str, Reply]]) -> None:
        """Handles replies with their PVs' URIs, one per command."""

    @abstractmethod
    def _failed(self, uri: str, error: Exception) -> _R:
        """Returns the result of a PV that failed."""

    @abstractmethod
    def _timed_out(self, uri: str) -> OperationTimeout:
        """Returns the error of a PV without a reply in time."""

    def start(self, timers: abc.SchedulerBase) -> None:
        """Starts the timeout and sends the commands."""

        def expire(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            self._offer([self._failed(uri, self._timed_out(uri)) for uri in self._give_up()])

        self._timer.disposable = timers.schedule_relative(self._timeout, expire)
        self._begin()

    def _send(self, commands: Mapping[str, Command]) -> None:
        """Sends commands by URI, for those PVs that still wait for a result."""
        with self._lock:
            number = len(self._uris)
            uris = {f"{self._id}-{number + place}": uri for place, uri in enumerate(commands) if uri in self._waiting}
            self._uris.update(uris)
        if uris:
            self._sender.send({reply_id: commands[uri] for reply_id, uri in uris.items()}, self)
            if not self._waiting:  # given up meanwhile, perhaps before the ids were registered
                self._sender.unregister(uris)

    def handle(self, replies: Sequence[Reply]) -> None:
        """Handles the first reply to each command; see `ReplyHandler.handle`."""
        first = {reply.reply_id: reply for reply in reversed(replies)}
        pending = self._sender.unregister(reply.reply_id for reply in replies)
        self._handle((self._uris[reply_id], first[reply_id]) for reply_id in pending)

    def fail(self, reply_ids: Sequence[str], error: Exception) -> None:
        """Makes the error the result of some PVs; see `ReplyHandler.fail`."""
        self._finish([self._failed(self._uris[reply_id], error) for reply_id in reply_ids])

    def on_progress(self, reply_id: str, progress: PutProgress) -> None:
        """Records how far a put has come; see `ReplyHandler.on_progress`."""

    def _finish(self, results: Iterable[_R]) -> None:
        """Offers the results of PVs that still wait for one."""
        with self._lock:
            results = [result for result in self._with_others(list(results)) if self._waiting.pop(result.uri, False)]
        self._leave(result.uri for result in results)
        self._offer(results)

    def _with_others(self, results: list[_R]) -> list[_R]:
        """Returns results together with those that they entail for other PVs; called with the lock held."""
        return results

    def _leave(self, uris: Iterable[str]) -> None:
        """Called with PVs that wait for a result no more."""

    def _offer(self, results: Sequence[_R]) -> None:
        """Offers results; the thread that offers the last one completes the stream, as threads may overtake others."""
        if not results:
            return
        self._subscriber.offer(results)
        with self._lock:
            self._not_offered -= len(results)
            complete = self._not_offered == 0
        if complete:
            self._timer.dispose()
            self._subscriber.finish()

    def _give_up(self) -> list[str]:
        """Stops waiting; returns the PVs without a result."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
            reply_ids = list(self._uris)
        self._sender.unregister(reply_ids)
        self._leave(waiting)
        return list(waiting)

    def dispose(self) -> None:
        """Stops without further commands or results."""
        self._timer.dispose()
        self._give_up()
