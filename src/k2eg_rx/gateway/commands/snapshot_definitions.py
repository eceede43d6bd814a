"""The definition of a recurring snapshot in a start command: its checks, and comparison with that of a running one."""

from __future__ import annotations

from collections.abc import Collection

from k2eg_rx.gateway.commands.one_shot_snapshots import MAX_WINDOW_MSEC
from k2eg_rx.protocol import RepeatingSnapshotCommand, SnapshotType
from k2eg_rx.pv import PVAddress, has_control
from k2eg_rx.texts import printable

_SHOWN_PVS = 3  # in the text of a refusal


class InvalidSnapshotError(Exception):
    """A start command is invalid; `error` is the reply's code."""

    def __init__(self, error: int, text: str) -> None:
        super().__init__(text)
        self.error = error


def validated(command: RepeatingSnapshotCommand) -> tuple[PVAddress, ...]:
    """Returns the PVs of a valid start command, in order."""
    name = command.snapshot_name
    if command.type not in tuple(SnapshotType):
        raise InvalidSnapshotError(-1, "The snapshot type Unknown is not supported")
    if not 0 <= command.repeat_delay_msec <= MAX_WINDOW_MSEC:
        raise InvalidSnapshotError(-3, f"The repeat delay is not valid {name}")
    if not 0 <= command.time_window_msec <= MAX_WINDOW_MSEC:
        raise InvalidSnapshotError(-4, f"The time window is not valid {name}")
    if not name:
        raise InvalidSnapshotError(-5, f"The snapshot name is not valid {name}")
    if has_control(name):
        raise InvalidSnapshotError(
            -5, f"The snapshot name is not valid {printable(name, 200)!r}: it must have no control characters"
        )
    addresses: list[PVAddress] = []
    for pv_name in command.pv_name_list:
        try:
            addresses.append(PVAddress.parse(pv_name))
        except ValueError:
            raise InvalidSnapshotError(-6, f"The pv uri {printable(pv_name, 200)} is not parsable") from None
    if not 0 <= command.sub_push_delay_msec <= MAX_WINDOW_MSEC:
        raise InvalidSnapshotError(-7, f"The sub push delay is not valid {name}")
    for field in command.pv_field_filter_list:
        if not field or "." in field:
            text = f"The field filter {field!r} is not valid: it keeps top-level fields {name}"
            raise InvalidSnapshotError(-7, text)
    return tuple(addresses)


def _comparable(command: RepeatingSnapshotCommand) -> dict[str, object]:
    """Returns the properties in which two start commands of one snapshot must agree."""
    return {
        "time_window_msec": command.time_window_msec,
        "repeat_delay_msec": command.repeat_delay_msec,
        "sub_push_delay_msec": command.sub_push_delay_msec,
        "triggered": command.triggered,
        "type": str(command.type),
        "pv_field_filter_list": sorted(set(command.pv_field_filter_list)),
    }


def difference(running: RepeatingSnapshotCommand, other: RepeatingSnapshotCommand) -> str:
    """Returns in what a command differs from that of the running snapshot; empty if it is the same."""
    has, wants = set(running.pv_name_list), set(other.pv_name_list)
    if has != wants:
        parts = [f"also {_some(has - wants)}"] if has - wants else []
        parts += [f"not {_some(wants - has)}"] if wants - has else []
        return f"other PVs: it has {' and '.join(parts)}"
    mine, theirs = _comparable(running), _comparable(other)
    return ", ".join(f"{name}={mine[name]!r}, not {theirs[name]!r}" for name in mine if mine[name] != theirs[name])


def _some(names: Collection[str]) -> str:
    more = len(names) - _SHOWN_PVS
    return ", ".join(sorted(names)[:_SHOWN_PVS]) + (f" ... ({more} more)" if more > 0 else "")
