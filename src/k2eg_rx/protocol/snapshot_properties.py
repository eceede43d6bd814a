"""Properties of a recurring snapshot, checked before the command is sent.

Thread safety: not thread-safe; an object belongs to one thread.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from k2eg_rx.arguments import check_one_protocol
from k2eg_rx.protocol.commands import RepeatingSnapshotCommand, SnapshotType
from k2eg_rx.pv import MAX_TOPIC_LENGTH, PVAddress
from k2eg_rx.texts import shown

# ASCII only: in the topic's name gateways replace other characters byte by byte, this library character by character.
_NAME = re.compile(r"[\x20-\x7e]+")
# A pvData field name. The deployed gateway crashes at the first event if a filter has another name, as a dotted one.
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST = 2**31 - 1  # milliseconds, 24 days: the deployed gateway has 32 bits for them
_TYPES = {kind.value: kind for kind in SnapshotType}


@dataclass
class SnapshotProperties:
    """Properties of a recurring snapshot. Times are in milliseconds, unlike elsewhere in this library.

    Attributes:
        snapshot_name: The snapshot's name: printable ASCII, from which its topic's name is derived.
        pv_uri_list: The URIs of the PVs, at least one.
        time_window: Milliseconds that an iteration collects values; 0 or more, above 0 unless triggered.
        repeat_delay: Milliseconds between the end of an iteration and the start of the next; 0 or more.
        sub_push_delay_msec: Milliseconds between partial publications of a `TIMED_BUFFERED` iteration; 0 leaves the
            interval to the gateway.
        triggered: Whether iterations are published on triggers only.
        respect_push_order: Whether samples are published in the order of their arrival.
        type: `SnapshotType.NORMAL` for the last value of each PV, `SnapshotType.TIMED_BUFFERED` for every value in
            the window; or the name, in any case.
        pv_field_filter_list: Top-level fields to keep of each PV (``value``, ``alarm``, ...); None keeps all.
    """

    snapshot_name: str = ""
    pv_uri_list: list[str] = field(default_factory=list[str])
    time_window: int = 1000
    repeat_delay: int = 0
    sub_push_delay_msec: int = 0
    triggered: bool = False
    respect_push_order: bool = True
    type: SnapshotType | str = SnapshotType.NORMAL
    pv_field_filter_list: list[str] | None = None

    @property
    def addresses(self) -> list[PVAddress]:
        """The addresses of the PVs.

        Raises:
            ValueError: An item of `pv_uri_list` is not a PV's URI.
        """
        return [PVAddress.parse(uri) for uri in self.pv_uri_list]

    @property
    def snapshot_type(self) -> SnapshotType:
        """The type as a `SnapshotType`.

        Raises:
            ValueError: The type is neither a `SnapshotType` nor the name of one.
        """
        kind = cast("object", self.type)  # scripts may set anything
        found = _TYPES.get(kind.lower().replace("_", "")) if isinstance(kind, str) else None
        if found is None:
            raise ValueError(f"must be {' or '.join(map(repr, _TYPES))}")
        return found

    def validate(self) -> None:
        """Checks every field.

        Raises:
            ValueError: A field is invalid; the text has its name, its value and the reason.
        """
        for name, check in _CHECKS.items():
            try:
                check(self)
            except ValueError as error:
                raise ValueError(f"SnapshotProperties.{name}: {error}, got {shown(getattr(self, name))}") from None

    def command(self) -> RepeatingSnapshotCommand:
        """Returns the command that starts the snapshot.

        Raises:
            ValueError: A field is invalid.
        """
        self.validate()
        return RepeatingSnapshotCommand(
            snapshot_name=self.snapshot_name,
            pv_name_list=tuple(address.uri for address in self.addresses),
            repeat_delay_msec=self.repeat_delay,
            time_window_msec=self.time_window,
            sub_push_delay_msec=self.sub_push_delay_msec,
            respect_push_order=self.respect_push_order,
            triggered=self.triggered,
            type=self.snapshot_type,
            pv_field_filter_list=tuple(self.pv_field_filter_list or ()),
        )


def check_snapshot_name(name: object) -> str:
    """Returns a snapshot's name.

    Raises:
        ValueError: It is not a name; the text is the condition, beginning with "must".
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError("must be a name that is not empty")
    if not _NAME.fullmatch(name):
        raise ValueError("must consist of printable ASCII characters, because a topic is named after it")
    if len(name) > MAX_TOPIC_LENGTH:
        raise ValueError(f"must have at most {MAX_TOPIC_LENGTH} characters, because a topic is named after it")
    return name


def _check_pvs(properties: SnapshotProperties) -> None:
    uris: Any = properties.pv_uri_list  # scripts may set anything
    if not isinstance(uris, list | tuple) or not uris:
        raise ValueError("must be a list of at least one PV URI")
    check_one_protocol(properties.addresses, "the data of a snapshot")


def _check_window(properties: SnapshotProperties) -> None:
    _check_duration(properties.time_window)
    if properties.time_window == 0 and not properties.triggered:
        raise ValueError("must be above 0 unless triggered: a window of 0 makes an iteration every millisecond")


def _check_duration(value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LONGEST:
        raise ValueError(f"must be a whole number of milliseconds, 0 or more, at most {_LONGEST}")


def _check_flag(value: object) -> None:
    if not isinstance(value, bool):
        raise ValueError("must be True or False")


def _check_filter(properties: SnapshotProperties) -> None:
    names: Any = properties.pv_field_filter_list
    if names is None:
        return
    if not isinstance(names, list | tuple):
        raise ValueError("must be a list of field names")
    for name in properties.pv_field_filter_list or ():
        if not isinstance(name, str) or not _FIELD.fullmatch(name):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"must have top-level fields of a PV, such as 'value' or 'alarm', not {shown(name)}")


_CHECKS: dict[str, Callable[[SnapshotProperties], object]] = {
    "snapshot_name": lambda properties: check_snapshot_name(properties.snapshot_name),
    "pv_uri_list": _check_pvs,
    "time_window": _check_window,
    "repeat_delay": lambda properties: _check_duration(properties.repeat_delay),
    "sub_push_delay_msec": lambda properties: _check_duration(properties.sub_push_delay_msec),
    "triggered": lambda properties: _check_flag(properties.triggered),
    "respect_push_order": lambda properties: _check_flag(properties.respect_push_order),
    "type": lambda properties: properties.snapshot_type,
    "pv_field_filter_list": _check_filter,
}
