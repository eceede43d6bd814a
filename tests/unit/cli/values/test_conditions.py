"""Conditions on PVs."""

from __future__ import annotations

import pytest

from k2eg.cli.values.conditions import ConditionError, parse_condition
from k2eg_rx import PVUpdate
from k2eg_rx.testing import update


def number(value: object, severity: int = 0) -> PVUpdate:
    return update("my:x", value, severity=severity)


MODE = update("my:mode", "On", choices=["Off", "On", "5", "Beam On"])


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("> 5", True),
        (">5", True),
        (">= 5.5", True),
        ("< 5", False),
        ("<=5.5", True),
        ("== 5.5", True),
        ("= 5.5", True),
        ("!= 5.5", False),
        ("> -5", True),
        (">-1e3", True),
        ("value > 5", True),
        ("> 5 and < 6", True),
        ("> 5 and < 5.2", False),
        ("> 6 or < 5.6", True),
        ("> 6 or > 7 and < 100 or == 5.5", True),
        ("not > 6", True),
        ("not (> 5 and < 6)", False),
        ("not not > 5", True),
        ("severity == NO_ALARM", True),
        ("> 5 and severity < MINOR", True),
        ("severity >= major", False),
        ("< inf", True),
        ("== nan", False),
    ],
)
def test_numbers(text: str, *, holds: bool) -> None:
    assert parse_condition(text).holds(number(5.5)) is holds


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("== On", True),
        ("== 'On'", True),
        ('!= "Beam On"', True),
        ("== Off or == On", True),
        ("== 1", True),
        ("> 0", True),
        ("== 5", False),  # the label, not an index
        ("< 5", True),  # whose index is 2
    ],
)
def test_enums_compare_by_label_and_then_by_index(text: str, *, holds: bool) -> None:
    assert parse_condition(text).holds(MODE) is holds


@pytest.mark.parametrize(("text", "holds"), [("== ready", True), ("== 5", False), ("!= 'not yet'", True)])
def test_texts(text: str, *, holds: bool) -> None:
    assert parse_condition(text).holds(number("ready")) is holds


def test_digits_are_a_text_for_a_text() -> None:
    assert parse_condition("== 5").holds(number("5"))


def test_booleans_are_numbers() -> None:
    assert parse_condition("== true").holds(number(value=True))
    assert parse_condition("== 1").holds(number(value=True))


@pytest.mark.parametrize("text", ["> 5", "not > 5", "!= 7", "> 5 and severity >= MINOR", "not (> 5 or < 5)"])
def test_a_value_without_meaning_fulfils_no_comparison(text: str) -> None:
    assert not parse_condition(text).holds(number(6.0, severity=3))


@pytest.mark.parametrize("text", ["severity == INVALID", "> 5 or severity > MAJOR", "not (severity < MAJOR and > 5)"])
def test_the_severity_of_a_value_without_meaning_has_a_meaning(text: str) -> None:
    assert parse_condition(text).holds(number(6.0, severity=3))


@pytest.mark.parametrize(
    ("text", "value", "reason"),
    [
        ("> 5", number("ready"), "> needs numbers, got 'ready' and '5'"),
        ("> 5", number([1.0]), "not an array or a structure"),
        ("== ready", number(5.0), "its value is a number, 5.0, which 'ready' is not"),
        ("== Ready", MODE, "it has no label 'Ready', only 'Off', 'On', '5', 'Beam On'"),
        ("== [1]", number(5.0), "its value is a number"),
    ],
)
def test_what_cannot_be_compared_is_an_error(text: str, value: PVUpdate, reason: str) -> None:
    with pytest.raises(ConditionError) as caught:
        parse_condition(text).holds(value)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "a comparison (<, <=, >, >=, ==, !=) must come next"),
        ("5", "must come before '5'"),
        (">", "a number or text must come after '>'"),
        ("> 5 <", "'<' comes after its end"),
        ("== Beam On", "'On' comes after its end; a text of several words needs quotes"),
        ("(> 5", "a ')' is missing"),
        ("> 5 and", "must come next"),
        ("severity > 2", "a severity is one of NO_ALARM, MINOR"),
        ("== 'open", '"\'open" is not understood'),
        ("!5", "'!5' is not understood"),
        ("__import__('os')", "must come before '__import__'"),
        ("(" * 1000, "it is nested more than 50 deep"),
        ("not " * 1000 + "> 5", "it is nested more than 50 deep"),
    ],
)
def test_what_is_no_condition_is_an_error(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match="it must be such as '> 5'") as caught:
        parse_condition(text)
    assert reason in str(caught.value)
