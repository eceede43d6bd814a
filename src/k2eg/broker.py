"""What a recurring snapshot is described by, under the documented name."""

from k2eg_rx import SnapshotProperties, SnapshotType

__all__ = ["SnapshotProperties", "SnapshotType"]
