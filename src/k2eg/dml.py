"""The documented client: blocking calls and callbacks, each of them a subscription to a stream.

In: calls, on any thread; blocking ones may be made in a handler too. Out: dicts, and handlers called on threads of the
client's pool, the calls of one handler in order and one at a time.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from reactivex import Observable
from reactivex import operators as ops

from k2eg.listeners import Handler, Listener, Listeners, PVListener
from k2eg_rx import (
    Client,
    ClientClosedError,
    OperationError,
    OperationTimeout,
    PVAddress,
    PVUpdate,
    Reply,
    Snapshot,
    SnapshotProperties,
    Structure,
    first,
    pv_name_of,
)

__all__ = ["OperationError", "OperationTimeout", "dml"]

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

_SNAPSHOT_TIMEOUT = 10.0  # as documented
_ON_ITS_WAY = 1.0  # seconds for an error that has happened to reach its subscription


class dml(Client):  # noqa: N801 - the documented name
    """A client of a K2EG gateway, with blocking calls and callbacks beside the streams of `k2eg_rx.Client`.

    A handler that raises is logged and called again with the next event. PVs are given as ``pva://NAME`` or
    ``ca://NAME``; what comes back is named by the name alone.

    Args:
        environment_id: The environment: the name of its ``.ini`` file.
        app_name: The application: it names the topic for replies.
        group_name: Given, the clients of that group share the events among them.
        **options: As of `k2eg_rx.Client`: `settings`, `transport`, `timeout`.

    Raises:
        ValueError: The environment is missing or wrong, or `app_name` is.
    """

    def __init__(self, environment_id: str, app_name: str, group_name: str | None = None, **options: Any) -> None:
        self._listeners = Listeners()
        super().__init__(environment_id, app_name, group_name, **options)

    def wait_for_backends(self, timeout: float | None = None) -> None:
        """Returns as soon as replies can be received.

        Operations wait for that by themselves.

        Raises:
            OperationTimeout: It took too long.
            TransportError: The reply topic cannot be read; the text says what to do.
        """
        first(self.ready_stream(timeout))

    def get(self, pv_url: str, timeout: float | None = None) -> Structure:
        """Returns a PV's structure: ``{"value": ..., "alarm": {...}, "timeStamp": {...}, ...}``.

        Args:
            pv_url: The PV.
            timeout: Seconds.

        Raises:
            ValueError: The URI is wrong.
            OperationTimeout: There was no answer in time.
            OperationError: The gateway could not read the PV.
        """
        return first(self.get_stream(pv_url, timeout)).data

    def put(self, pv_url: str, value: object, timeout: float | None = None, check: bool = True) -> dict[str, Any]:
        """Writes a PV; returns the gateway's reply.

        Args:
            pv_url: The PV.
            value: A `k2eg.serialization.MessagePackSerializable` (`Scalar`, `Vector`, `NTTable`, `Generic`), sent as
                given; or a plain or numpy value: a number, string, list, array, a map of fields or of a table's
                columns, an enum's index or label. A plain one is converted to the PV's type, learned by a get the
                first time.
            timeout: Seconds.
            check: False sends a plain value as it is. A gateway may then write a wrong value without a word.

        Raises:
            ValueError: The URI is wrong, or the value does not fit the PV.
            OperationTimeout: There was no answer in time; the put may still be carried out.
            OperationError: The gateway could not write the PV.
        """
        return dict(first(self.put_stream(pv_url, value, timeout, check=check)).body)

    def get_many(self, pv_uri_list: Sequence[str], timeout: float | None = None) -> dict[str, Structure | Exception]:
        """Returns the structures of many PVs, by URI, read at once; of a PV that could not be read, the error.

        It takes about as long as the slowest PV, and a dead one delays nobody else's answer beyond the timeout.

        Args:
            pv_uri_list: The PVs.
            timeout: Seconds for all of them.

        Returns:
            A dict by URI, in the order given, of ``{"value": ..., "alarm": {...}, "timeStamp": {...}, ...}`` as of
            `get`, or an `OperationTimeout`, `OperationError` or `TransportError`.

        Raises:
            ValueError: A URI is wrong, or there is none.

        Example:
            >>> from k2eg.dml import dml
            >>> from k2eg_rx.testing import ScriptedGateway
            >>> with ScriptedGateway() as gateway, dml("demo", "my-app") as client:
            ...     _ = gateway.pv("my:x", 1.5)
            ...     for uri, got in client.get_many(["pva://my:x", "ca://my:dead"], timeout=2.0).items():
            ...         print(uri, got if isinstance(got, Exception) else got["value"])
            pva://my:x 1.5
            ca://my:dead get of ca://my:dead: no reply within 2 s
        """
        results = first(self.get_many_stream(pv_uri_list, timeout).pipe(ops.to_list()))
        by_uri = {got.uri: got.error or got.result().data for got in results}
        return {uri: by_uri[uri] if uri in by_uri else _closed() for uri in pv_uri_list}

    def put_many(
        self, values: Mapping[str, object], timeout: float | None = None, check: bool = True
    ) -> dict[str, dict[str, Any] | Exception]:
        """Writes many PVs at once, in no certain order; returns the gateway's replies by URI, or errors.

        One that fails does not keep the others from being written.

        Args:
            values: By URI what to write, as for `put`.
            timeout: Seconds for all of them.
            check: As for `put`.

        Returns:
            A dict by URI, in the order given, of the gateway's reply, or a ValueError if the value does not fit the
            PV, an `OperationTimeout` (its text says whether the put may still be carried out), `OperationError` or
            `TransportError`.

        Raises:
            ValueError: A URI is wrong, or there is none.

        Example:
            >>> from k2eg.dml import dml
            >>> from k2eg_rx.testing import ScriptedGateway
            >>> with ScriptedGateway() as gateway, dml("demo", "my-app") as client:
            ...     x, y = gateway.pv("my:x", 0.0), gateway.pv("my:y", 0)
            ...     replies = client.put_many({"pva://my:x": 1.5, "pva://my:y": "no number"}, timeout=2.0)
            ...     print({uri: type(reply).__name__ for uri, reply in replies.items()}, x.value, y.value)
            {'pva://my:x': 'dict', 'pva://my:y': 'ValueError'} 1.5 0
        """
        results = first(self.put_many_stream(values, timeout, check=check).pipe(ops.to_list()))
        by_uri = {put.uri: put.error or dict(put.result().body) for put in results}
        return {uri: by_uri[uri] if uri in by_uri else _closed() for uri in values}

    def monitor(self, pv_url: str, handler: Handler, timeout: float | None = None) -> dict[str, Any]:
        """Has a handler called with each update of a PV; returns the gateway's reply.

        The gateway confirms before it knows whether the PV exists; one that does not is silent.

        Args:
            pv_url: The PV.
            handler: Called with the PV's name and its structure. A PV may have several.
            timeout: Seconds for the gateway's confirmation.

        Raises:
            ValueError: The URI is wrong.
            OperationTimeout: There was no answer in time.
            OperationError: The gateway refused.
        """
        return self.monitor_many([pv_url], handler, timeout)

    def monitor_many(
        self, pv_uri_list: Sequence[str], handler: Handler, timeout: float | None = None
    ) -> dict[str, Any]:
        """Has a handler called with each update of several PVs, one at a time; returns the gateway's reply.

        Args:
            pv_uri_list: The PVs.
            handler: Called with the PV's name and its structure.
            timeout: Seconds for the gateway's confirmation.

        Raises:
            ValueError: A URI is wrong, or there is none.
            OperationTimeout: There was no answer in time.
            OperationError: The gateway refused.
        """
        seconds = self._seconds(timeout)
        stream = self.monitor_many_stream(pv_uri_list)
        listener = PVListener((PVAddress.parse(uri).name for uri in pv_uri_list), handler, _update)
        self._listeners.add(listener)
        return _begin(listener, stream, lambda: self.activation_stream(pv_uri_list, seconds))

    def stop_monitor(self, pv_name: str, handler: Handler | None = None) -> None:
        """Ends the calls about a PV. Nothing happens if there are none.

        The gateway ends its side by itself when nobody listens any more.

        Args:
            pv_name: The PV's name or URI.
            handler: The one handler to stop; all of the PV's if not given.
        """
        self._listeners.stop(pv_name_of(pv_name), handler)

    def snapshot(self, pv_uri_list: Sequence[str], handler: Handler, timeout: float | None = None) -> str:
        """Acquires several PVs together; returns an id at once.

        Args:
            pv_uri_list: The PVs.
            handler: Called once, with the id and a map of PV names to lists of structures, empty for a PV that had no
                data in time. It is not called if the snapshot fails, which is logged.
            timeout: Seconds.

        Raises:
            ValueError: A URI is wrong, or there is none.
        """
        snapshot_id = str(uuid.uuid4())
        listener = Listener[Snapshot](
            f"snapshot {snapshot_id}", handler, lambda snapshot: (snapshot_id, dict(snapshot.data))
        )
        listener.settle()
        listener.listen(self.snapshot_stream(pv_uri_list, timeout))
        return snapshot_id

    def snapshot_sync(self, pv_uri_list: Sequence[str], timeout: float = _SNAPSHOT_TIMEOUT) -> dict[str, Any]:
        """Acquires several PVs together and returns them.

        Returns:
            ``{"error": 0, "snapshot": {name: samples}}``, and each PV's samples under its name as well. Samples are a
            list of structures; a string index answers from the newest.

        Raises:
            ValueError: A URI is wrong, or there is none.
            OperationTimeout: It was not complete in time.
            OperationError: The gateway refused.
        """
        snapshot = first(self.snapshot_stream(pv_uri_list, timeout))
        data = dict(snapshot.data)
        return {**data, "error": snapshot.error, "snapshot": data}

    def snapshot_recurring(
        self,
        properties: SnapshotProperties,
        handler: Handler,
        timeout: float | None = None,
        check_fields: bool = True,
    ) -> dict[str, Any]:
        """Starts a recurring snapshot and has a handler called with each iteration; returns the gateway's reply.

        Args:
            properties: What to acquire, and when.
            handler: Called with the snapshot's name and ``{"timestamp", "iteration", "header_timestamp",
                "tail_timestamp", name: samples, ...}``, times in Unix milliseconds.
            timeout: Seconds for the gateway's confirmation.
            check_fields: Whether to read every PV first and see that it has the fields of a field filter, which the
                deployed gateway would not survive otherwise.

        Raises:
            ValueError: A property is wrong; the text names it.
            OperationTimeout: There was no answer in time.
            OperationError: The gateway refused.
        """
        seconds, name = self._seconds(timeout), properties.snapshot_name
        stream = self.snapshot_recurring_stream(properties, check_fields=check_fields)
        listener = Listener[Snapshot](f"snapshot {name!r}", handler, _iteration)
        return _begin(listener, stream, lambda: self.snapshot_activation_stream(name, seconds))

    def snapshot_trigger(
        self, snapshot_name: str, timeout: float | None = None, tags: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Has a triggered recurring snapshot make an iteration; returns the gateway's reply.

        Args:
            snapshot_name: The snapshot.
            timeout: Seconds.
            tags: What to note with the trigger.

        Raises:
            ValueError: The name is empty.
            OperationTimeout: There was no answer in time.
            OperationError: The gateway refused; there is no such snapshot.
        """
        return dict(first(self.snapshot_trigger_stream(snapshot_name, timeout, tags)).body)

    def snapshost_trigger(
        self, snapshot_name: str, timeout: float | None = None, tags: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Is `snapshot_trigger`, by the name it was first documented under."""
        return self.snapshot_trigger(snapshot_name, timeout, tags)

    def snapshot_stop(self, snapshot_name: str, timeout: float | None = None) -> dict[str, Any]:
        """Stops a recurring snapshot; returns the gateway's reply. A last, partial iteration may still come.

        Args:
            snapshot_name: The snapshot.
            timeout: Seconds.

        Raises:
            ValueError: The name is empty.
            OperationTimeout: There was no answer in time.
            OperationError: The gateway refused.
        """
        return dict(first(self.snapshot_stop_stream(snapshot_name, timeout)).body)


def _closed() -> ClientClosedError:
    """Returns the error of a PV whose turn came when the client was being closed."""
    return ClientClosedError("the client was closed before the command was sent")


def _update(update: PVUpdate) -> tuple[str, Structure]:
    return update.name, update.data


def _iteration(snapshot: Snapshot) -> tuple[str, dict[str, Any]]:
    if snapshot.error:
        _log.warning(
            "snapshot %s, iteration %d: error %d: %s",
            snapshot.name,
            snapshot.iteration,
            snapshot.error,
            snapshot.error_message,
        )
    return snapshot.name, snapshot.as_dict()


def _begin(
    listener: Listener[_T], stream: Observable[_T], activation: Callable[[], Observable[Reply]]
) -> dict[str, Any]:
    """Subscribes a listener and returns the gateway's answer, or raises with nothing left subscribed."""
    try:
        listener.listen(stream)
        reply = first(_activation(listener, activation))
        listener.settle()
    except BaseException:  # Ctrl-C too
        listener.dispose()
        raise
    return dict(reply.body)


def _activation(listener: Listener[Any], activation: Callable[[], Observable[Reply]]) -> Observable[Reply]:
    """Returns the stream of the gateway's answer; raises what the listener's stream has failed with."""
    failure = listener.failure()
    if failure is not None:
        raise failure
    try:
        return activation()
    except ValueError:  # it is not active any more, because it failed meanwhile
        failure = listener.failure(_ON_ITS_WAY)
        if failure is None:
            raise
        raise failure from None
