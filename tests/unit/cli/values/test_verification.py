"""Values that were written, compared with those that were read back."""

from __future__ import annotations

from typing import Any

import pytest

from k2eg.cli.values.verification import is_written
from k2eg_rx import PVData


@pytest.mark.parametrize(
    ("sent", "value", "expected"),
    [
        (2, 2.0, True),
        (True, 1, True),
        (0.1, 0.10000000149011612, True),
        (0.1, 0.1000001, False),
        (1e300, 0.0, False),
        pytest.param(10**400, 1.0, False, id="10**400"),
        (2.7, 2, False),
        (float("nan"), float("nan"), True),
        ("42", 42.0, True),
        ("x", 42.0, False),
        ("abc", [97, 98, 99, 0, 0], True),
        ("abd", [97, 98, 99], False),
        ("abc", ["abc"], True),
        (5, [5.0], True),
        (5, [5.0, 6.0], False),
        ([1, 2], [1.0, 2.0], True),
        ([1, 2], [1.0], False),
        ("On", {"index": 1, "choices": ["Off", "On"]}, True),
        ("On", {"index": 0, "choices": ["Off", "On"]}, False),
        ("1", {"index": 1, "choices": ["Off", "On"]}, True),
        (2, {"index": 1, "choices": ["Off", "On"]}, False),
        ({"index": 1}, {"index": 1, "choices": ["Off", "On"]}, True),
        ({"value": {"index": 1}}, {"index": 0, "choices": ["Off", "On"]}, False),
        ({"value": 5}, 5.0, True),
        ({"a": [1, 2]}, {"a": [1, 2], "b": [3, 4]}, True),
        ({"a": [1, 2]}, {"b": [3, 4]}, False),
    ],
)
def test_values_are_compared_by_their_type(sent: object, value: Any, expected: bool) -> None:
    assert is_written(sent, PVData("x", {"value": value})) is expected


def test_other_fields_that_were_sent_are_compared() -> None:
    read = PVData("x", {"value": 1.0, "display": {"limitLow": 0.0, "units": "A"}})
    assert is_written({"value": 1, "display": {"limitLow": 0}}, read)
    assert not is_written({"value": 1, "display": {"limitLow": 2}}, read)
