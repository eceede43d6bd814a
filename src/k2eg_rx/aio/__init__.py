"""Streams for asyncio: await a value, iterate over updates, or use a client with awaitable operations."""

from k2eg_rx.aio.awaiting import first
from k2eg_rx.aio.client import Client
from k2eg_rx.aio.iteration import Iteration, iterate

__all__ = ["Client", "Iteration", "first", "iterate"]
