"""Options of a gateway: the `[gateway]` section of an environment file."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

from k2eg_rx.settings import MAX_MESSAGE_BYTES, nearest
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

_GROUP = re.compile(r"[A-Za-z0-9._-]+")
_OVERFLOWS = ("latest", "drop_oldest")
_SIZES = (
    "max_pending",
    "update_buffer",
    "snapshot_buffer",
    "outgoing_buffer",
    "outgoing_buffer_bytes",
    "max_command_bytes",
)
_BOOLEANS = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """Timeouts, limits and the consumer group of a gateway. Durations are in seconds.

    Attributes:
        group: The consumer group that reads the command topic; the gateways of a group share the commands. A name
            with "k2eg" in it is accepted with a warning.
        operation_timeout: How long EPICS may take for a get or a put.
        max_put_age: A put that has waited longer in Kafka is refused.
        max_get_age: A get that has waited longer in Kafka is refused.
        max_pending: Gets and puts that may wait or run; while it is reached, commands stay in Kafka.
        create_topics: Whether to create the topics of PVs and snapshots, with the deployed gateway's partitions.
        monitor_expiration: A monitor or recurring snapshot ends after this time without consumers; 0 means never.
        update_buffer: Approximate bytes of EPICS updates that may wait for the event loop.
        snapshot_buffer: Values that one recurring snapshot may buffer.
        outgoing_buffer: Records that may wait for Kafka in an outage.
        outgoing_buffer_bytes: Their approximate memory.
        outgoing_overflow: Which are dropped beyond: with "latest" the older ones of PVs that have several, so that the
            newest value of each PV stays; with "drop_oldest" the oldest of all.
        max_command_bytes: Larger commands are dropped without parsing.
    """

    group: str = "epics-gateway"
    operation_timeout: float = 10.0
    max_put_age: float = 30.0
    max_get_age: float = 60.0
    max_pending: int = 10_000
    create_topics: bool = True
    monitor_expiration: float = 3600.0
    update_buffer: int = 256 * 1024 * 1024
    snapshot_buffer: int = 100_000
    outgoing_buffer: int = 250_000
    outgoing_buffer_bytes: int = 256 * 1024 * 1024
    outgoing_overflow: str = "latest"
    max_command_bytes: int = MAX_MESSAGE_BYTES

    def __post_init__(self) -> None:
        if not _GROUP.fullmatch(self.group):
            raise ValueError(
                f"[gateway] group must consist of letters, digits, '.', '_' and '-', got {self.group[:80]!r}"
            )
        for name in ("operation_timeout", "max_put_age", "max_get_age"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"[gateway] {name} must be a time above 0 s, got {getattr(self, name)!r}")
        if not 0 <= self.monitor_expiration < math.inf:
            raise ValueError(
                "[gateway] monitor_expiration must be a time in seconds, or 0 for never, "
                f"got {self.monitor_expiration!r}"
            )
        if self.outgoing_overflow not in _OVERFLOWS:
            raise ValueError(
                f"[gateway] outgoing_overflow must be 'latest' or 'drop_oldest', got {self.outgoing_overflow[:80]!r}"
            )
        for name in _SIZES:
            if getattr(self, name) < 1:
                raise ValueError(f"[gateway] {name} must be above 0, got {getattr(self, name)!r}")

    @classmethod
    def from_section(cls, section: Mapping[str, str]) -> GatewayOptions:
        """Returns the options of a `[gateway]` section; missing ones have their defaults.

        Raises:
            ValueError: An option is unknown or its value is invalid; the text names the option.
        """
        kinds: dict[str, type] = {option.name: type(cast("object", option.default)) for option in fields(cls)}
        values: dict[str, Any] = {}
        for name, text in section.items():
            if name not in kinds:
                raise ValueError(f"[gateway] {name[:80]} is not an option: {nearest(name[:80], sorted(kinds))}")
            values[name] = _convert(name, text.strip(), kinds[name])
        options = cls(**values)
        if "k2eg" in options.group.lower():
            _log.warning(
                "group name contains 'k2eg': group=%s reason=deployed gateways have such names, and share the commands"
                " with this gateway if the group is the same; programs that count consumers leave such groups out",
                options.group,
            )
        return options


def _convert(name: str, text: str, kind: type) -> str | float | int | bool:
    if kind is str:
        return text
    if kind is bool:
        if text.lower() not in _BOOLEANS:
            raise ValueError(f"[gateway] {name} must be 'yes' or 'no', got {text!r}")
        return _BOOLEANS[text.lower()]
    try:
        return int(text) if kind is int else float(text)
    except ValueError:
        expected = "a whole number" if kind is int else "a number"
        raise ValueError(f"[gateway] {name} must be {expected}, got {text!r}") from None
