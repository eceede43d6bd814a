"""Metrics as data: what a metric is, and its present values. prometheus_client makes text of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram", "untyped"]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric.

    Attributes:
        name: Its name; that of a counter ends in ``_total``.
        kind: Its type. ``untyped`` keeps the name of a counter that does not end so.
        meaning: What it tells, in one line.
        labels: The names of its labels.
        deployed: The deployed gateway's equivalent, where it has another name.
    """

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    deployed: str = ""


class Buckets(NamedTuple):
    """The present values of a histogram.

    Attributes:
        bounds: The upper bounds, ascending.
        counts: The number of measurements in each bucket, and beyond the last bound.
        total: The sum of all measurements.
    """

    bounds: Sequence[float]
    counts: Sequence[int]
    total: float


class Reading(NamedTuple):
    """The present values of a metric.

    Attributes:
        family: The metric.
        values: The values by those of the labels; a number if it has none.
    """

    family: Family
    values: float | Buckets | Mapping[tuple[str, ...], float | Buckets]
