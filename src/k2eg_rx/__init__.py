"""EPICS process variables as reactive streams over Apache Kafka.

`Client` connects to a K2EG gateway; its methods return reactivex Observables.
"""

from k2eg_rx.client import Client, GetResult, PutResult, Status, first
from k2eg_rx.delivery import Overflow
from k2eg_rx.errors import (
    ClientClosedError,
    ForkError,
    K2EGError,
    OperationError,
    OperationTimeout,
    TransportError,
    WireError,
)
from k2eg_rx.protocol import (
    Generic,
    MessagePackSerializable,
    NTTable,
    PVData,
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
    "Client",
    "ClientClosedError",
    "ConnectionState",
    "ForkError",
    "Generic",
    "GetResult",
    "K2EGError",
    "MessagePackSerializable",
    "NTTable",
    "OperationError",
    "OperationTimeout",
    "Overflow",
    "PVAddress",
    "PVData",
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
