"""The documented K2EG client API, as subscriptions to the streams of `k2eg_rx`.

`k2eg.dml` is the class. The module of the same name is imported here first, so that its later import by anybody
(``from k2eg.dml import dml``) finds it loaded and leaves this name alone.
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
