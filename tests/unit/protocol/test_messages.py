"""Messages as values: what a PV's update tells, and that it is decoded once and not before it is asked."""

from __future__ import annotations

from typing import Any

import pytest

from k2eg_rx.errors import WireError
from k2eg_rx.protocol import messages
from k2eg_rx.protocol.messages import PVData, PVUpdate
from k2eg_rx.protocol.msgpack_codec import pack
from k2eg_rx.protocol.structures import Severity
from k2eg_rx.pv import PVAddress
from k2eg_rx.transport.interfaces import Record

STRUCTURE: dict[str, Any] = {
    "value": 1.5,
    "alarm": {"severity": 1},
    "timeStamp": {"secondsPastEpoch": 2, "nanoseconds": 3},
    "display": {"units": "mA"},
}
ADDRESS = PVAddress.parse("pva://my:pv")


def update(body: dict[str, Any]) -> PVUpdate:
    record = Record("my_pv", 2, 17, b"my:pv", pack(body), [("k2eg-ser-type", b"Msgpack")])
    return PVUpdate(ADDRESS, record)


@pytest.mark.parametrize("pv", [PVData("my:pv", STRUCTURE), update({"my:pv": STRUCTURE})])
def test_a_pv_tells_value_severity_time_and_units(pv: PVData) -> None:
    assert (pv.name, pv.value, pv.severity, pv.timestamp, pv.units) == (
        "my:pv",
        1.5,
        Severity.MINOR,
        2_000_000_003,
        "mA",
    )
    assert pv.data == STRUCTURE


def test_what_a_pv_has_not_is_none_or_empty() -> None:
    pv = PVData("x", {})
    assert (pv.value, pv.severity, pv.timestamp, pv.units) == (None, Severity.NO_ALARM, None, "")
    assert PVData("x", {"display": {"units": 5}}).units == ""
    assert PVData("x", {"display": None}).units == ""


def test_an_update_is_decoded_once_and_not_before_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Record] = []
    decode = messages.decode_body

    def count(record: Record) -> dict[str, Any]:
        decoded.append(record)
        return decode(record)

    monkeypatch.setattr(messages, "decode_body", count)
    one = update({"my:pv": STRUCTURE})
    assert (one.name, one.record.offset, repr(one)) == ("my:pv", 17, "PVUpdate('my:pv', my_pv[2]@17)")
    assert decoded == []
    one.load()
    assert one.value == 1.5
    assert one.data is one.data
    assert len(decoded) == 1


def test_an_update_about_another_pv_breaks_the_wire_when_it_is_decoded() -> None:
    with pytest.raises(WireError, match="no structure of 'my:pv'"):
        update({"other": STRUCTURE}).load()


def test_a_pv_shows_its_name_and_data() -> None:
    assert repr(PVData("x", {"value": 1})) == "PVData('x', {'value': 1})"


def test_a_pv_has_no_room_for_what_it_is_not_made_for() -> None:
    assert not hasattr(update({}), "__dict__")
    assert not hasattr(PVData("x", {}), "__dict__")
