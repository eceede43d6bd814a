"""Fields of an update that are decoded alone equal those of the whole structure, for any bytes."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2eg_rx.errors import K2EGError, WireError
from k2eg_rx.protocol import decode
from k2eg_rx.protocol.messages import PVUpdate
from k2eg_rx.protocol.msgpack_codec import pack, quick_heads
from k2eg_rx.protocol.records import Record
from k2eg_rx.protocol.structures import severity_of, timestamp_of, user_tag_of
from k2eg_rx.pv import PVAddress
from k2eg_rx.testing import series, update

RECORDED = Path(__file__).parents[2] / "data" / "recorded.jsonl"
X = PVAddress.parse("pva://x")
MSGPACK = [("k2eg-ser-type", b"Msgpack")]

numbers = st.integers(-(2**63), 2**64 - 1)
scalars = st.none() | st.booleans() | numbers | st.floats() | st.text(max_size=5) | st.binary(max_size=5)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | numbers, inner, max_size=3),
    max_leaves=8,
)
alarms = st.fixed_dictionaries({}, optional={"severity": st.integers(-1, 6) | scalars, "status": scalars})
stamps = st.fixed_dictionaries(
    {},
    optional={
        "secondsPastEpoch": st.sampled_from([0, 1, 631_152_000, 1_700_000_000]) | scalars,
        "nanoseconds": st.integers(0, 10**9) | scalars,
        "userTag": scalars,
    },
)
structures = st.fixed_dictionaries(
    {},
    optional={
        "value": anything,
        "alarm": alarms | anything,
        "timeStamp": stamps | anything,
        "display": anything,
        "valu": anything,
    },
)
bodies = st.dictionaries(st.sampled_from(["x", "pva://x", "y"]), structures | anything, max_size=2)


def event(value: bytes | None, headers: Any = MSGPACK) -> PVUpdate:
    return PVUpdate(X, Record("x", 0, 0, b"x", value, headers))


def outcome(read: Callable[[], Any]) -> Any:
    try:
        return same(read())
    except K2EGError as error:
        return type(error), str(error)


def same(item: Any) -> Any:
    """Returns a form of a value that is equal for equal values of equal types; NaN equals itself."""
    if isinstance(item, dict):
        return [(same(key), same(value)) for key, value in item.items()]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(item, list):
        return list(map(same, item))  # pyright: ignore[reportUnknownArgumentType]
    return type(item), "nan" if isinstance(item, float) and math.isnan(item) else item


def lazily(found: PVUpdate) -> Any:
    return [found.value, found.severity, found.timestamp, found.user_tag]


def wholly(found: PVUpdate) -> Any:
    data = found.data
    return [data.get("value"), severity_of(data), timestamp_of(data), user_tag_of(data)]


def check(value: bytes | None, headers: Any = MSGPACK) -> None:
    expected = outcome(lambda: wholly(event(value, headers)))
    assert outcome(lambda: lazily(event(value, headers))) == expected
    loaded = event(value, headers)
    refused = outcome(loaded.load)  # as before each delivery
    if isinstance(refused, tuple) and refused[0] is not type(None):
        assert refused == expected
        return
    assert outcome(lambda: lazily(loaded)) == expected
    assert outcome(lambda: wholly(loaded)) == expected
    assert outcome(lambda: lazily(loaded)) == expected, "after the whole structure"


@given(bodies)
@settings(max_examples=100, deadline=None)
def test_fields_of_any_structure(body: dict[str, Any]) -> None:
    check(pack(body))


@given(bodies, st.integers(0, 200))
@settings(max_examples=100, deadline=None)
def test_fields_of_truncated_bytes(body: dict[str, Any], length: int) -> None:
    check(pack(body)[:length])


@given(structures, st.integers(0, 10_000), st.integers(0, 255))
@settings(max_examples=100, deadline=None)
def test_fields_of_bytes_with_one_wrong(structure: dict[str, Any], place: int, byte: int) -> None:
    good = pack({"x": structure})
    wrong = bytearray(good)
    wrong[place % len(wrong)] = byte
    check(bytes(wrong))


@pytest.mark.parametrize("rest", [b"\x81\x81\x01\x02\x03", b"\xd4\xff\x00"], ids=["key", "extension"])
def test_a_part_that_cannot_be_decoded_leaves_value_severity_and_time(rest: bytes) -> None:
    value = b"\x81\xa1x\x82\xa5value\x07\xa7display" + rest
    with pytest.raises(WireError):
        decode.decode_body(event(value).record)
    check(value)
    assert event(value).data["value"] == 7
    assert event(value).units == ""


@given(st.binary(max_size=60))
@settings(max_examples=100, deadline=None)
def test_arbitrary_bytes(value: bytes) -> None:
    check(value)


def test_fields_that_occur_twice() -> None:
    twice = b"\x81\xa1x\x84\xa5value\x01\xa5alarm\x81\xa8severity\x02\xa5value\x05\xa5alarm\x80"
    check(twice)
    assert (event(twice).value, event(twice).severity) == (5, 0)
    check(b"\x82\xa1x\x81\xa5value\x01\xa1x\x81\xa5value\x02")


def test_recorded_messages() -> None:
    for line in RECORDED.read_text().splitlines():
        check_recorded(line)


def check_recorded(line: str) -> None:
    message = json.loads(line)
    value, headers = base64.b64decode(message["value_b64"]), [(n, v.encode()) for n, v in message["headers"]]
    names = {message["key"].removeprefix("pva://").removeprefix("ca://")} | {"x"}
    for name in names:
        for protocol in ("pva", "ca"):
            try:
                address = PVAddress.parse(f"{protocol}://{name}")
            except ValueError:
                continue
            record = Record("t", 0, 0, b"k", value, headers)
            found = outcome(lambda: lazily(PVUpdate(address, record)))  # noqa: B023
            assert found == outcome(lambda: wholly(PVUpdate(address, record)))  # noqa: B023


def test_only_these_fields_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    if quick_heads is None:
        pytest.skip("needs msgspec")
    monkeypatch.setattr("k2eg_rx.protocol.messages.decode_body", lambda *_: pytest.fail("decoded as a whole"))
    one = event(update("x", 1.5, severity=2, timestamp=5_000_000_007).record.value)
    one.load()
    assert (one.value, one.severity, one.timestamp, one.user_tag, one.pulse_id) == (1.5, 2, 5_000_000_007, 0, 7)
    assert one.time is not None
    assert float(one.value) == 1.5


def test_without_the_extra_the_whole_structure_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "quick_heads", None)
    one = event(update("x", 1.5, severity=2).record.value)
    one.load()
    assert (one.value, one.severity, one.data["value"]) == (1.5, 2, 1.5)


def test_the_value_is_part_of_the_structure_once_that_is_decoded() -> None:
    one = event(update("x", [1.0, 2.0]).record.value)
    assert one.value == [1.0, 2.0]
    assert one.data["value"] is one.value


def test_threads_that_read_an_update_for_the_first_time_see_the_same() -> None:
    for made in series("x", [1.0] * 50):
        one = event(made.record.value)
        barrier, seen = Barrier(4), list[Any]()

        def read(one: PVUpdate = one, barrier: Barrier = barrier, seen: list[Any] = seen) -> None:
            barrier.wait()
            seen.append((one.value, one.severity, one.timestamp, one.data["value"], one.value))

        threads = [Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [(1.0, 0, one.timestamp, 1.0, 1.0)] * 4
