"""The reactive client."""

from k2eg_rx.client.batch import GetResult, PutResult, results_by_uri
from k2eg_rx.client.blocking import first
from k2eg_rx.client.blocking_client import Client
from k2eg_rx.client.client import DEFAULT_SILENCE, DEFAULT_TIMEOUT, StreamClient, check_arguments, check_snapshot_wait
from k2eg_rx.client.gateways import DEFAULT_WAIT
from k2eg_rx.client.status import Status

__all__ = [
    "DEFAULT_SILENCE",
    "DEFAULT_TIMEOUT",
    "DEFAULT_WAIT",
    "Client",
    "GetResult",
    "PutResult",
    "Status",
    "StreamClient",
    "check_arguments",
    "check_snapshot_wait",
    "first",
    "results_by_uri",
]
