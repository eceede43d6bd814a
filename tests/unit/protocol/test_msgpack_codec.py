"""msgspec and msgpack decode alike."""

import json
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2eg_rx.protocol.msgpack_codec import UNPACK_ERRORS, Packer, pack, quick_unpack, unpack, unpack_by_msgpack

RECORDED = Path(__file__).parents[2] / "data" / "recorded.jsonl"

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(0, 9), inner))


def outcome(decode, packed: bytes) -> str:
    """The value or the kind of error, NaN included, in a form that can be compared."""
    try:
        return repr(decode(packed))
    except UNPACK_ERRORS as error:
        return f"refused: {type(error).__name__}"


def test_the_faster_decoder_is_in_use() -> None:
    assert type(quick_unpack.__self__) is msgspec.msgpack.Decoder


def test_both_decode_the_recording_alike() -> None:
    bodies = [b64decode(json.loads(line)["value_b64"]) for line in RECORDED.read_text().splitlines()]
    assert bodies
    for body in bodies:
        assert outcome(unpack, body) == outcome(unpack_by_msgpack, body)


@given(values)
def test_both_decode_any_value_alike(value: object) -> None:
    assert outcome(unpack, pack(value)) == outcome(unpack_by_msgpack, pack(value))


@pytest.mark.parametrize(
    "packed",
    [b"", b"\xc1", b"\x01\x02", b"\x81\xa1\xff\x01", b"\xdd\xff\xff\xff\xff", b"\xa3ab", b"\x91" * 100_000 + b"\x01"],
    ids=["empty", "reserved", "trailing", "not UTF-8", "as long as 4 G", "cut off", "too deep"],
)
def test_both_refuse_alike_and_replace_invalid_utf8_alike(packed: bytes) -> None:
    assert outcome(unpack, packed) == outcome(unpack_by_msgpack, packed)


def test_a_packer_packs_as_the_package_after_failures_and_large_values_and_in_other_threads() -> None:
    def native(value: object) -> object:
        raise TypeError(f"no {type(value).__name__}")

    packer = Packer(native)
    large = b"x" * 2_000_000
    for value in ({"a": [1, 2.5, None]}, large, "text"):
        assert packer.pack(value) == pack(value)
        for refused in (object(), "\ud800"):
            with pytest.raises((TypeError, UnicodeEncodeError)):
                packer.pack({"begun": refused})
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(packer.pack, [1]).result() == pack([1])
