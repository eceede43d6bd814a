"""A gateway's options: the `[gateway]` section of an environment's file.

In: strings. Out: a frozen `GatewayOptions`, or a ValueError that names the option. Pure; any thread.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

from k2eg_rx.settings import MAX_MESSAGE_BYTES

_GROUP = re.compile(r"[A-Za-z0-9._-]+")
_YES = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """How a gateway behaves. Durations are seconds.

    Attributes:
        group: The consumer group that shares the command topic: gateways of one group divide the commands among them.
        operation_timeout: What EPICS has for a get or a put; the deployed gateway's 10 s.
        max_put_age: A put that has waited longer in Kafka is refused: its sender has long given up.
        max_get_age: The same for a get.
        max_pending: Gets and puts under way or waiting; beyond it commands stay in Kafka.
        create_topics: Whether topics of PVs and snapshots are created with the deployed gateway's properties.
        monitor_expiration: A monitor whose topic nobody has read for so long ends; 0 means never.
        update_buffer: Bytes (roughly) of updates from EPICS that may wait for the gateway's thread.
        snapshot_buffer: Values that one recurring snapshot may hold back.
        outgoing_buffer: Records that may wait for Kafka's own queue to have room again.
        max_command_bytes: A command that is larger is not looked into.
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
    outgoing_buffer: int = 10_000
    max_command_bytes: int = MAX_MESSAGE_BYTES

    def __post_init__(self) -> None:
        if not _GROUP.fullmatch(self.group) or "k2eg" in self.group.lower():
            raise ValueError(
                f"[gateway] group: {self.group!r}: letters, digits, '.', '_' and '-', without 'k2eg' in it, "
                "for sites leave groups of that name out when they look who listens"
            )
        for name in ("operation_timeout", "max_put_age", "max_get_age"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"[gateway] {name}: {getattr(self, name)!r} is not a time above 0 s")
        if not 0 <= self.monitor_expiration < math.inf:
            raise ValueError(
                f"[gateway] monitor_expiration: {self.monitor_expiration!r} is not a time, nor 0 for never"
            )
        for name in ("max_pending", "update_buffer", "snapshot_buffer", "outgoing_buffer", "max_command_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"[gateway] {name}: {getattr(self, name)!r} is not a number above 0")

    @classmethod
    def from_section(cls, section: Mapping[str, str]) -> GatewayOptions:
        """Returns the options that a section of an environment's file says; what it does not say has its default.

        Raises:
            ValueError: An option is unknown, or its value wrong; the text names it.
        """
        kinds: dict[str, type] = {option.name: type(cast("object", option.default)) for option in fields(cls)}
        values: dict[str, Any] = {}
        for name, text in section.items():
            if name not in kinds:
                raise ValueError(f"[gateway] {name}: no such option; there is {', '.join(sorted(kinds))}")
            values[name] = _value(name, text.strip(), kinds[name])
        return cls(**values)


def _value(name: str, text: str, kind: type) -> str | float | int | bool:
    if kind is str:
        return text
    if kind is bool:
        if text.lower() not in _YES:
            raise ValueError(f"[gateway] {name}: {text!r} is neither yes nor no")
        return _YES[text.lower()]
    try:
        return int(text) if kind is int else float(text)
    except ValueError:
        raise ValueError(f"[gateway] {name}: {text!r} is not a {'whole number' if kind is int else 'number'}") from None
