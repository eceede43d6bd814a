"""Values that a put sends unchanged, under the documented module name."""

from k2eg_rx.protocol import Generic, MessagePackSerializable, NTTable, Scalar, Vector

__all__ = ["Generic", "MessagePackSerializable", "NTTable", "Scalar", "Vector"]
