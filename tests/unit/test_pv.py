"""PV addresses, and the topics derived from names."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from k2eg_rx.pv import MAX_TOPIC_LENGTH, PVAddress, monitor_topic, pv_name_of, snapshot_topic

LEGAL_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")  # org.apache.kafka.common.internals.Topic

# what EPICS Base allows in a record's name: all but white space, control characters, quotes, '.' and '$'; and of those
# no invisible ones
NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cf", "Cs", "Z"), exclude_characters="\"'.$"), min_size=1
).filter(lambda name: not re.search(r"\s", name))
FIELDS = st.sampled_from(["", "HIGH", "alarm.severity", "VAL$", 'VAL{"dbnd":{"abs": 1.5}}'])
# C0, DEL, C1, bidirectional, zero width, line and paragraph separators, an unpaired surrogate
CONTROLS = "\x00\x1b\n\r\t\x7f\x9b\x85\u200b\u200e\u202e\u2066\u2028\u2029\ufeff\udc80"
PROTOCOLS = st.sampled_from(["pva", "ca"])


@pytest.mark.parametrize(
    ("uri", "protocol", "base", "field"),
    [
        ("pva://my:pv", "pva", "my:pv", ""),
        ("ca://my:pv.HIGH", "ca", "my:pv", "HIGH"),
        ("pva://my:pv.alarm.severity", "pva", "my:pv", "alarm.severity"),
        ("pva://X[1]<2>;{a}/b#c+d", "pva", "X[1]<2>;{a}/b#c+d", ""),
        ("ca://x.VAL$", "ca", "x", "VAL$"),
        ("pva://a://b", "pva", "a://b", ""),
        ("pva://lab..rack1..temp", "pva", "lab..rack1..temp", ""),
        ("pva://lab..rack1..temp.alarm.severity", "pva", "lab..rack1..temp", "alarm.severity"),
        ("ca://a..b.HIGH", "ca", "a..b", "HIGH"),
        ("pva://a...b", "pva", "a..", "b"),
        ("pva://..a....", "pva", "..a....", ""),
        ('ca://x.VAL{"dbnd":{"abs":1..5}}', "ca", "x", 'VAL{"dbnd":{"abs":1..5}}'),
    ],
)
def test_a_uri_has_its_parts(uri: str, protocol: str, base: str, field: str) -> None:
    address = PVAddress.parse(uri)
    assert (address.protocol, address.base, address.field) == (protocol, base, field)
    assert (address.uri, str(address), address.name) == (uri, uri, uri.partition("://")[2])


@given(PROTOCOLS, NAMES, FIELDS)
def test_an_address_comes_back_from_its_uri(protocol: Any, base: str, field: str) -> None:
    address = PVAddress(protocol, base, field)
    assert PVAddress.parse(address.uri) == address


@given(st.text())
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        address = PVAddress.parse(text)
    except ValueError:
        return
    assert address.uri == text


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("my:pv", "the protocol must be 'pva' or 'ca'"),
        ("http://my:pv", "the protocol must be"),
        ("PVA://my:pv", "the protocol must be"),
        ("pva:my:pv", "the protocol must be"),
        ("", "the protocol must be"),
        ("pva://", "the PV's name is missing"),
        ("pva://.HIGH", "the PV's name is missing"),
        ("pva://my pv", "must have no white space"),
        ("pva://my:pv ", "must have no white space"),
        ("pva://my'pv", "quotes"),
        ("pva://my$pv", "'\\$'"),
        ("pva://my:pv.", "the field after the dot is missing"),
        *((f"pva://my{control}:pv", "control character") for control in CONTROLS),
        *((f"ca://my:pv.A{control}B", "control character") for control in CONTROLS),
        ("pva://" + 5000 * "x", "at most 4096 characters, got 5006"),
        (None, "must be a string"),
        (5, "must be a string"),
    ],
)
def test_a_malformed_uri_is_refused_with_the_reason(uri: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        PVAddress.parse(uri)
    shown = repr(uri) if len(str(uri)) < 100 else repr(uri[:60])
    assert ascii(uri) in str(caught.value) or shown in str(caught.value)
    assert str(caught.value).isprintable()
    assert re.match(r".*url.*not.*formed", str(caught.value))  # scripts match this


@pytest.mark.parametrize(
    ("uri", "expected"), [("pva://x", False), ("pva://x.HIGH", True), ("pva://x.alarm.severity", False)]
)
def test_a_record_field_is_distinguished_from_a_path_in_the_structure(uri: str, expected: bool) -> None:
    assert PVAddress.parse(uri).is_record_field is expected


@pytest.mark.parametrize(
    ("uri", "name"),
    [("pva://lab..rack1..temp.alarm", "lab.rack1.temp"), ("ca://x.HIGH", "x"), ("pva://..a....", ".a..")],
)
def test_two_dots_are_a_dot_of_the_name(uri: str, name: str) -> None:
    address = PVAddress.parse(uri)
    assert address.pv_name == name
    assert PVAddress.parse(address.uri) == address


@given(st.text("ab.", min_size=1))
def test_every_name_with_dots_has_a_uri(name: str) -> None:
    escaped = name.replace(".", "..")
    for field in ("", "HIGH", "alarm.severity"):
        address = PVAddress.parse(f"pva://{escaped}" + (f".{field}" if field else ""))
        if not field or not name.endswith("."):
            assert (address.pv_name, address.field) == (name, field)


def test_the_key_is_the_uri_where_the_protocol_has_a_key_of_that_name() -> None:
    keys = {name: PVAddress.parse(f"pva://{name}").key for name in ("error", "timestamp", "x", "error.HIGH")}
    assert keys == {"error": "pva://error", "timestamp": "pva://timestamp", "x": "x", "error.HIGH": "error.HIGH"}


def test_a_name_is_read_from_a_name_or_a_uri() -> None:
    assert pv_name_of("my:pv.HIGH") == pv_name_of("ca://my:pv.HIGH") == "my:pv.HIGH"
    with pytest.raises(ValueError, match="protocol"):
        pv_name_of("http://my:pv")


@pytest.mark.parametrize(
    ("name", "topic"),
    [("a:b", "a_b"), ("a_b", "a_b"), ("T:Upper-Dash_1", "T_Upper-Dash_1"), ("x.HIGH", "x.HIGH"), ("a+b[1]", "a_b_1_")],
)
def test_a_monitors_topic_is_the_name_with_underscores(name: str, topic: str) -> None:
    assert monitor_topic(name) == topic


@pytest.mark.parametrize(
    ("name", "topic"),
    [("My_Snap", "my_snap"), ("my-snap", "my-snap"), ("My Snap.1:x", "my_snap_1_x"), ("UPPER_low-9", "upper_low-9")],
)
def test_a_snapshots_topic_is_the_name_in_lower_case(name: str, topic: str) -> None:
    assert snapshot_topic(name) == topic


@given(NAMES, FIELDS)
def test_every_pv_has_a_topic_that_kafka_accepts(base: str, field: str) -> None:
    topic = monitor_topic(PVAddress("pva", base, field).name)
    assert LEGAL_TOPIC.fullmatch(topic)


@given(st.text(min_size=1))
def test_every_snapshot_has_a_topic_that_kafka_accepts(name: str) -> None:
    topic = snapshot_topic(name)
    assert LEGAL_TOPIC.fullmatch(topic)
    assert topic == topic.lower()


LONG = st.text("abc:", min_size=MAX_TOPIC_LENGTH + 1, max_size=2 * MAX_TOPIC_LENGTH)


@given(LONG, LONG)
def test_long_names_have_different_topics(one: str, other: str) -> None:
    assume(one != other)
    assert len(monitor_topic(one)) == MAX_TOPIC_LENGTH
    assert monitor_topic(one) == monitor_topic(one)
    assert monitor_topic(one) != monitor_topic(other)
