"""The streams for asyncio: values to await, updates to iterate over, and a client of awaitable operations.

In: streams, whose items come on threads of the library. Out: the same items in the coroutines of one event loop.
"""

from k2eg_rx.aio.awaiting import first
from k2eg_rx.aio.client import Client
from k2eg_rx.aio.iteration import Iteration, iterate

__all__ = ["Client", "Iteration", "first", "iterate"]
