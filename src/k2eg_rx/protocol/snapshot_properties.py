"""What a recurring snapshot is to be, as a user says it, checked before it goes to a gateway.

In: attributes set by a script. Out: the command. Pure; one script's object belongs to that script's thread.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from k2eg_rx.protocol.commands import RepeatingSnapshotCommand, SnapshotType
from k2eg_rx.pv import MAX_TOPIC_LENGTH, PVAddress

# Not ASCII is refused because gateways replace it byte by byte in the topic's name, and this library by character.
_NAME = re.compile(r"[\x20-\x7e]+")
# A pvData field name. A gateway that is told another one (a dotted one above all) ends with the first event.
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TYPES = {kind.value: kind for kind in SnapshotType}


@dataclass
class SnapshotProperties:
    """A recurring snapshot's properties. Times are in milliseconds.

    Attributes:
        snapshot_name: Its name; its topic's name follows from it.
        pv_uri_list: The PVs to acquire.
        time_window: How long an iteration collects; the time between two iterations.
        repeat_delay: How long to wait between two iterations.
        sub_push_delay_msec: How often a `TIMED_BUFFERED` snapshot sends what it has so far; 0 leaves it to the gateway.
        triggered: Whether an iteration is made by a trigger only.
        respect_push_order: Whether the samples are to come in the order of their arrival.
        type: `SnapshotType.NORMAL`, the last value of each PV, or `SnapshotType.TIMED_BUFFERED`, every value in the
            window; or their names, in any case.
        pv_field_filter_list: The fields to keep of each PV (``value``, ``alarm``, ...); None keeps all.
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
        """The PVs to acquire, as addresses.

        Raises:
            ValueError: One is no PV's URI.
        """
        return [PVAddress.parse(uri) for uri in self.pv_uri_list]

    @property
    def snapshot_type(self) -> SnapshotType:
        """The type, whichever way it was given.

        Raises:
            ValueError: There is no such type.
        """
        found = _TYPES.get(str(self.type).lower().replace("_", ""))
        if found is None:
            raise ValueError(f"there is {' and '.join(_TYPES)}")
        return found

    def validate(self) -> None:
        """Checks every field.

        Raises:
            ValueError: A field is wrong; the text names it and its value.
        """
        for name, check in _CHECKS.items():
            try:
                check(self)
            except ValueError as error:
                raise ValueError(f"SnapshotProperties.{name} is {getattr(self, name)!r}: {error}") from None

    def command(self) -> RepeatingSnapshotCommand:
        """Returns the command that starts the snapshot.

        Raises:
            ValueError: A field is wrong.
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
    """Returns a snapshot's name if it can be one.

    Raises:
        ValueError: It cannot; the text says why.
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError("a snapshot needs a name")
    if not _NAME.fullmatch(name):
        raise ValueError("only printable ASCII characters, for a topic is named after it")
    if len(name) > MAX_TOPIC_LENGTH:
        raise ValueError(f"at most {MAX_TOPIC_LENGTH} characters, for a topic is named after it")
    return name


def _check_pvs(properties: SnapshotProperties) -> None:
    uris: Any = properties.pv_uri_list  # users set anything
    if not isinstance(uris, list | tuple) or not uris:
        raise ValueError("a list of PV URIs is needed, with one at least")
    _ = properties.addresses


def _check_window(properties: SnapshotProperties) -> None:
    _check_duration(properties.time_window)
    if properties.time_window == 0 and not properties.triggered:
        raise ValueError("a window of 0 is for triggered snapshots; others would make an iteration every millisecond")


def _check_duration(value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("a whole number of milliseconds, 0 or more, is needed")


def _check_flag(value: object) -> None:
    if not isinstance(value, bool):
        raise ValueError("True or False is needed")


def _check_filter(properties: SnapshotProperties) -> None:
    names: Any = properties.pv_field_filter_list
    if names is None:
        return
    if not isinstance(names, list | tuple):
        raise ValueError("a list of field names is needed")
    for name in properties.pv_field_filter_list or ():
        if not isinstance(name, str) or not _FIELD.fullmatch(name):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"{name!r} is no field at the top of a PV's structure, such as 'value' or 'alarm'")


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
