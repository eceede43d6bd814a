"""Values for a put that are sent as given, under the documented name."""

from k2eg_rx import Generic, MessagePackSerializable, NTTable, Scalar, Vector

__all__ = ["Generic", "MessagePackSerializable", "NTTable", "Scalar", "Vector"]
