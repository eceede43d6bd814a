"""Encoded forms of a PV value."""

from __future__ import annotations

import json

import msgpack
import pytest

from k2eg_rx.errors import WireError
from k2eg_rx.gateway.commands.messages import PVValue
from k2eg_rx.protocol.encode import Serialization, encode_event, encode_structure

STRUCTURE = {"value": 1.5, "alarm": {"severity": 0, "message": "\x00fragment"}}
NAMES = ["t:fast", "µ:1", 'a"b', "x" * 300, "\x00fragment"]


@pytest.mark.parametrize("serialization", Serialization)
@pytest.mark.parametrize("name", NAMES)
def test_an_event_holds_the_structure_under_the_pv_name(serialization: Serialization, name: str) -> None:
    for value in (1.5, 2.5):  # the second time from the cache
        structure = STRUCTURE | {"value": value}
        event = PVValue(name, structure).event(serialization)
        assert event == encode_event(serialization, name, encode_structure(serialization, structure))
        decode = json.loads if serialization is Serialization.JSON else msgpack.unpackb
        assert decode(event) == {name: structure}


@pytest.mark.parametrize("serialization", Serialization)
def test_missing_fields_are_skipped(serialization: Serialization) -> None:
    value = PVValue("x", STRUCTURE)
    assert value.fragment(serialization, ("value", "nope")) == encode_structure(serialization, {"value": 1.5})
    assert value.fragment(serialization) == encode_structure(serialization, STRUCTURE)


def test_each_form_is_encoded_once() -> None:
    class Counted:
        made = 0

        def tolist(self) -> int:
            Counted.made += 1
            return 7

    value = PVValue("x", {"value": Counted()})
    for _ in range(3):
        value.event(Serialization.MSGPACK)
        value.fragment(Serialization.MSGPACK)
    assert Counted.made == 1
    value.event(Serialization.JSON)
    assert Counted.made == 2


def test_a_value_that_cannot_be_serialized_raises_each_time() -> None:
    value = PVValue("x", {"value": object()})
    for _ in range(2):
        with pytest.raises(WireError):
            value.event(Serialization.MSGPACK)
