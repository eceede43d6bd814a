"""The seam to a broker: sources, sinks and histories of records."""

from k2eg_rx.protocol import Headers, Record
from k2eg_rx.transport.connection_log import ConnectionLog
from k2eg_rx.transport.decode_errors import DecodeErrorCounter, SizeFilter, oversized
from k2eg_rx.transport.interfaces import (
    ConflationFilter,
    ConnectionState,
    Excerpt,
    FloodHints,
    History,
    InlineWork,
    MissingTopicError,
    Offsets,
    Partition,
    Presence,
    Receiver,
    RecordSink,
    RecordSource,
    RecordTooLargeError,
    SourceClosedError,
    Span,
    TransientError,
    Transport,
    TransportStatus,
    UnconfirmedError,
)
from k2eg_rx.transport.session import ClientTransports, time_left

__all__ = [
    "ClientTransports",
    "ConflationFilter",
    "ConnectionLog",
    "ConnectionState",
    "DecodeErrorCounter",
    "Excerpt",
    "FloodHints",
    "Headers",
    "History",
    "InlineWork",
    "MissingTopicError",
    "Offsets",
    "Partition",
    "Presence",
    "Receiver",
    "Record",
    "RecordSink",
    "RecordSource",
    "RecordTooLargeError",
    "SizeFilter",
    "SourceClosedError",
    "Span",
    "TransientError",
    "Transport",
    "TransportStatus",
    "UnconfirmedError",
    "oversized",
    "time_left",
]
