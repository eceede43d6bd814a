"""Keys of records about a PV: in the partition of its events, and no PV's name."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2eg_rx.protocol import Notice, connection_key
from k2eg_rx.protocol.keys import key_about, name_in

KIND = b"\x00kind:"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_a_key_has_the_checksum_and_the_name_of_its_pv(name: str) -> None:
    key = key_about(KIND, name)
    assert zlib.crc32(key) == zlib.crc32(name.encode()), "by which librdkafka chooses the partition"
    assert key != name.encode()
    assert name_in(KIND, key) == name


@pytest.mark.parametrize("key", [None, b"", b"a:b", KIND, KIND + b"abc", b"\x00other:a:babcd"])
def test_other_keys_have_no_name(key: bytes | None) -> None:
    assert name_in(KIND, key) is None


def test_the_kinds_differ() -> None:
    assert connection_key("a")[:-4] == b"\x00connection:a"
    assert Notice("a", 1, "").key[:-4] == b"\x00notice:a"
