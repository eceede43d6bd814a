"""The soak's checks find what they are made to find."""

from __future__ import annotations

from typing import Any

import pytest

from soak_check import (
    Absence,
    Held,
    delivery,
    failures,
    missing_from_kafka,
    order_in_kafka,
    puts,
    repeats_in,
    steps_back,
)

TICKS = [(value, 1000.0 + value) for value in range(1, 11)]  # one a second


def held(*values: int) -> list[Held]:
    return [Held(0, offset, value) for offset, value in enumerate(values)]


def test_a_complete_topic_lacks_nothing() -> None:
    assert not missing_from_kafka(TICKS, held(*range(1, 11)), [])
    assert not missing_from_kafka(TICKS, held(*range(4, 11)), []), "values before the first record count for nothing"


def test_a_missing_value_is_lost_unless_a_part_was_away() -> None:
    records = held(1, 2, 3, 7, 8, 9)
    assert missing_from_kafka(TICKS, records, []) == {"lost": 4}, "10 is missing at the end"
    away = Absence("gateway killed", 1004.0, 1005.5)
    assert missing_from_kafka(TICKS, records, [away]) == {"gateway killed": 2, "lost": 2}
    assert missing_from_kafka(TICKS, [], [away]) == {"lost": 10}, "a PV that was never published"


def test_values_under_way_when_a_part_is_killed_count_for_it() -> None:
    away = Absence("gateway killed", 1005.0, 1005.0)
    assert missing_from_kafka(TICKS, held(1, 2, 6, 7, 8, 9, 10), [away]) == {"gateway killed": 3}
    assert missing_from_kafka(TICKS, held(1, 3, 6, 7, 8, 9, 10), [away]) == {"gateway killed": 2, "lost": 1}


@pytest.mark.parametrize(
    ("values", "counts"),
    [
        ((1, 2, 3), {}),
        ((1, 2, 2, 3), {"repeats": 1}),
        ((1, 3, 2, 4), {"reordered": 1}),
        ((1, 2, 1, 2), {"reordered": 1}),
    ],
)
def test_the_order_in_kafka(values: tuple[int, ...], counts: dict[str, int]) -> None:
    assert order_in_kafka(held(*values)) == counts
    assert order_in_kafka([Held(0, 1, 1), Held(1, 1, 2)]) == {"in another partition": 1}


@pytest.mark.parametrize(
    ("received", "counts"),
    [
        ((2, 3, 4), {}),
        ((2, 4), {"missed": 1}),
        ((2, 3, 3), {"received twice": 1}),
        ((2, 4, 3), {"received out of order": 1}),
        ((2, 99), {"unknown": 1}),
        ((), {}),
    ],
)
def test_deliveries(received: tuple[int, ...], counts: dict[str, int]) -> None:
    places = [(0, offset) for offset in range(10)]
    found = delivery(places, [(0, offset) for offset in received])
    assert {name: count for name, count in found.items() if count} == counts


def test_a_client_may_leave_repeats_out() -> None:
    records = held(1, 2, 2, 3)
    places = [(each.partition, each.offset) for each in records]
    received = [places[0], places[1], places[3]]
    assert not +delivery(places, received, optional=repeats_in(records))
    assert delivery(places, received)["missed"] == 1


def sent(value: int, at: float = 0.0) -> dict[str, Any]:
    return {"value": value, "pv": "p", "sent": at}


def ended(value: int, outcome: str, text: str = "", at: float = 1.0) -> dict[str, Any]:
    return {"value": value, "outcome": outcome, "text": text, "ended": at}


@pytest.mark.parametrize(
    ("log", "executed", "expected"),
    [
        ([sent(1), ended(1, "done")], [("p", 1, 0.5)], {}),
        ([sent(1), ended(1, "done")], [], {"confirmed, not carried out": 1}),
        ([sent(1), ended(1, "done")], [("p", 1, 0.5), ("p", 1, 0.6)], {"carried out twice": 1}),
        ([sent(1), sent(2)], [("p", 2, 0.5), ("p", 1, 0.6)], {"carried out of order": 1}),
        ([sent(1), sent(2)], [("p", 2, 0.5), ("q", 1, 0.6)], {}),
        ([sent(1)], [("p", 1, 40.0)], {"carried out late": 1}),
        ([sent(1), ended(1, "refused", "too old")], [("p", 1, 0.5)], {"refused, but carried out": 1}),
        ([sent(1), ended(1, "refused", "it may still be carried out")], [("p", 1, 0.5)], {}),
        ([sent(1), ended(1, "timeout", "", 10.0)], [("p", 1, 12.0)], {"carried out after its timeout": 1}),
        ([], [("p", 1, 0.5)], {"never sent": 1}),
    ],
)
def test_puts(log: list[Any], executed: list[Any], expected: dict[str, int]) -> None:
    counts = puts(log, executed)
    stated = {"sent", "carried out"}
    found = {name: n for name, n in counts.items() if n and name not in stated and not name.startswith("ended")}
    assert found == expected


def test_snapshots_do_not_step_back() -> None:
    iterations = [{"values": {"a": 1, "b": 5}}, {"values": {"a": 2}}, {"values": {"a": 1, "b": 4}}]
    assert steps_back(iterations[:2]) == 0
    assert steps_back(iterations) == 1


def test_failures_are_counts_that_must_be_zero() -> None:
    counts = {"values lost": 2, "values reordered": 0, "values gateway-monitors killed": 7}
    assert failures(counts) == {"values lost": 2}
