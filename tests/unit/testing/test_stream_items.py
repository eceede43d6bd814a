"""The builders of stream items: their items equal those read from Kafka."""

from __future__ import annotations

import doctest
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from k2eg_rx import Severity
from k2eg_rx.protocol.decode import decode_body
from k2eg_rx.testing import START, series, snapshot, stream_items, structure, update

CHOICES = ["Off", "On"]


def test_docstring_examples() -> None:
    assert doctest.testmod(stream_items).failed == 0


@pytest.mark.parametrize(
    ("value", "decoded"),
    [
        (1.5, 1.5),
        (True, True),
        ("text", "text"),
        ([1, 2], [1, 2]),
        (np.arange(3.0), [0.0, 1.0, 2.0]),
        (np.float32(0.5), 0.5),
        ({"a": [1, 2], "b": ["x", "y"]}, {"a": [1, 2], "b": ["x", "y"]}),
    ],
)
def test_an_update_decodes_to_the_given_value(value: object, decoded: object) -> None:
    made = update("demo:x", value, severity=2, message="HIHI", timestamp=START + 5)
    assert (made.name, made.value, made.severity, made.timestamp) == ("demo:x", decoded, Severity.MAJOR, START + 5)
    assert made.data["alarm"]["message"] == "HIHI"


def test_an_update_has_the_record_of_a_gateway() -> None:
    made = update("pva://demo:x", 1, offset=7, timestamp=1_500_000)
    assert decode_body(made.record) == {"demo:x": made.data}
    assert made.record[:4] == ("demo_x", 0, 7, b"demo:x")
    assert made.record.timestamp_ms == 1


@pytest.mark.parametrize("value", ["On", 1, {"index": 1}, np.int16(1)])
def test_a_choice_is_a_label_or_an_index(value: object) -> None:
    assert update("demo:e", value, choices=CHOICES).value == {"index": 1, "choices": CHOICES}


@pytest.mark.parametrize(
    "about",
    [
        {"value": 2, "choices": CHOICES},
        {"value": "no", "choices": CHOICES},
        {"value": True, "choices": CHOICES},
        {"value": 1, "severity": 9},
        {"value": 1, "timestamp": datetime(2026, 1, 1)},
        {"value": 1, "timestamp": 1.5},
        {"value": {"a": 1}},
    ],
)
def test_invalid_arguments_raise_value_error(about: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        update("demo:x", **about)


def test_a_timestamp_is_a_datetime_or_nanoseconds_or_none() -> None:
    assert update("x", 1, timestamp=datetime(2026, 1, 1, tzinfo=UTC)).timestamp == START
    assert update("x", 1, timestamp=None).timestamp is None
    precise = datetime(2026, 1, 1, 0, 0, 0, 123457, tzinfo=UTC)
    assert update("x", 1, timestamp=precise).timestamp == START + 123_457_000


def test_a_structure_without_a_value_has_its_own_fields() -> None:
    made = update("x", fields={"a": 7, "sub": {"b": np.array([1.0])}})
    assert "value" not in made.data
    assert (made.data["a"], made.data["sub"]) == (7, {"b": [1.0]})


def test_a_series_has_increasing_times_and_offsets() -> None:
    made = series("demo:x", [1, 2, 3], every=0.1, start=START, units="A")
    assert [item.value for item in made] == [1, 2, 3]
    assert [item.timestamp for item in made] == [START, START + 100_000_000, START + 200_000_000]
    assert [item.record.offset for item in made] == [0, 1, 2]
    assert made[0].units == "A"


def test_a_snapshot_has_samples_by_pv() -> None:
    made = snapshot("s", {"a": series("a", [1, 2]), "b": [1, 2], "c": None, "d": update("d", 4)}, window=0.5)
    assert [sample["value"] for sample in made.data["a"]] == [1, 2]
    assert made.data["b"]["value"] == [1, 2]
    assert (len(made.data["c"]), made.data["d"]["value"]) == (0, 4)
    assert made.tail_timestamp - made.header_timestamp == 500_000_000
    assert made.complete
    lacking = snapshot("s", {"a": None}, missing=2, tags={"shot": "7"})
    assert (lacking.complete, lacking.missing, lacking.tags) == (False, 2, {"shot": "7"})


@pytest.mark.parametrize(("value", "zero"), [(1.5, 0.0), (1, 0), ([1.0], 0.0), ([2], 0)])
def test_limits_have_the_type_of_the_value(value: object, zero: float) -> None:
    made = structure(value, limits=(0, 10), units="mA")
    assert list(made) == ["value", "alarm", "timeStamp", "display", "control", "valueAlarm"]
    assert made["display"]["limitHigh"] == 10
    assert type(made["control"]["limitLow"]) is type(zero)


def test_structures_of_channel_access_have_their_own_layout() -> None:
    assert list(structure(1.5, protocol="ca")) == ["value", "timeStamp", "alarm", "display", "control", "valueAlarm"]
    assert list(structure([1.5], protocol="ca")) == ["value", "timeStamp", "alarm", "display"]
    assert list(structure("x", protocol="ca")) == ["value", "timeStamp", "alarm"]
    assert structure(1, protocol="ca")["display"]["format"] == "I12"
