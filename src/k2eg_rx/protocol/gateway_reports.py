"""What a gateway says of itself in reply to `GatewayStatusCommand`.

A reply is the map of other replies with one more field, ``gateway_status``. A gateway with many monitors sends several,
each with a part of the list. Fields that are missing, of another type or unknown are ignored, so that programs and
gateways of two releases understand each other.

Thread safety: immutable values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, cast

_FIELD = "gateway_status"
_MONITORS = "monitor_list"
_AT_ONCE = 1000  # monitors in a reply: some 200 kB; brokers accept 1 MB


@dataclass(frozen=True, slots=True)
class MonitorReport:
    """A monitor that a gateway runs.

    Attributes:
        uri: The PV.
        topic: The topic of its updates.
        state: ``connected``, ``disconnected`` or ``never_connected``; empty where it is not known yet.
        host: The EPICS server, as far as known.
        applications: The reply topics of the applications that have requested it.
    """

    uri: str = ""
    topic: str = ""
    state: str = ""
    host: str = ""
    applications: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class GatewayReport:
    """What a gateway says of itself.

    Attributes:
        gateway: Host and process.
        version: Its version.
        group: Its consumer group.
        member: Its name among the gateways of its group; empty if it works alone.
        members: The names of those that share what they publish, as far as it knows.
        problem: Why it does not publish all that it should among them; empty if it does.
        time_ms: Its clock in Unix milliseconds.
        uptime: Seconds since it was started.
        kafka: The state of its connection to Kafka: ``up``, ``connecting`` or ``down``.
        reason: What is wrong with it; empty while nothing is.
        partitions: The partitions of the command topic that it reads; -1 while that is being settled.
        providers: What is wrong with each EPICS client, by protocol; empty texts if nothing is.
        connected: PVs that are connected and have a value.
        disconnected: PVs that have lost their connection.
        never_connected: PVs that have not had a value.
        monitors: Active monitors.
        snapshots: Running recurring snapshots.
        operations: Gets and puts that wait or run.
        update_rate: EPICS updates per second, of late.
        record_rate: Records published per second, of late.
        waiting: What waits in it: ``updates`` for its event loop, ``records`` for Kafka.
        counts: Its counts since it was started, by name.
        lost: Those of them that count what was not delivered.
        monitor_list: Its monitors, if they were asked for.
        part: The number of this part of them, from 1.
        parts: The number of parts.
    """

    gateway: str = ""
    version: str = ""
    group: str = ""
    member: str = ""
    members: Sequence[str] = ()
    problem: str = ""
    time_ms: int = 0
    uptime: float = 0.0
    kafka: str = ""
    reason: str = ""
    partitions: int = -1
    providers: Mapping[str, str] = field(default_factory=dict[str, str])
    connected: int = 0
    disconnected: int = 0
    never_connected: int = 0
    monitors: int = 0
    snapshots: int = 0
    operations: int = 0
    update_rate: float = 0.0
    record_rate: float = 0.0
    waiting: Mapping[str, int] = field(default_factory=dict[str, int])
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    lost: Mapping[str, int] = field(default_factory=dict[str, int])
    monitor_list: Sequence[MonitorReport] = ()
    part: int = 1
    parts: int = 1


def report_fields(report: GatewayReport) -> Iterator[Mapping[str, Any]]:
    """Yields the fields that the replies with a report have besides those of all replies."""
    parts = [report.monitor_list[at : at + _AT_ONCE] for at in range(0, len(report.monitor_list), _AT_ONCE)] or [()]
    for number, part in enumerate(parts, 1):
        yield {_FIELD: asdict(replace(report, monitor_list=tuple(part), part=number, parts=len(parts)))}


def gateway_report(body: Mapping[str, Any]) -> GatewayReport | None:
    """Returns the report in a reply; None if there is none."""
    found = body.get(_FIELD)
    if not isinstance(found, dict):
        return None
    known = _known(GatewayReport, cast("Mapping[str, Any]", found))
    listed: Iterable[Any] = known.pop(_MONITORS, ())
    maps = (cast("Mapping[str, Any]", each) for each in listed if isinstance(each, dict))
    monitors = tuple(MonitorReport(**_known(MonitorReport, each)) for each in maps)
    return GatewayReport(**known, monitor_list=monitors)


def _known(kind: type[GatewayReport | MonitorReport], found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the known fields that have the type of their default."""
    defaults = asdict(kind())
    return {each.name: found[each.name] for each in fields(kind) if _is_like(found.get(each.name), defaults[each.name])}


def _is_like(value: object, default: object) -> bool:
    if isinstance(default, tuple):
        return isinstance(value, list | tuple)
    if isinstance(default, float):
        return isinstance(value, int | float)
    return type(value) is type(default)
