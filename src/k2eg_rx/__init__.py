"""EPICS process variables as reactive streams over Apache Kafka.

`Client` connects to a K2EG gateway; its methods return reactivex Observables.
"""

from typing import TYPE_CHECKING

from k2eg_rx.client import Client, GetResult, PutResult, Status, first
from k2eg_rx.delivery import Overflow
from k2eg_rx.errors import (
    ClientClosedError,
    EmptyStreamError,
    ForkError,
    K2EGError,
    OperationError,
    OperationTimeout,
    TransportError,
    WireError,
)
from k2eg_rx.protocol import (
    Alarm,
    ConnectionEvent,
    Limits,
    MessagePackSerializable,
    NTTable,
    PVData,
    PVState,
    PVUpdate,
    Reply,
    Samples,
    Scalar,
    Severity,
    Snapshot,
    SnapshotData,
    SnapshotHeader,
    SnapshotMessage,
    SnapshotProperties,
    SnapshotTail,
    SnapshotType,
    Structure,
    Vector,
)
from k2eg_rx.pv import PVAddress, pv_name_of
from k2eg_rx.settings import Settings, environments, load_settings
from k2eg_rx.transport import ConnectionState

__all__ = [
    "Alarm",
    "Client",
    "ClientClosedError",
    "ConnectionEvent",
    "ConnectionState",
    "EmptyStreamError",
    "ForkError",
    "GetResult",
    "K2EGError",
    "Limits",
    "MessagePackSerializable",
    "NTTable",
    "OperationError",
    "OperationTimeout",
    "Overflow",
    "PVAddress",
    "PVData",
    "PVState",
    "PVUpdate",
    "PutResult",
    "Reply",
    "Samples",
    "Scalar",
    "Settings",
    "Severity",
    "Snapshot",
    "SnapshotData",
    "SnapshotHeader",
    "SnapshotMessage",
    "SnapshotProperties",
    "SnapshotTail",
    "SnapshotType",
    "Status",
    "Structure",
    "TransportError",
    "Vector",
    "WireError",
    "environments",
    "first",
    "load_settings",
    "pv_name_of",
]

if TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name: str) -> str:
        if name == "__version__":
            from importlib.metadata import version  # noqa: PLC0415 - takes a tenth of this package's import

            return version("k2eg")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
