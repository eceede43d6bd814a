"""Batches against the real IOC: both protocols in one batch, with PVs that do not exist."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from reactivex import operators as ops
from reactivex.subject import ReplaySubject, Subject

from k2eg.dml import dml
from k2eg_rx import Client, OperationTimeout, first
from k2eg_rx.embedded import EmbeddedStack
from k2eg_rx.operators import LoopChange, LoopState, PutStepReport, put_many_to
from k2eg_rx.scans import restoring

TIMEOUT = 60.0

NUMBERS = ["demo:setpoint1", "demo:setpoint2", "demo:ramp1", "demo:ramp10", "demo:ramp100", "demo:sine1", "demo:sum"]
FIELDS = ["EGU", "PREC", "HIGH", "LOW", "HIHI", "LOLO", "HOPR", "LOPR", "ADEL", "MDEL", "PHAS", "PRIO", "SEVR", "STAT"]


@pytest.fixture
def k(stack: EmbeddedStack, fresh_app_name: str) -> Iterator[dml]:
    with dml("demo", fresh_app_name, settings=stack.settings(fresh_app_name)) as client:
        yield client


def test_many_pvs_and_fields_of_both_protocols_are_read_by_one_call(k: dml) -> None:
    names = [*NUMBERS, *(f"{name}.{field}" for name in NUMBERS for field in FIELDS)]
    uris = [f"{protocol}://{name}" for protocol in ("pva", "ca") for name in names]
    before = threading.active_count()
    results = k.get_many(uris, timeout=TIMEOUT)
    assert threading.active_count() <= before + 2  # the pool's first threads; none per PV
    assert list(results) == uris
    failed = {uri: error for uri, error in results.items() if isinstance(error, Exception)}
    assert failed == {}


def test_a_missing_pv_does_not_affect_the_others(client: Client) -> None:
    first(client.ready_stream(TIMEOUT))
    stream = client.get_many_stream(["pva://demo:dead", "pva://demo:setpoint1", "ca://demo:setpoint1"], timeout=5.0)
    results = first(stream.pipe(ops.to_list()))
    assert {got.uri: type(got.error) for got in results} == {
        "pva://demo:setpoint1": type(None),
        "ca://demo:setpoint1": type(None),
        "pva://demo:dead": OperationTimeout,
    }
    assert results[-1].uri == "pva://demo:dead"  # the others did not wait for it


@pytest.fixture
def described(k: dml) -> Iterator[str]:
    """A PV's description, restored afterwards, because all tests share the stack."""
    uri = "pva://demo:setpoint2.DESC"
    before = k.get(uri, timeout=TIMEOUT)["value"]
    yield uri
    k.put(uri, before, timeout=TIMEOUT)


def test_many_pvs_are_written_by_one_call_in_their_own_types(k: dml, described: str) -> None:
    values: dict[str, Any] = {
        "pva://demo:setpoint1": 3,
        "ca://demo:setpoint2": 4.5,
        "pva://demo:mode": "Beam",
        "ca://demo:message": "by a batch",
        "ca://t:wfl": [1, 2, 3],
        described: "a field",
    }
    replies = k.put_many(values | {"pva://demo:sum.EGU": object()}, timeout=TIMEOUT)
    assert isinstance(replies.pop("pva://demo:sum.EGU"), ValueError)
    assert [uri for uri, reply in replies.items() if isinstance(reply, Exception)] == []
    read: Any = k.get_many(values, timeout=TIMEOUT)  # pyright: ignore[reportArgumentType]
    assert {uri: got["value"] for uri, got in read.items() if uri != "pva://demo:mode"} == {
        "pva://demo:setpoint1": 3.0,
        "ca://demo:setpoint2": 4.5,
        "ca://demo:message": "by a batch",
        "ca://t:wfl": [1, 2, 3],
        described: "a field",
    }
    assert read["pva://demo:mode"]["value"]["index"] == 3


def test_vectors_of_a_stream_are_written_as_steps(client: Client) -> None:
    uris = ["pva://demo:setpoint1", "ca://demo:setpoint2"]
    with restoring(client, uris, timeout=TIMEOUT):
        assert [put.error for put in client.put_many(dict.fromkeys(uris, 1.0), TIMEOUT).values()] == [None, None]
        vectors: Subject[list[float]] = Subject()
        states: ReplaySubject[LoopChange] = ReplaySubject()
        reports: ReplaySubject[PutStepReport] = ReplaySubject()
        steps = put_many_to(
            client, uris, limits=(-5.0, 5.0), rate=100.0, timeout=TIMEOUT, max_step=1.0, on_state=states.on_next
        )
        with vectors.pipe(steps).subscribe(reports):
            first(states.pipe(ops.filter(lambda change: change.state is LoopState.CLOSED)), timeout=TIMEOUT)
            outcomes: list[str] = []
            for number, vector in enumerate([[1.5, 0.5], [1.0, math.nan], [3.0, 0.5], [2.0, 0.0]]):
                vectors.on_next(vector)
                outcomes.append(first(reports.pipe(ops.element_at(number)), timeout=TIMEOUT).outcome)
        assert outcomes == ["written", "refused", "refused", "written"]
        assert [got.result().value for got in client.get_many(uris, TIMEOUT).values()] == [2.0, 0.0]
