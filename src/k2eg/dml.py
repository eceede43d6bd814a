"""The documented client `dml`: blocking calls and callbacks on top of the streams.

Thread safety: methods may be called on any thread, blocking ones in a handler too. Handlers run on threads of the
client's pool; the calls of one handler are in order and one at a time.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from reactivex import Observable
from reactivex import operators as ops

from k2eg.listeners import Handler, Listener, Listeners, PVListener
from k2eg_rx import (
    GetResult,
    OperationError,
    OperationTimeout,
    PutResult,
    PVAddress,
    PVUpdate,
    Reply,
    Settings,
    Snapshot,
    SnapshotProperties,
    StreamClient,
    Structure,
    first,
)
from k2eg_rx.arguments import function, instance, items_of, pv_names
from k2eg_rx.client import DEFAULT_SILENCE, DEFAULT_TIMEOUT, results_by_uri
from k2eg_rx.texts import get_logger, shown
from k2eg_rx.transport import Transport

__all__ = ["OperationError", "OperationTimeout", "Snapshot", "dml"]

_log = get_logger(__name__)

_T = TypeVar("_T")

_SNAPSHOT_TIMEOUT = 10.0  # seconds, as documented
_FAILURE_DELIVERY = 1.0  # seconds for a failure of a stream to reach its subscriber


class dml(StreamClient):  # noqa: N801 - the documented name
    """A client of a K2EG gateway with blocking calls and callbacks; it also has the streams of `k2eg_rx.Client`.

    PVs are given as ``pva://NAME`` or ``ca://NAME`` and reported by their name. An exception of a handler is logged,
    and the handler is called with the next event.

    Args:
        environment_id: The environment: the name of its ``.ini`` file.
        app_name: The application: it names the topic for replies.
        group_name: Clients with the same group share the events among them. Any object, such as a `uuid.UUID`, whose
            text names the group.
        poll_timeout: Has no effect; other K2EG clients poll Kafka in such steps. This one is called by events.
        settings: Settings to use instead of the environment's file.
        transport: A connection to a gateway other than Kafka.
        timeout: Seconds for operations without a timeout of their own.
        silence: Seconds without an event after which a monitor is activated again; as of `k2eg_rx.Client`.
        snapshot_wait: Seconds that missing messages of an iteration are waited for; as of `k2eg_rx.Client`.

    Raises:
        ValueError: The environment does not exist or is invalid, or `app_name` is invalid.
    """

    def __init__(
        self,
        environment_id: str,
        app_name: str,
        group_name: object = None,
        poll_timeout: float | None = None,  # noqa: ARG002 - for scripts that pass it
        *,
        settings: Settings | None = None,
        transport: Transport | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        silence: float = DEFAULT_SILENCE,
        snapshot_wait: float | None = None,
    ) -> None:
        self._listeners = Listeners()
        super().__init__(
            environment_id,
            app_name,
            group_name=group_name,
            settings=settings,
            transport=transport,
            timeout=timeout,
            silence=silence,
            snapshot_wait=snapshot_wait,
        )

    def wait_for_backends(self, timeout: float | None = None) -> None:
        """Waits until replies can be received. Operations do so themselves.

        Raises:
            OperationTimeout: The reply topic was not readable in time.
            TransportError: The reply topic cannot be read; the text says what to do.
        """
        first(self.ready_stream(timeout))

    def parse_pv_url(self, pv_url: str) -> tuple[str, str]:
        """Returns the protocol and the name of a PV, such as ``("pva", "my:pv")``.

        Raises:
            ValueError: The URI is invalid.
        """
        address = PVAddress.parse(pv_url)
        return address.protocol, address.name

    def get(self, pv_url: str, timeout: float | None = None) -> Structure:
        """Returns a PV's structure: ``{"value": ..., "alarm": {...}, "timeStamp": {...}, ...}``.

        Args:
            pv_url: The PV.
            timeout: Seconds.

        Raises:
            ValueError: The URI is invalid.
            OperationTimeout: No reply arrived in time.
            OperationError: The gateway could not read the PV.
        """
        return first(self.get_stream(pv_url, timeout)).data

    def put(
        self, pv_url: str, value: object, timeout: float | None = None, *, wait: bool = False, check: bool = True
    ) -> dict[str, Any]:
        """Writes a PV and returns the gateway's reply.

        Args:
            pv_url: The PV.
            value: A plain value or one of numpy, pandas or p4p: a number, string, list, array, mapping of fields or of
                a table's columns, a DataFrame, a p4p `Value`, an enum's index or label. It is converted to the PV's
                type, which the client reads with a get. Or a `k2eg.serialization.MessagePackSerializable` (`Scalar`,
                `Vector`, `NTTable`, `Generic`), sent unchanged.
            timeout: Seconds.
            wait: Whether the reply waits until the record has completed what the put started, such as a motor's move;
                it then has ``completed``: True. Otherwise the put is written at once. Other gateways ignore it.
            check: False sends a plain value unchanged; the gateway may then write a wrong value and report success.

        Raises:
            ValueError: The URI is invalid, or the value does not fit the PV.
            OperationTimeout: No reply arrived in time; the put may still be executed.
            OperationError: The gateway could not write the PV.
        """
        return dict(first(self.put_stream(pv_url, value, timeout, wait=wait, check=check)).body)

    def get_many(self, pv_uri_list: Sequence[str], timeout: float | None = None) -> dict[str, Structure | Exception]:
        """Reads many PVs concurrently; returns a structure or an error by URI.

        The call takes as long as the slowest PV, at most `timeout`.

        Args:
            pv_uri_list: The PVs.
            timeout: Seconds for all PVs together.

        Returns:
            By URI, in the given order, the structure as of `get`, or an `OperationTimeout`, `OperationError` or
            `TransportError`.

        Raises:
            ValueError: A URI is invalid, or the list is empty.

        Example:
            >>> from k2eg.dml import dml
            >>> from k2eg_rx.testing import ScriptedGateway
            >>> with ScriptedGateway() as gateway, dml("demo", "my-app") as client:
            ...     _ = gateway.pv("my:x", 1.5)
            ...     for uri, got in client.get_many(["pva://my:x", "ca://my:dead"], timeout=2.0).items():
            ...         print(uri, type(got).__name__ if isinstance(got, Exception) else got["value"])
            pva://my:x 1.5
            ca://my:dead OperationTimeout
        """
        uris = items_of(pv_uri_list, "pv_uri_list", "a list of PV URIs")
        results = first(self.get_many_stream(uris, timeout).pipe(ops.to_list()))
        return {uri: got.error or got.result().data for uri, got in results_by_uri(uris, results, GetResult).items()}

    def put_many(
        self,
        values: Mapping[str, object],
        timeout: float | None = None,
        *,
        wait: bool = False,
        check: bool = True,
        all_or_none: bool = False,
    ) -> dict[str, dict[str, Any] | Exception]:
        """Writes many PVs concurrently, in no particular order; returns a reply or an error by URI.

        An error of one PV does not affect the others.

        Args:
            values: The values to write, by URI, as for `put`.
            timeout: Seconds for all PVs together.
            wait: As for `put`.
            check: As for `put`.
            all_or_none: Whether no put is sent if a value does not fit, or a PV's type is not known in time; the
                other PVs then have `PutWithheldError`.

        Returns:
            By URI, in the given order, the gateway's reply, or a ValueError if the value does not fit the PV, an
            `OperationTimeout` (its text says whether the put may still be executed), `OperationError` or
            `TransportError`.

        Raises:
            ValueError: A URI is invalid, or the list is empty.

        Example:
            >>> from k2eg.dml import dml
            >>> from k2eg_rx.testing import ScriptedGateway
            >>> with ScriptedGateway() as gateway, dml("demo", "my-app") as client:
            ...     x, y = gateway.pv("my:x", 0.0), gateway.pv("my:y", 0)
            ...     replies = client.put_many({"pva://my:x": 1.5, "pva://my:y": "no number"}, timeout=2.0)
            ...     print({uri: type(reply).__name__ for uri, reply in replies.items()}, x.value, y.value)
            {'pva://my:x': 'dict', 'pva://my:y': 'ValueError'} 1.5 0
        """
        results = first(
            self.put_many_stream(values, timeout, wait=wait, check=check, all_or_none=all_or_none).pipe(ops.to_list())
        )
        return {
            uri: put.error or dict(put.result().body) for uri, put in results_by_uri(values, results, PutResult).items()
        }

    def monitor(self, pv_url: str, handler: Handler, timeout: float | None = None) -> dict[str, Any]:
        """Calls a handler with each update of a PV; returns the gateway's reply.

        The gateway replies before it knows whether the PV exists; a PV that does not exist has no updates.

        Args:
            pv_url: The PV.
            handler: Called with the PV's name and structure. A PV may have several handlers.
            timeout: Seconds for the gateway's reply.

        Raises:
            ValueError: The URI is invalid, or the handler cannot be called with two arguments.
            OperationTimeout: No reply arrived in time.
            OperationError: The gateway rejected the command.
        """
        return self.monitor_many([pv_url], handler, timeout)

    def monitor_many(
        self, pv_uri_list: Sequence[str], handler: Handler, timeout: float | None = None
    ) -> dict[str, Any]:
        """Calls a handler with each update of several PVs, one update at a time; returns the gateway's reply.

        Args:
            pv_uri_list: The PVs.
            handler: Called with the PV's name and structure.
            timeout: Seconds for the gateway's reply.

        Raises:
            ValueError: A URI is invalid, the list is empty, or the handler cannot be called with two arguments.
            OperationTimeout: No reply arrived in time.
            OperationError: The gateway rejected the command.
        """
        seconds, uris = self._seconds(timeout), items_of(pv_uri_list, "pv_uri_list", "a list of PV URIs")
        stream = self.monitor_many_stream(uris)
        listener = PVListener((PVAddress.parse(uri).name for uri in uris), handler, _update_arguments)
        self._listeners.add(listener)
        return _start(listener, stream, lambda: self.activation_stream(uris, seconds))

    def stop_monitor(self, pv_name: str, handler: Handler | None = None) -> None:
        """Stops calling a PV's handlers. Does nothing if the PV has none.

        The gateway ends the monitor itself when no client reads its topic any more.

        Args:
            pv_name: The PV's name or URI.
            handler: The handler to stop; by default all of the PV's.
        """
        (name,) = pv_names([pv_name], "pv_name")
        self._listeners.stop(name, function(handler, "handler"))

    def snapshot(self, pv_uri_list: Sequence[str], handler: Handler, timeout: float | None = None) -> str:
        """Starts a one-shot snapshot of several PVs and returns its id at once.

        Args:
            pv_uri_list: The PVs.
            handler: Called once with the id and a dict from PV name to list of structures; the list is empty for a PV
                without data in time. If the snapshot fails, the failure is logged and the handler is not called.
            timeout: Seconds.

        Raises:
            ValueError: A URI is invalid, the list is empty, or the handler cannot be called with two arguments.
        """
        snapshot_id = str(uuid.uuid4())
        listener = Listener[Snapshot](
            f"snapshot {snapshot_id}",
            handler,
            lambda snapshot: (snapshot_id, dict(snapshot.data)),
            ("the snapshot's id", "its data"),
        )
        listener.mark_started()
        listener.subscribe(self.snapshot_stream(pv_uri_list, timeout))
        return snapshot_id

    def snapshot_sync(self, pv_uri_list: Sequence[str], timeout: float = _SNAPSHOT_TIMEOUT) -> dict[str, Any]:
        """Takes a one-shot snapshot of several PVs and returns it.

        Returns:
            ``{"error": 0, "snapshot": {name: samples}, name: samples, ...}``. Samples are a list of structures; a
            string as index reads a field of the newest.

        Raises:
            ValueError: A URI is invalid, or the list is empty.
            OperationTimeout: The snapshot was not complete in time.
            OperationError: The gateway rejected the command.
        """
        snapshot = first(self.snapshot_stream(pv_uri_list, timeout))
        data = dict(snapshot.data)
        return {**data, "error": snapshot.error, "snapshot": data}

    def snapshot_recurring(
        self,
        properties: SnapshotProperties,
        handler: Handler,
        timeout: float | None = None,
        *,
        check_fields: bool = True,
    ) -> dict[str, Any]:
        """Starts a recurring snapshot and calls a handler with each iteration; returns the gateway's reply.

        Args:
            properties: What to acquire, and when.
            handler: Called with the snapshot's name and ``{"timestamp", "iteration", "header_timestamp",
                "tail_timestamp", name: samples, ...}``, times in Unix milliseconds.
            timeout: Seconds for the gateway's reply.
            check_fields: Whether to check first, with a get, that every PV has the fields of a field filter; the
                deployed gateway crashes if one is missing.

        Raises:
            ValueError: A property is invalid; the text names it. Or the handler cannot be called with two arguments.
            OperationTimeout: No reply arrived in time.
            OperationError: The gateway rejected the command.
        """
        seconds = self._seconds(timeout)
        name = instance(properties, "properties", SnapshotProperties, "SnapshotProperties").snapshot_name
        stream = self.snapshot_recurring_stream(properties, check_fields=check_fields)
        listener = Listener[Snapshot](
            f"snapshot {shown(name)}", handler, _iteration_arguments, ("the snapshot's name", "its data")
        )
        return _start(listener, stream, lambda: self.snapshot_activation_stream(name, seconds))

    def snapshot_trigger(
        self, snapshot_name: str, timeout: float | None = None, tags: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Triggers an iteration of a triggered recurring snapshot; returns the gateway's reply.

        Args:
            snapshot_name: The snapshot.
            timeout: Seconds.
            tags: Tags to send with the trigger.

        Raises:
            ValueError: The name is empty.
            OperationTimeout: No reply arrived in time.
            OperationError: The snapshot is not running.
        """
        return dict(first(self.snapshot_trigger_stream(snapshot_name, timeout, tags=tags)).body)

    def snapshost_trigger(
        self, snapshot_name: str, timeout: float | None = None, tags: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """`snapshot_trigger` under its originally documented name."""
        return self.snapshot_trigger(snapshot_name, timeout, tags)

    def snapshot_stop(self, snapshot_name: str, timeout: float | None = None) -> dict[str, Any]:
        """Stops a recurring snapshot; returns the gateway's reply.

        A last, partial iteration may follow, unless the snapshot is triggered.

        Args:
            snapshot_name: The snapshot.
            timeout: Seconds.

        Raises:
            ValueError: The name is empty.
            OperationTimeout: No reply arrived in time.
            OperationError: The gateway rejected the command.
        """
        return dict(first(self.snapshot_stop_stream(snapshot_name, timeout)).body)


def _update_arguments(update: PVUpdate) -> tuple[str, Structure]:
    return update.name, update.data


def _iteration_arguments(snapshot: Snapshot) -> tuple[str, dict[str, Any]]:
    if snapshot.error:
        _log.warning(
            "snapshot iteration failed: name=%s iteration=%d error=%d message=%s",
            snapshot.name,
            snapshot.iteration,
            snapshot.error,
            snapshot.error_message,
        )
    if not snapshot.complete:
        _log.warning(
            "snapshot iteration incomplete: name=%s iteration=%d missing=%d messages",
            snapshot.name,
            snapshot.iteration,
            snapshot.missing,
        )
    return snapshot.name, snapshot.as_dict()


def _start(
    listener: Listener[_T], stream: Observable[_T], activation: Callable[[], Observable[Reply]]
) -> dict[str, Any]:
    """Subscribes a listener and returns the gateway's reply; unsubscribes it if that fails."""
    try:
        listener.subscribe(stream)
        reply = first(_activation(listener, activation))
        listener.mark_started()
    except BaseException:  # Ctrl-C too
        listener.dispose()
        raise
    return dict(reply.body)


def _activation(listener: Listener[Any], activation: Callable[[], Observable[Reply]]) -> Observable[Reply]:
    """Returns the stream of the gateway's reply; raises the error of the listener's stream if it has failed."""
    failure = listener.failure()
    if failure is not None:
        raise failure
    try:
        return activation()
    except ValueError:  # the stream is not active any more, because it failed meanwhile
        failure = listener.failure(_FAILURE_DELIVERY)
        if failure is None:
            raise
        raise failure from None
