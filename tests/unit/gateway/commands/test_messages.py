"""A PV's value in the forms in which it goes out."""

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
def test_an_event_is_the_structure_under_the_name(serialization: Serialization, name: str) -> None:
    for value in (1.5, 2.5):  # the second time the name is known
        structure = STRUCTURE | {"value": value}
        event = PVValue(name, structure).event(serialization)
        assert event == encode_event(serialization, name, encode_structure(serialization, structure))
        decode = json.loads if serialization is Serialization.JSON else msgpack.unpackb
        assert decode(event) == {name: structure}


@pytest.mark.parametrize("serialization", Serialization)
def test_fields_that_the_value_lacks_are_left_out(serialization: Serialization) -> None:
    sample = PVValue("x", STRUCTURE)
    assert sample.fragment(serialization, ("value", "nope")) == encode_structure(serialization, {"value": 1.5})
    assert sample.fragment(serialization) == encode_structure(serialization, STRUCTURE)


def test_each_form_is_made_once() -> None:
    class Counted:
        made = 0

        def tolist(self) -> int:
            Counted.made += 1
            return 7

    sample = PVValue("x", {"value": Counted()})
    for _ in range(3):
        sample.event(Serialization.MSGPACK)
        sample.fragment(Serialization.MSGPACK)
    assert Counted.made == 1
    sample.event(Serialization.JSON)
    assert Counted.made == 2


def test_what_has_no_form_on_the_wire_is_refused_each_time() -> None:
    sample = PVValue("x", {"value": object()})
    for _ in range(2):
        with pytest.raises(WireError):
            sample.event(Serialization.MSGPACK)
