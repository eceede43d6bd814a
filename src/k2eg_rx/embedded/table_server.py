"""An NTTable served over PVAccess out of this process, writable by any client.

In: columns and rows; puts of clients. Out: the process variable, and the variables a client needs to find it.
Puts are answered on PVAccess worker threads; the other methods may be called on any thread, one at a time.
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


class _Rows:
    """Takes the puts: the columns given replace those there, if the table is one afterwards."""

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
                operation.done(error=f"the columns of a table have one length, not {lengths}")
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
        pv_name: The table's name.
        ports: The ports it serves on.
    """

    def __init__(
        self,
        pv_name: str,
        columns: Mapping[str, str],
        rows: Sequence[Mapping[str, Any]] = (),
        ports: ServerPorts | None = None,
    ) -> None:
        """
        Args:
            pv_name: The table's name.
            columns: The type of each column's elements by its label, in p4p's letters: ``s`` string, ``d`` double,
                ``i`` int, ``l`` long, ``?`` boolean, ...
            rows: What the table holds at first: in each row a value for each label.
            ports: The ports to serve on; by default free ones are chosen.
        """
        self.pv_name = pv_name
        self.ports = ports or ServerPorts.free()
        self._table = _nt.NTTable(list(columns.items()))
        # By column: NTTable.wrap leaves out the columns, and the time, of a table without rows.
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
        """The EPICS variables with which a client finds this server, and only it."""
        return self.ports.pva_client_environment

    @property
    def columns(self) -> dict[str, list[Any]]:
        """The columns as they are now."""
        value = self._pv.current()["value"]
        return {label: np.asarray(value[label]).tolist() for label in value}

    def start(self) -> Self:
        """Serves the table and returns the server."""
        if self._server is None:
            self._pv = _raw.SharedPV(handler=_Rows(), initial=self._initial)
            environment = self.ports.pva_server_environment
            self._server = _server.Server(providers=[{self.pv_name: self._pv}], conf=environment, useenv=False)
        return self

    def stop(self) -> None:
        """Stops serving. Idempotent."""
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
