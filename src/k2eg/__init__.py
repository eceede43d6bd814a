"""The documented K2EG client API with callbacks, built on the streams of `k2eg_rx`.

`k2eg.dml` is the class, not the module: the module is imported here first, so that a later ``from k2eg.dml import dml``
finds it loaded and does not rebind the name.
"""

from k2eg.dml import dml
from k2eg_rx import ClientClosedError, K2EGError, OperationError, OperationTimeout, TransportError

__all__ = [
    "ClientClosedError",
    "K2EGError",
    "OperationError",
    "OperationTimeout",
    "TransportError",
    "dml",
]
