"""numpy arrays for puts, the texts of refusals, and that client and gateway accept the same values."""

from __future__ import annotations

import math
from typing import Any

import aioca
import numpy as np
import pytest
from p4p.nt import NTEnum, NTScalar

from k2eg_rx.gateway.epics.ca_values import ChannelType, checked_put
from k2eg_rx.gateway.epics.provider import ProviderError
from k2eg_rx.gateway.epics.pv_types import DTYPES, checked_array, refusal
from k2eg_rx.gateway.epics.pva_puts import fill
from k2eg_rx.gateway.epics.pva_values import KINDS
from k2eg_rx.protocol import fields_for, shown
from k2eg_rx.protocol.type_rules import INTEGER_RANGES

INTEGERS = ["byte", "ubyte", "short", "ushort", "int", "uint", "long", "ulong"]


@pytest.mark.parametrize("kind", INTEGERS)
def test_the_ranges_are_those_of_numpy(kind: str) -> None:
    limits = np.iinfo(DTYPES[kind])
    assert INTEGER_RANGES[kind] == (int(limits.min), int(limits.max))
    checked = checked_array(kind, [int(limits.min), int(limits.max)])
    assert np.array_equal(checked, np.array([limits.min, limits.max], DTYPES[kind]))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("double", [1.5, -2.5]),
        ("double", [1, 2]),
        ("double", [1, 2.5]),
        ("double", [math.inf, 1.0]),
        ("float", [1.5, 2.25]),
        ("float", [1, -2]),
        ("short", [1, -2, 3]),
        ("short", [1.0, 2]),
        ("boolean", [True, False]),
        ("long", (1, 2**62)),
    ],
)
def test_an_array_that_fits_has_the_types_own_elements(kind: str, value: Any) -> None:
    checked = checked_array(kind, value)
    assert isinstance(checked, np.ndarray)
    assert checked.dtype == DTYPES[kind]
    assert checked.tolist() == list(value)


def test_an_array_of_strings_stays_a_list() -> None:
    assert checked_array("string", ("a", "bb")) == ["a", "bb"]


@pytest.mark.parametrize("kind", [*DTYPES, "string"])
def test_an_empty_array_fits_every_type(kind: str) -> None:
    assert len(checked_array(kind, [])) == 0


def test_bytes_are_an_array_of_characters() -> None:
    assert np.array_equal(checked_array("byte", b"Hi\xff"), np.array([72, 105, -1], np.int8))


def test_a_refusal_names_pv_type_and_abbreviated_value() -> None:
    error = refusal("my:pv", "value", "int[]", list(range(10_000)), "is too much")
    assert str(error) == "my:pv: the field 'value' is of type int[]; [0, 1, 2, 3, 4, 5, ...] is too much"


# --- one rule table: the client and both protocols of the gateway decide alike ---

CODES = {kind: code for code, kind in KINDS.items() if kind in DTYPES or kind == "string"}
NATIVE = {"string": aioca.DBR_STRING, "short": aioca.DBR_SHORT, "float": aioca.DBR_FLOAT, "ubyte": aioca.DBR_CHAR}
NATIVE |= {"int": aioca.DBR_LONG, "double": aioca.DBR_DOUBLE}
LABELS = ["Zero", "One", "Two"]

SCALARS: list[Any] = [0, 1, 2, -1, 127, 128, 255, 256, 2**15, 2**16, 2**24, 2**24 + 1, 2**30, 2**31, 2**32, 2**53 + 1]
SCALARS += [2**63, 2**64 - 1, 2**64, 10**400, 0.0, 1.0, 0.1, 7.5, -3.0, 3.0e38, 1e39, 1e300, math.inf, -math.inf]
SCALARS += [math.nan, True, False, "", "1", "Two", None, [], [1], {}, {"index": 1}, b"1"]
ARRAYS: list[Any] = [[scalar] for scalar in SCALARS] + [
    [1, True],
    [0, 1.5],
    ["a", 1],
    [math.nan, 1e39],
    [0, None],
    b"H\xff",
]

CHOICES = [*SCALARS, "One", "Three", {"index": "One"}, {"index": "Three"}, {"index": 1, "choices": LABELS}]


def by_client(value: object, current: object, kind: str) -> Any:
    """What the client sends, or None if it refuses."""
    try:
        given = {"value": value} if isinstance(value, dict) else value
        return fields_for(given, {"value": current}, {"value": kind}, "pva://x")["value"]
    except ValueError:
        return None


def by_pvaccess(value: object, target: Any, field: str = "value") -> Any:
    """What the gateway writes over PVAccess, or None if it refuses."""
    try:
        fill(target, {"value": value}, "x")
    except ProviderError:
        return None
    return target[field]


def by_channel_access(value: object, channel: ChannelType) -> Any:
    """What the gateway writes over Channel Access, or None if it refuses."""
    try:
        return checked_put(channel, value, "x", LABELS)[0]
    except ProviderError:
        return None


def same(found: Any, expected: Any, kind: str) -> bool:
    """Whether two values are equal as values of a type; NaN is equal to itself."""
    if found is None or expected is None:
        return found is expected
    dtype = None if kind == "string" else DTYPES[kind]
    left, right = np.array(found, dtype), np.array(expected, dtype)
    return left.shape == right.shape and np.array_equal(left, right, equal_nan=dtype is not None and dtype.kind == "f")


@pytest.mark.parametrize("kind", [*CODES])
@pytest.mark.parametrize("value", SCALARS, ids=shown)
def test_a_scalar_fits_in_the_client_if_it_does_in_the_gateway(kind: str, value: object) -> None:
    sent = by_client(value, "" if kind == "string" else DTYPES[kind].type(0).item(), kind)
    assert same(by_pvaccess(value, NTScalar(CODES[kind]).wrap("" if kind == "string" else 0)), sent, kind)
    if kind in NATIVE:
        assert same(by_channel_access(value, ChannelType.of("x", NATIVE[kind], 1)), sent, kind)
    if sent is not None:
        assert same(by_pvaccess(sent, NTScalar(CODES[kind]).wrap("" if kind == "string" else 0)), sent, kind)


@pytest.mark.parametrize("kind", [*CODES])
@pytest.mark.parametrize("value", ARRAYS, ids=shown)
def test_an_array_fits_in_the_client_if_it_does_in_the_gateway(kind: str, value: object) -> None:
    sent = by_client(value, [], f"{kind}[]")
    assert same(by_pvaccess(value, NTScalar(f"a{CODES[kind]}").wrap([])), sent, kind)
    if kind in NATIVE:
        assert same(by_channel_access(value, ChannelType.of("x", NATIVE[kind], 10)), sent, kind)


@pytest.mark.parametrize(
    "value", [*SCALARS, "One", "Three", {"index": "One"}, {"index": 1, "choices": LABELS}], ids=shown
)
def test_a_choice_fits_in_the_client_if_it_does_in_the_gateway(value: object) -> None:
    sent = by_client(value, {"index": 0, "choices": LABELS}, "enum")
    index = None if sent is None else sent["index"]
    assert by_pvaccess(value, NTEnum().wrap({"index": 0, "choices": LABELS}), "value.index") == index
    assert by_channel_access(value, ChannelType.of("x", aioca.DBR_ENUM, 1)) == index
