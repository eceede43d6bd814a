"""What a restore writes."""

from __future__ import annotations

import re

import pytest

from k2eg.cli.values.restoring import Tolerance, fitting, is_same
from k2eg.cli.values.saved_values import SavedValue
from k2eg_rx import PVUpdate
from k2eg_rx.testing import update

MODE = update("my:x", "On", choices=["Off", "On", "5"])


def cell(text: str, severity: str = "") -> SavedValue:
    return SavedValue("pva://my:x", text, severity=severity, is_text=True)


@pytest.mark.parametrize(
    ("text", "present", "value"),
    [
        ("1.5", 0.0, 1.5),
        ("5", 0.0, 5.0),
        ("1e-5", 0.0, 1e-5),
        ("5", 0, 5),
        ("5.0", 0, 5),
        ("9007199254740993", 0, 2**53 + 1),
        ("-3", 0, -3),
        ("true", False, True),
        ("FALSE", True, False),
        ("5", "text", "5"),
        ("", "text", ""),
        ("[1, 2.5]", [0.5], [1.0, 2.5]),
        ("[1, 2]", [5, 6, 7], [1, 2]),
        ('["a"]', ["b"], ["a"]),
    ],
)
def test_the_text_of_a_cell_becomes_a_value_of_the_type_of_the_pv(text: str, present: object, value: object) -> None:
    found = fitting(cell(text), update("my:x", present))
    assert (found, type(found)) == (value, type(value))


def test_an_enum_is_restored_by_its_label() -> None:
    assert fitting(cell("5"), MODE) == "5"
    assert fitting(cell("Off"), MODE) == "Off"


@pytest.mark.parametrize(
    ("entry", "present", "reason"),
    [
        (cell("1"), MODE, "it has no label '1', only 'Off', 'On', '5'"),
        (cell("Same"), update("my:x", 0, choices=["Same", "Same"]), "several of its choices have the label 'Same'"),
        (cell("5.5"), update("my:x", 5), "it needs a whole number, got 5.5"),
        (cell("1_0"), update("my:x", 5), "it needs a whole number, got '1_0'"),
        (cell("1_0"), update("my:x", 5.0), "it needs a number"),
        (cell("1,5"), update("my:x", 5.0), "it needs a number, got '1,5'"),
        (cell(""), update("my:x", 5.0), "it needs a number, got ''"),
        (cell("nan"), update("my:x", 5.0), "nan is not written to a machine"),
        (cell("inf"), update("my:x", 5.0), "inf is not written to a machine"),
        (cell("1"), update("my:x", value=True), "it needs true or false"),
        (cell("[]"), update("my:x", [1.0]), "it needs an array with elements"),
        (cell("5"), update("my:x", [1.0]), "it needs an array with elements"),
        (cell("[1, "), update("my:x", [1.0]), "it needs an array such as"),
        (cell("[1, null]"), update("my:x", [1.0]), "it needs a number, got None"),
        (cell('[1, "NaN"]'), update("my:x", [1.0]), "it needs a number, got 'NaN'"),
        (cell("[1.5]"), update("my:x", [1]), "it needs a whole number"),
        (cell('{"a": [1]}'), update("my:x", {"a": [1.0]}), "not tables and structures"),
        (cell("5", severity="INVALID"), update("my:x", 5.0), "its value was INVALID when it was saved"),
        (SavedValue("pva://my:x", None, has_value=False), update("my:x", 5.0), "it had no value when it was saved"),
        (SavedValue("pva://my:x", "5"), update("my:x", 5.0), "it needs a number, got '5'"),
        (SavedValue("pva://my:x", 5), update("my:x", "5"), "it needs a text, got 5"),
        (SavedValue("pva://my:x", True), update("my:x", 5), "it needs a whole number, got True"),
        (SavedValue("pva://my:x", 1), MODE, "it has no label 1"),
    ],
)
def test_what_does_not_fit_exactly_is_refused(entry: SavedValue, present: PVUpdate, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        fitting(entry, present)


@pytest.mark.parametrize(
    ("wanted", "found", "tolerance", "same"),
    [
        (1.5, 1.5, "0", True),
        (1.5, 1.5000001, "0", False),
        (0.1, 0.10000000149011612, "0", True),  # as a 32-bit float has it
        (1.5, 1.52, "0.05", True),
        (1.5, 1.6, "0.05", False),
        (100.0, 100.9, "1%", True),
        (100.0, 101.1, "1%", False),
        (100, 101, "1", True),
        (1.5, float("nan"), "10", False),
        ([1.0, 2.0], [1.01, 1.99], "0.1", True),
        ([1.0, 2.0], [1.01], "0.1", False),
        ("a", "b", "10", False),
        (True, False, "10", False),
    ],
)
def test_values_within_the_tolerance_are_the_same(wanted: object, found: object, tolerance: str, *, same: bool) -> None:
    assert is_same(wanted, update("my:x", found), Tolerance.parse(tolerance)) is same


def test_labels_have_no_tolerance() -> None:
    assert is_same("On", MODE, Tolerance())
    assert not is_same("Off", MODE, Tolerance(10.0))


@pytest.mark.parametrize("text", ["", "x", "-1", "nan", "inf", "%"])
def test_what_is_no_tolerance(text: str) -> None:
    with pytest.raises(ValueError, match="must be a number such as"):
        Tolerance.parse(text)
