"""What it takes to test a script that uses this library: a transport in memory."""

from k2eg_rx.testing.memory import MemoryBroker, MemoryTransport

__all__ = ["MemoryBroker", "MemoryTransport"]
