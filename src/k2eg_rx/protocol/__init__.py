"""The K2EG protocol as data: commands, replies, events and structures, to and from bytes.

What gateways and puts need, and no other command of the command line, is imported when it is used first.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from k2eg_rx.protocol.arrays import numpy_module, value_with_arrays, with_arrays
from k2eg_rx.protocol.assembly import DEFAULT_WAIT, IterationAssembler
from k2eg_rx.protocol.columns import NO_TIME, Column, ColumnBatch
from k2eg_rx.protocol.commands import (
    Command,
    GatewayStatusCommand,
    GetCommand,
    MonitorCommand,
    MultiMonitorCommand,
    PutCommand,
    RepeatingSnapshotCommand,
    RepeatingSnapshotStopCommand,
    RepeatingSnapshotTriggerCommand,
    SnapshotCommand,
    SnapshotType,
    command_key,
    encode_command,
    is_answered_at_once,
    pack_fields,
)
from k2eg_rx.protocol.connections import (
    ConnectionEvent,
    PVState,
    connection_body,
    connection_event,
    connection_headers,
    connection_key,
)
from k2eg_rx.protocol.decode import OTHER_PROTOCOL, PROTOCOL_HEADER, decode_body, has_usual_headers, protocol_of
from k2eg_rx.protocol.encode import (
    MONITOR_KEY,
    PARSE_ERROR_KEY,
    RECURRING_KEY,
    SNAPSHOT_KEY,
    START_KEY,
    STATUS_KEY,
    Serialization,
    encode_data,
    encode_event,
    encode_header,
    encode_reply,
    encode_start,
    encode_structure,
    encode_tail,
    encode_value,
    with_fields,
)
from k2eg_rx.protocol.epochs import EpochFilter, epoch_text
from k2eg_rx.protocol.fields import (
    Alarm,
    Limits,
    alarm_of,
    choice_of,
    columns_of,
    format_number,
    label_of,
    limits_of,
    precision_of,
    units_of,
)
from k2eg_rx.protocol.messages import (
    PVData,
    PVUpdate,
    ReplayedUpdate,
    Reply,
    SnapshotData,
    SnapshotHeader,
    SnapshotMessage,
    SnapshotTail,
    repeats,
    usual_updates,
)
from k2eg_rx.protocol.msgpack_codec import UNPACK_ERRORS, pack
from k2eg_rx.protocol.notices import NOTICE_HEADERS, Notice, decode_notice, is_notice
from k2eg_rx.protocol.plain_values import plain
from k2eg_rx.protocol.records import Headers, Record
from k2eg_rx.protocol.replies import decode_reply, decode_snapshot_message, silent_pv_seconds, silent_pv_text
from k2eg_rx.protocol.snapshot_properties import SnapshotProperties
from k2eg_rx.protocol.snapshots import OneShotAssembler, Samples, Snapshot
from k2eg_rx.protocol.structures import (
    EPICS_EPOCH,
    FIELD_IGNORED,
    NANOSECONDS,
    Severity,
    Structure,
    datetime_of,
    nanoseconds_of,
    pulse_id_of,
    select_field,
    severity_of,
    structure_of,
    timestamp_of,
)
from k2eg_rx.protocol.type_rules import (
    TypeMismatch,
    array_of,
    check_columns,
    check_names,
    checked_choice,
    checked_elements,
    checked_scalar,
    map_of,
    shown,
)
from k2eg_rx.protocol.values import Generic, MessagePackSerializable, NTTable, Scalar, Vector

if TYPE_CHECKING:
    from k2eg_rx.protocol.gateway_reports import GatewayReport, MonitorReport, gateway_report, report_fields
    from k2eg_rx.protocol.html_form import PV_COLUMNS, pv_row
    from k2eg_rx.protocol.parse import (
        Parsed,
        ParsedCommand,
        PutError,
        Refusal,
        ReplyTo,
        Unanswerable,
        parse_command,
        parse_fields,
    )
    from k2eg_rx.protocol.put_conversion import fields_for

__all__ = [
    "DEFAULT_WAIT",
    "EPICS_EPOCH",
    "FIELD_IGNORED",
    "MONITOR_KEY",
    "NANOSECONDS",
    "NOTICE_HEADERS",
    "NO_TIME",
    "OTHER_PROTOCOL",
    "PARSE_ERROR_KEY",
    "PROTOCOL_HEADER",
    "PV_COLUMNS",
    "RECURRING_KEY",
    "SNAPSHOT_KEY",
    "START_KEY",
    "STATUS_KEY",
    "UNPACK_ERRORS",
    "Alarm",
    "Column",
    "ColumnBatch",
    "Command",
    "ConnectionEvent",
    "EpochFilter",
    "GatewayReport",
    "GatewayStatusCommand",
    "Generic",
    "GetCommand",
    "Headers",
    "IterationAssembler",
    "Limits",
    "MessagePackSerializable",
    "MonitorCommand",
    "MonitorReport",
    "MultiMonitorCommand",
    "NTTable",
    "Notice",
    "OneShotAssembler",
    "PVData",
    "PVState",
    "PVUpdate",
    "Parsed",
    "ParsedCommand",
    "PutCommand",
    "PutError",
    "Record",
    "Refusal",
    "RepeatingSnapshotCommand",
    "RepeatingSnapshotStopCommand",
    "RepeatingSnapshotTriggerCommand",
    "ReplayedUpdate",
    "Reply",
    "ReplyTo",
    "Samples",
    "Scalar",
    "Serialization",
    "Severity",
    "Snapshot",
    "SnapshotCommand",
    "SnapshotData",
    "SnapshotHeader",
    "SnapshotMessage",
    "SnapshotProperties",
    "SnapshotTail",
    "SnapshotType",
    "Structure",
    "TypeMismatch",
    "Unanswerable",
    "Vector",
    "alarm_of",
    "array_of",
    "check_columns",
    "check_names",
    "checked_choice",
    "checked_elements",
    "checked_scalar",
    "choice_of",
    "columns_of",
    "command_key",
    "connection_body",
    "connection_event",
    "connection_headers",
    "connection_key",
    "datetime_of",
    "decode_body",
    "decode_notice",
    "decode_reply",
    "decode_snapshot_message",
    "encode_command",
    "encode_data",
    "encode_event",
    "encode_header",
    "encode_reply",
    "encode_start",
    "encode_structure",
    "encode_tail",
    "encode_value",
    "epoch_text",
    "fields_for",
    "format_number",
    "gateway_report",
    "has_usual_headers",
    "is_answered_at_once",
    "is_notice",
    "label_of",
    "limits_of",
    "map_of",
    "nanoseconds_of",
    "numpy_module",
    "pack",
    "pack_fields",
    "parse_command",
    "parse_fields",
    "plain",
    "precision_of",
    "protocol_of",
    "pulse_id_of",
    "pv_row",
    "repeats",
    "report_fields",
    "select_field",
    "severity_of",
    "shown",
    "silent_pv_seconds",
    "silent_pv_text",
    "structure_of",
    "timestamp_of",
    "units_of",
    "usual_updates",
    "value_with_arrays",
    "with_arrays",
    "with_fields",
]

_LATER = {
    "gateway_reports": (
        "GatewayReport",
        "MonitorReport",
        "gateway_report",
        "report_fields",
    ),
    "html_form": ("PV_COLUMNS", "pv_row"),
    "parse": (
        "Parsed",
        "ParsedCommand",
        "PutError",
        "Refusal",
        "ReplyTo",
        "Unanswerable",
        "parse_command",
        "parse_fields",
    ),
    "put_conversion": ("fields_for",),
}
_MODULE_OF = {name: module for module, names in _LATER.items() for name in names}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value
