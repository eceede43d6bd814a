"""Properties of recurring snapshots, under the documented module name."""

from k2eg_rx import SnapshotProperties, SnapshotType

__all__ = ["SnapshotProperties", "SnapshotType"]
