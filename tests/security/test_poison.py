"""Two thousand bad records on the topics that a client reads: it counts them, and the good ones between them arrive."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k2eg_rx.protocol.msgpack_codec import pack

_PATH = Path(__file__).parents[2] / "benchmarks" / "poison.py"
MADE, GENERATED, AT_ONCE = 2000, 60, 20  # so many spoilt records; so many times so many from scratch
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]  # on a busy machine


def _benchmark() -> ModuleType:
    name = "k2eg_benchmark_poison"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, _PATH)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


POISON: Any = _benchmark()


@pytest.fixture
def run() -> Iterator[Any]:
    """A client, and a gateway that answers well."""
    with POISON.Run() as run:
        yield run


def test_spoilt_messages_of_a_real_gateway_are_counted_and_the_good_ones_arrive(run: Any) -> None:
    run.feed(POISON.Spoiler(seed=7).records(MADE))
    report = run.report()
    assert report.holds, report
    assert report.poison == MADE
    assert report.expected > MADE / 2
    assert set(report.kinds) == {"header", "serialization", "undecodable", "shape", "size"}
    assert run.client.status.pending == 0


def test_poison_that_once_took_the_records_beside_it_along(run: Any) -> None:
    poison, deep = POISON.Poison, b"\x91" * 1015 + b"\x01"
    run.feed(
        [
            poison(POISON.EVENTS, None, b'{"\\ud800": 1}', POISON.JSON),  # a name that UTF-8 cannot spell
            poison(POISON.REPLIES, b"", b"\x82\xa8reply_id\xa1x\xa5error" + deep, POISON.MSGPACK),
            poison(POISON.ITERATIONS, b"", b"\x81\xacmessage_type" + deep, POISON.MSGPACK),
        ]
    )
    report = run.report()
    assert report.holds, report
    assert report.discarded == 2  # the first is no PV's that is monitored here


PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5) | st.binary()
NAMES = st.sampled_from(["error", "reply_id", "message_type", "iter_index", "timestamp", "snapshot_name", POISON.PV])
BODIES = st.dictionaries(
    NAMES | st.text(max_size=3),
    st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3)),
    max_size=6,
)
RECORDS = st.builds(
    POISON.Poison,
    topic=st.sampled_from([POISON.REPLIES, POISON.EVENTS, POISON.ITERATIONS]),
    key=st.sampled_from([POISON.PV.encode(), None, b""]) | st.binary(max_size=3),
    value=st.none() | st.binary(max_size=80) | BODIES.map(pack),
    headers=st.sampled_from([POISON.MSGPACK, POISON.MSGPACK, (("k2eg-ser-type", b"Json"),), ()]),
)


def test_records_from_scratch_are_counted_and_the_good_ones_arrive(run: Any) -> None:
    @settings(
        max_examples=GENERATED,
        deadline=None,
        database=None,
        suppress_health_check=SLOW,
    )
    @given(st.lists(RECORDS, min_size=AT_ONCE, max_size=AT_ONCE))
    def feed(records: list[Any]) -> None:
        run.feed(records)

    feed()
    report = run.report()
    assert report.holds, report
    assert report.poison >= GENERATED * AT_ONCE
