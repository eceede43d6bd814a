"""The client with calls that block, beside its streams.

Thread safety: any thread, also that of a subscriber; see `k2eg_rx.client.blocking`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from reactivex import operators as ops

from k2eg_rx.arguments import items_of
from k2eg_rx.client.batch import GetResult, PutResult, results_by_uri
from k2eg_rx.client.blocking import first
from k2eg_rx.client.client import StreamClient
from k2eg_rx.protocol import PVData, Reply, Snapshot


class Client(StreamClient):
    """A client of a K2EG gateway.

    Methods whose names end with ``_stream`` return an Observable. They raise ValueError for an invalid argument, and
    send nothing before it is subscribed to. Observables of requests (gets, puts, one-shot snapshots) send one command
    per subscription. Those of monitors and recurring snapshots are hot: all subscribers in this client share one, which
    is open while it has a subscriber.

    The other methods block the calling thread until they have the result. They may be called by subscribers, too.

    Subscribers are called on the threads of a pool, each subscriber with one item at a time and in order; or on the
    scheduler that is passed to `subscribe`.

    Args:
        environment_id: The environment: the name of its ``.ini`` file. See `k2eg_rx.settings`.
        app_name: The application: its instances share a reply topic.
        group_name: Clients with the same group share the events of monitors and snapshots, so that each event goes to
            one of them. Any object, whose text names the group. None: this client gets all events.
        settings: Settings to use instead of the environment's file.
        transport: A transport to use instead of Kafka, such as one in memory for tests.
        timeout: Seconds for operations without a timeout of their own.
        silence: Seconds without an event after which a monitor or a recurring snapshot is activated again, as its
            gateway may have restarted. The gateway then repeats the value of a PV that has not changed.
        snapshot_wait: Seconds that missing messages of a recurring snapshot's iteration are waited for before it is
            handed over without them. None: the snapshot's time window, and a second at least.

    Raises:
        ValueError: The environment does not exist or is invalid, or another argument is.

    Example:
        >>> from k2eg_rx.testing import ScriptedGateway
        >>> with ScriptedGateway() as gateway, gateway.client() as client:
        ...     _ = gateway.pv("my:x", 1.5, units="mm")
        ...     _ = client.put("pva://my:x", 2.5)
        ...     print(client.get("pva://my:x").value)
        2.5
    """

    def get(self, uri: str, timeout: float | None = None) -> PVData:
        """Returns a PV's value.

        Args:
            uri: The PV, ``pva://NAME`` or ``ca://NAME``, or a field of it.
            timeout: Seconds.

        Raises:
            OperationTimeout: No reply arrived in time.
            OperationError: The gateway could not read the PV.
        """
        return first(self.get_stream(uri, timeout))

    def put(
        self, uri: str, value: object, timeout: float | None = None, *, wait: bool = False, check: bool = True
    ) -> Reply:
        """Writes a PV and returns the gateway's reply.

        Args:
            uri: The PV.
            value: As for `put_stream`.
            timeout: Seconds.
            wait: As for `put_stream`.
            check: As for `put_stream`.

        Raises:
            ValueError: The value does not fit the PV.
            OperationTimeout: No reply arrived in time; the put may still be executed.
            OperationError: The gateway could not write the PV.
        """
        return first(self.put_stream(uri, value, timeout, wait=wait, check=check))

    def get_many(self, uris: Iterable[str], timeout: float | None = None) -> dict[str, GetResult]:
        """Reads PVs concurrently; returns a result by URI, with data or an error, in the given order.

        Args:
            uris: The PVs.
            timeout: Seconds for all PVs together.

        Example:
            >>> from k2eg_rx.testing import ScriptedGateway
            >>> with ScriptedGateway() as gateway, gateway.client() as client:
            ...     _ = gateway.pv("my:x", 1.5)
            ...     for uri, got in client.get_many(["pva://my:x", "ca://my:dead"], timeout=2.0).items():
            ...         print(uri, type(got.error).__name__ if got.error else got.result().value)
            pva://my:x 1.5
            ca://my:dead OperationTimeout
        """
        given = items_of(uris, "uris", "a list of PV URIs")
        results = first(self.get_many_stream(given, timeout).pipe(ops.to_list()))
        return results_by_uri(given, results, GetResult)

    def put_many(
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
            wait: As for `put_stream`.
            check: As for `put_stream`.
            all_or_none: As for `put_many_stream`.
        """
        results = first(
            self.put_many_stream(values, timeout, wait=wait, check=check, all_or_none=all_or_none).pipe(ops.to_list())
        )
        return results_by_uri(values, results, PutResult)

    def snapshot(self, uris: Iterable[str], timeout: float | None = None, *, duration: float | None = None) -> Snapshot:
        """Returns the values of several PVs, acquired together by the gateway.

        Args:
            uris: The PVs. A PV without data in time has an empty list in the snapshot.
            timeout: Seconds, `duration` included.
            duration: Seconds that the gateway waits for the PVs; 1 by default.

        Raises:
            OperationTimeout: The snapshot was not complete in time.
            OperationError: The gateway rejected the snapshot.
        """
        return first(self.snapshot_stream(uris, timeout, duration=duration))
