"""EPICS process variables as reactive streams over Apache Kafka.

`Client` connects to a K2EG gateway; its methods return reactivex Observables.

Names are imported when they are used first, so that a program that needs few of them, such as the command line when it
prints its help, does not pay for all of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from k2eg_rx.lazy_names import lazy_names as _lazy_names

if TYPE_CHECKING:
    from k2eg_rx.client import Client, GetResult, PutResult, Status, StreamClient, first
    from k2eg_rx.delivery import Overflow
    from k2eg_rx.errors import (
        ClientClosedError,
        EmptyStreamError,
        ForkError,
        K2EGError,
        OperationError,
        OperationTimeout,
        PutWithheldError,
        TransportError,
        WireError,
    )
    from k2eg_rx.protocol import (
        Alarm,
        Column,
        ColumnBatch,
        ConnectionEvent,
        GatewayReport,
        Limits,
        MessagePackSerializable,
        MonitorReport,
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

    __version__: str

__all__ = [
    "Alarm",
    "Client",
    "ClientClosedError",
    "Column",
    "ColumnBatch",
    "ConnectionEvent",
    "ConnectionState",
    "EmptyStreamError",
    "ForkError",
    "GatewayReport",
    "GetResult",
    "K2EGError",
    "Limits",
    "MessagePackSerializable",
    "MonitorReport",
    "NTTable",
    "OperationError",
    "OperationTimeout",
    "Overflow",
    "PVAddress",
    "PVData",
    "PVState",
    "PVUpdate",
    "PutResult",
    "PutWithheldError",
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
    "StreamClient",
    "Structure",
    "TransportError",
    "Vector",
    "WireError",
    "environments",
    "first",
    "load_settings",
    "pv_name_of",
]

# The module of each public name, as in the imports for type checkers above.
_LATER = {
    "client": ("Client", "GetResult", "PutResult", "Status", "StreamClient", "first"),
    "delivery": ("Overflow",),
    "errors": (
        "ClientClosedError",
        "EmptyStreamError",
        "ForkError",
        "K2EGError",
        "OperationError",
        "OperationTimeout",
        "PutWithheldError",
        "TransportError",
        "WireError",
    ),
    "protocol": (
        "Alarm",
        "Column",
        "ColumnBatch",
        "ConnectionEvent",
        "GatewayReport",
        "Limits",
        "MessagePackSerializable",
        "MonitorReport",
        "NTTable",
        "PVData",
        "PVState",
        "PVUpdate",
        "Reply",
        "Samples",
        "Scalar",
        "Severity",
        "Snapshot",
        "SnapshotData",
        "SnapshotHeader",
        "SnapshotMessage",
        "SnapshotProperties",
        "SnapshotTail",
        "SnapshotType",
        "Structure",
        "Vector",
    ),
    "pv": ("PVAddress", "pv_name_of"),
    "settings": ("Settings", "environments", "load_settings"),
    "transport": ("ConnectionState",),
}
# Modules that are attributes of this package without an import of their own: `k2eg_rx.errors.K2EGError`.
_PACKAGES = frozenset({*_LATER, "arguments", "concurrency", "history", "kafka", "texts"})

if not TYPE_CHECKING:
    _public = _lazy_names(__name__, _LATER)

    def __getattr__(name: str) -> object:
        if name in _PACKAGES:
            return import_module(f"{__name__}.{name}")
        if name == "__version__":
            return import_module("importlib.metadata").version("k2eg")
        return _public(name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_PACKAGES})
