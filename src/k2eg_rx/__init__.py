"""EPICS process variables as reactive streams over Apache Kafka.

`Client` connects to a K2EG gateway; its methods return reactivex Observables.
"""

from k2eg_rx.client import Client
from k2eg_rx.errors import (
    ClientClosedError,
    ForkError,
    K2EGError,
    OperationError,
    OperationTimeout,
    TransportError,
    WireError,
)
from k2eg_rx.overflow import Overflow
from k2eg_rx.properties import SnapshotProperties
from k2eg_rx.pv import PvAddress, pv_name_of
from k2eg_rx.results import GetResult, PutResult
from k2eg_rx.settings import Settings, environments, load_settings
from k2eg_rx.snapshots import Samples, Snapshot
from k2eg_rx.status import Status
from k2eg_rx.transport import Connection
from k2eg_rx.waiting import first
from k2eg_rx.wire.commands import SnapshotType
from k2eg_rx.wire.messages import (
    PVData,
    PVUpdate,
    Reply,
    SnapshotData,
    SnapshotHeader,
    SnapshotMessage,
    SnapshotTail,
)
from k2eg_rx.wire.structure import Severity, Structure
from k2eg_rx.wire.values import Generic, MessagePackSerializable, NTTable, Scalar, Vector

__all__ = [
    "Client",
    "ClientClosedError",
    "Connection",
    "ForkError",
    "Generic",
    "GetResult",
    "K2EGError",
    "MessagePackSerializable",
    "NTTable",
    "OperationError",
    "OperationTimeout",
    "Overflow",
    "PVData",
    "PVUpdate",
    "PutResult",
    "PvAddress",
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
