"""Invalid records on a client's topics are counted, and the valid ones between them arrive."""

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
CORRUPTED = 2000  # records
BATCHES, BATCH = 60, 20  # number of generated batches, and records in each
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
    """A client, and a gateway whose records are valid."""
    with POISON.Run() as run:
        yield run


def test_corrupted_messages_are_counted_and_valid_ones_arrive(run: Any) -> None:
    run.feed(POISON.Spoiler(seed=7).records(CORRUPTED))
    report = run.report()
    assert report.holds, report
    assert report.poison == CORRUPTED
    assert report.expected > CORRUPTED / 2
    assert set(report.kinds) == {"header", "serialization", "undecodable", "shape", "size"}
    assert run.client.status.pending == 0


def test_invalid_names_and_deep_nesting_do_not_lose_the_records_beside_them(run: Any) -> None:
    poison, deep = POISON.Poison, b"\x91" * 1015 + b"\x01"
    run.feed(
        [
            poison(POISON.EVENTS, None, b'{"\\ud800": 1}', POISON.JSON),  # a lone surrogate, which UTF-8 cannot encode
            poison(POISON.REPLIES, b"", b"\x82\xa8reply_id\xa1x\xa5error" + deep, POISON.MSGPACK),
            poison(POISON.ITERATIONS, b"", b"\x81\xacmessage_type" + deep, POISON.MSGPACK),
        ]
    )
    report = run.report()
    assert report.holds, report
    assert report.discarded == 2  # the first is not about a monitored PV


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


def test_generated_records_are_counted_and_valid_ones_arrive(run: Any) -> None:
    @settings(
        max_examples=BATCHES,
        deadline=None,
        database=None,
        suppress_health_check=SLOW,
    )
    @given(st.lists(RECORDS, min_size=BATCH, max_size=BATCH))
    def feed(records: list[Any]) -> None:
        run.feed(records)

    feed()
    report = run.report()
    assert report.holds, report
    assert report.poison >= BATCHES * BATCH
