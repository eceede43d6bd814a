"""Serves a writable NTTable over PVAccess from this process.

Thread safety: puts run on PVAccess worker threads; other methods on any thread, one at a time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from p4p import nt as p4p_nt
from p4p import server as p4p_server
from p4p.server import raw as p4p_raw

from k2eg_rx.embedded.loopback import ServerPorts

_nt: Any = p4p_nt
_server: Any = p4p_server
_raw: Any = p4p_raw


class _PutHandler:
    """Executes puts: given columns replace the current ones if all columns then have one length."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # between reading the other columns and posting

    def put(self, pv: Any, operation: Any) -> None:
        with self._lock:
            given = operation.value()
            current = pv.current()
            lengths = {
                label: len((given if given.changed(f"value.{label}") else current)["value"][label])
                for label in current["value"]
            }
            if len(set(lengths.values())) > 1:
                operation.done(error=f"the columns of a table must have one length, got {lengths}")
                return
            given["timeStamp"] = _stamp()
            pv.post(given)
        operation.done()


def _stamp() -> dict[str, int]:
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return {"secondsPastEpoch": seconds, "nanoseconds": nanoseconds}


class TableServer:
    """A PVAccess server with one NTTable; runs from `start` to `stop`, or as a context manager.

    Attributes:
        pv_name: The table's PV name.
        ports: The server's ports.
    """

    def __init__(
        self,
        pv_name: str,
        columns: Mapping[str, str],
        rows: Sequence[Mapping[str, Any]] = (),
        ports: ServerPorts | None = None,
        others: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            pv_name: The table's PV name.
            columns: The element type of each column by its label, in p4p's type codes: ``s`` string, ``d`` double,
                ``i`` int, ``l`` long, ``?`` boolean, ...
            rows: The initial rows, each with a value per label.
            ports: The server's ports; by default free ones.
            others: Further PVs to serve, p4p's ``SharedPV`` by name.
        """
        self.pv_name = pv_name
        self._others = dict(others or {})
        self.ports = ports or ServerPorts.free()
        self._table = _nt.NTTable(list(columns.items()))
        # By column: NTTable.wrap omits columns and time of a table without rows.
        self._initial = self._table.Value(
            self._table.type,
            {
                "labels": list(columns),
                "value": {label: [row[label] for row in rows] for label in columns},
                "timeStamp": _stamp(),
            },
        )
        self._server: Any = None

    @property
    def client_environment(self) -> dict[str, str]:
        """The EPICS variables for a client of this server only."""
        return self.ports.pva_client_environment

    @property
    def columns(self) -> dict[str, list[Any]]:
        """The current columns."""
        value = self._pv.current()["value"]
        return {label: np.asarray(value[label]).tolist() for label in value}

    def start(self) -> Self:
        """Starts the server and returns it."""
        if self._server is None:
            self._pv = _raw.SharedPV(handler=_PutHandler(), initial=self._initial)
            environment = self.ports.pva_server_environment
            self._server = _server.Server(
                providers=[{self.pv_name: self._pv, **self._others}], conf=environment, useenv=False
            )
        return self

    def stop(self) -> None:
        """Stops the server. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()
            self._pv.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
