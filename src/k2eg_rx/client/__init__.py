"""The reactive client."""

from k2eg_rx.client.batches import GetResult, PutResult
from k2eg_rx.client.blocking import first
from k2eg_rx.client.client import DEFAULT_SILENCE, DEFAULT_TIMEOUT, Client, check_arguments, check_snapshot_wait
from k2eg_rx.client.status import Status

__all__ = [
    "DEFAULT_SILENCE",
    "DEFAULT_TIMEOUT",
    "Client",
    "GetResult",
    "PutResult",
    "Status",
    "check_arguments",
    "check_snapshot_wait",
    "first",
]
