"""What tests of programs on this library need: a transport in memory, and updates made of plain values."""

from k2eg_rx.testing.memory import MemoryBroker, MemoryTransport
from k2eg_rx.testing.structures import START, structure
from k2eg_rx.testing.updates import series, snapshot, update

__all__ = ["START", "MemoryBroker", "MemoryTransport", "series", "snapshot", "structure", "update"]
