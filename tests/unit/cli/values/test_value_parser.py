import math

import pytest

from k2eg.cli.values.value_parser import is_number, parse_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        ("-1", -1),
        ("+5", 5),
        ("007", 7),
        ("1.5", 1.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e3", 1000.0),
        (" -1e3", -1000.0),
        ("-inf", -math.inf),
        ("true", True),
        ("false", False),
        ("[1, 2.5, 3]", [1, 2.5, 3]),
        ('{"value": {"index": 2}}', {"value": {"index": 2}}),
        ('"5"', "5"),
        ("Beam", "Beam"),
        ("hello world", "hello world"),
        ("", ""),
        ("null", "null"),
        ("[1, 2", "[1, 2"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("True", "True"),
    ],
)
def test_values_are_parsed_by_their_form(text: str, value: object) -> None:
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_nan_is_parsed_as_a_float() -> None:
    parsed = parse_value("NaN")
    assert isinstance(parsed, float)
    assert math.isnan(parsed)


@pytest.mark.parametrize(("text", "number"), [("-1e3", True), ("-inf", True), ("-a", False), ("--json", False)])
def test_numbers_are_distinguished_from_options(text: str, number: bool) -> None:
    assert is_number(text) is number
