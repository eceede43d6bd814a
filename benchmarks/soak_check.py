"""Compares what the IOC posted, what Kafka holds, and what clients received. Pure functions.

A posted value is *lost* if Kafka does not hold it, although a gateway was there: none was killed, frozen or restarted
at that time, and the IOC was connected. What is missing for such a reason is counted apart, by the reason. A value in
Kafka is *missed* if a client did not get it while it ran; there is no excuse for that.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Seconds before the begin of an absence in which values may be under way: read from EPICS, not acknowledged by Kafka.
UNDER_WAY = 2.0
_PUT_AGE = 30.0  # seconds after which a gateway refuses a put
_LATE = 2.0  # seconds that a put in time may take


@dataclass(frozen=True, slots=True)
class Absence:
    """A time in which values are not published by design.

    Attributes:
        reason: The key to count by, such as ``gateway killed``.
        begin: Unix time of its begin.
        end: Unix time at which all PVs were published again.
    """

    reason: str
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Held:
    """A record that Kafka holds: its place and the PV's value."""

    partition: int
    offset: int
    value: int


def missing_from_kafka(
    ticks: Sequence[tuple[int, float]], held: Sequence[Held], absences: Iterable[Absence]
) -> Counter[str]:
    """Counts the posted values of one PV that Kafka does not hold: by reason, and ``lost`` without one.

    Args:
        ticks: The posted values with their times, in order.
        held: The PV's records.
        absences: When the gateway or the IOC was not there.
    """
    values = {each.value for each in held}
    counts: Counter[str] = Counter()
    if not values:
        counts["lost"] = len(ticks)
        return counts
    known = sorted(absences, key=lambda each: each.begin)
    first = min(values)
    for value, posted in ticks:
        if value > first and value not in values:
            reasons = [each.reason for each in known if each.begin - UNDER_WAY <= posted <= each.end]
            counts[reasons[0] if reasons else "lost"] += 1
    return counts


def order_in_kafka(held: Sequence[Held]) -> Counter[str]:
    """Counts repeats and steps back of one PV in Kafka.

    A gateway publishes the current value again when a monitor is activated again: a *repeat* of the newest value.

    Args:
        held: The PV's records in the order of their offsets.
    """
    counts: Counter[str] = Counter()
    for before, each in itertools.pairwise(held):
        if each.partition != before.partition:
            counts["in another partition"] += 1
        elif each.value == before.value:
            counts["repeats"] += 1
        elif each.value < before.value:
            counts["reordered"] += 1
    return counts


def delivery(
    places: Sequence[tuple[int, int]], received: Sequence[tuple[int, int]], *, optional: frozenset[int] = frozenset()
) -> Counter[str]:
    """Counts what one run of a client did not get, got twice, or got out of order.

    Args:
        places: The partitions and offsets, or other keys, that Kafka holds, in order.
        received: Those that the client received, in order.
        optional: Indices in `places` that a client may leave out, such as repeats.
    """
    counts: Counter[str] = Counter()
    indices = {place: index for index, place in enumerate(places)}
    last = -1
    seen: set[int] = set()
    for place in received:
        index = indices.get(place)
        if index is None:
            counts["unknown"] += 1
        elif index in seen:
            counts["received twice"] += 1
        elif index < last:
            counts["received out of order"] += 1
        else:
            last = index
        if index is not None:
            seen.add(index)
    if seen:
        counts["missed"] += sum(
            index not in seen and index not in optional for index in range(min(seen), max(seen) + 1)
        )
    return counts


def repeats_in(held: Sequence[Held]) -> frozenset[int]:
    """Returns the indices of records that repeat the one before."""
    return frozenset(index for index in range(1, len(held)) if held[index].value == held[index - 1].value)


def puts(log: Iterable[Mapping[str, Any]], executed: Iterable[tuple[str, int, float]]) -> Counter[str]:
    """Counts what became of puts.

    Args:
        log: What the client logged: each value before it was sent, and how the put ended.
        executed: PV, value and time of each put that the IOC carried out, in order.
    """
    sent: dict[int, float] = {}
    ended: dict[int, tuple[str, str, float]] = {}
    for entry in log:
        if "sent" in entry:
            sent[entry["value"]] = entry["sent"]
        else:
            ended[entry["value"]] = entry["outcome"], entry["text"], entry["ended"]
    counts: Counter[str] = Counter(sent=len(sent))
    times: dict[int, list[float]] = defaultdict(list)
    newest: dict[str, int] = {}
    for name, value, moment in executed:
        counts["carried out"] += 1
        times[value].append(moment)
        counts["carried out of order"] += value < newest.get(name, 0)
        newest[name] = max(newest.get(name, 0), value)
    counts["carried out twice"] = sum(len(each) > 1 for each in times.values())
    for value, moments in times.items():
        counts["carried out late"] += moments[0] - sent.get(value, moments[0]) > _PUT_AGE + _LATE
        counts["never sent"] += value not in sent
    for value in sent:
        outcome, text, moment = ended.get(value, ("unknown", "", 0.0))
        counts[f"ended: {outcome}"] += 1
        is_carried_out = value in times
        counts["confirmed, not carried out"] += outcome == "done" and not is_carried_out
        denied = outcome in ("refused", "unsent") and " may " not in text
        counts["refused, but carried out"] += denied and is_carried_out
        counts["carried out after its timeout"] += outcome == "timeout" and is_carried_out and times[value][0] > moment
    return counts


def steps_back(iterations: Sequence[Mapping[str, Any]]) -> int:
    """Counts values of recurring snapshots that are older than those of the iteration before."""
    count = 0
    for before, each in itertools.pairwise(iterations):
        older = before["values"]
        count += sum(value < older.get(name, value) for name, value in each["values"].items())
    return count


# Counts that must be zero; the others state what happened by design.
ZERO = (
    "values lost",
    "values reordered",
    "values in another partition",
    "client missed",
    "client received twice",
    "client received out of order",
    "client unknown",
    "recording missed",
    "recording received twice",
    "recording received out of order",
    "recording unknown",
    "snapshots missed",
    "snapshots received twice",
    "snapshots received out of order",
    "snapshots unknown",
    "snapshots steps back",
    "puts carried out twice",
    "puts carried out of order",
    "puts carried out late",
    "puts confirmed, not carried out",
    "puts refused, but carried out",
    "puts never sent",
    "streams ended",
    "processes died",
    "unclean exits",
    "not recovered",
    "tracebacks",
)


def failures(counts: Mapping[str, int]) -> dict[str, int]:
    """Returns the counts that must be zero and are not."""
    return {name: counts[name] for name in ZERO if counts.get(name)}
