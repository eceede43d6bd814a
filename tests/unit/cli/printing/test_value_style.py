"""How values are written."""

from __future__ import annotations

from typing import Any

import pytest

from k2eg.cli.printing.formatting import Formatter, format_value
from k2eg.cli.printing.value_style import ValueStyle, block_lines, field_paths, image_text, picked
from k2eg_rx import PVData

MODE = {"value": {"index": 1, "choices": ["Off", "On"]}}
IMAGE = {"value": {"ushortValue": [1, 2, 3, 6]}, "dimension": [{"size": 2}, {"size": 2}]}


@pytest.mark.parametrize(
    ("style", "structure", "text"),
    [
        (ValueStyle(digits=("f", 2)), {"value": 1.23456}, "1.23"),
        (ValueStyle(digits=("e", 1)), {"value": 1.23456}, "1.2e+00"),
        (ValueStyle(digits=("g", 3)), {"value": [1.23456, 2.0]}, "[1.23, 2]"),
        (ValueStyle(digits=("f", 2)), {"value": 7}, "7"),
        (ValueStyle(is_hexadecimal=True), {"value": 255}, "0xff"),
        (ValueStyle(is_hexadecimal=True), {"value": -1.0}, "-0x1"),
        (ValueStyle(is_hexadecimal=True), {"value": 1.5}, "1.5"),
        (ValueStyle(is_hexadecimal=True), {"value": float("inf")}, "inf"),
        (ValueStyle(enums="index"), MODE, "1"),
        (ValueStyle(enums="label"), MODE, "On"),
        (ValueStyle(enums="index"), {"value": {"index": 7, "choices": ["Off"]}}, "7"),
        (ValueStyle(is_text=True), {"value": [104, 105, 0, 9]}, "hi"),
        (ValueStyle(is_text=True), {"value": [27, 91]}, "\\x1b["),
        (ValueStyle(is_text=True), {"value": [0.5]}, "\\x00"),
        (ValueStyle(elements=2), {"value": [1, 2, 3]}, "[1, 2, ...] (3 values)"),
        (ValueStyle(elements=0), {"value": list(range(10))}, "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"),
        (ValueStyle(), IMAGE, "image 2 x 2, ushort, min 1, mean 3, max 6"),
    ],
)
def test_a_style_says_how_values_are_written(style: ValueStyle, structure: dict[str, Any], text: str) -> None:
    if text == "\\x00":
        text = ""
    assert format_value(PVData("x", structure), style) == text


def test_a_long_array_takes_lines_with_indices_and_says_what_is_left_out() -> None:
    text = Formatter(blocks=True).pv(PVData("w", {"value": list(range(250))}))
    head, *lines = text.splitlines()
    assert head.endswith("  250 values")
    assert lines[0].split()[:3] == ["[0]", "0", "1"]
    assert lines[-1] == "  ... 150 more (all: -# 0)"
    assert all(len(line) <= 80 for line in lines)
    assert Formatter(terse=True, blocks=True).pv(PVData("w", {"value": [1, 2]})) == "1 2"


def test_lines_of_an_array_are_aligned() -> None:
    assert list(block_lines(["1", "20"], 2)) == ["[0]   1  20"]


def test_an_image_is_described_by_shape_type_and_statistics() -> None:
    assert image_text({"value": 1}) is None
    assert image_text({"value": {"ubyteValue": []}, "dimension": [{"size": 0}]}) == "image 0, ubyte, 0 pixels"


def test_fields_are_picked_by_their_paths() -> None:
    assert field_paths("value,alarm.severity") == ("value", "alarm.severity")
    assert field_paths("field(value, alarm)") == ("value", "alarm")
    assert picked({"alarm": {"severity": 2}}, "alarm.severity") == 2
    assert picked({"alarm": 1}, "alarm.severity") is None
    with pytest.raises(ValueError, match="must be fields such as"):
        field_paths("a b")
