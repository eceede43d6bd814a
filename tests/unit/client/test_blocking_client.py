"""The calls of `Client` that block."""

import gc
import inspect
import warnings
from pathlib import Path
from typing import Any

import pytest
from reactivex import operators as ops

from k2eg_rx import Client, OperationError, OperationTimeout, aio
from k2eg_rx.testing import ScriptedGateway

BLOCKING = ["get", "get_many", "put", "put_many", "snapshot"]


@pytest.mark.parametrize("name", BLOCKING)
def test_the_calls_have_the_parameters_of_the_asynchronous_client(name: str) -> None:
    ours, theirs = (inspect.signature(getattr(kind, name)) for kind in (Client, aio.Client))
    assert ours == theirs


def test_get_returns_a_value_or_raises_the_streams_error() -> None:
    with ScriptedGateway() as gateway, gateway.client() as client:
        gateway.pv("my:x", 1.5)
        assert client.get("pva://my:x").value == 1.5
        with pytest.raises(OperationTimeout, match="pva://my:dead"):
            client.get("pva://my:dead", timeout=0.5)
        with pytest.raises(OperationError):
            client.get("pva://my:x.no_such_field")


def test_put_writes_and_returns_the_reply() -> None:
    with ScriptedGateway() as gateway, gateway.client() as client:
        pv = gateway.pv("my:x", 1.5)
        assert client.put("pva://my:x", 2.5, wait=True).completed
        assert pv.value == 2.5
        with pytest.raises(ValueError, match="my:x"):
            client.put("pva://my:x", "high")


def test_batches_have_a_result_by_uri_in_the_given_order() -> None:
    with ScriptedGateway() as gateway, gateway.client() as client:
        x, y = gateway.pv("my:x", 1.5), gateway.pv("my:y", 2)
        got = client.get_many(iter(["pva://my:dead", "pva://my:y", "pva://my:x"]), timeout=0.5)
        assert list(got) == ["pva://my:dead", "pva://my:y", "pva://my:x"]
        assert isinstance(got["pva://my:dead"].error, OperationTimeout)
        assert got["pva://my:x"].result().value == 1.5
        put = client.put_many({"pva://my:y": "no number", "pva://my:x": 4.0})
        assert list(put) == ["pva://my:y", "pva://my:x"]
        assert isinstance(put["pva://my:y"].error, ValueError)
        assert (x.value, y.value) == (4.0, 2)


def test_a_snapshot_has_the_values_of_all_pvs() -> None:
    with ScriptedGateway() as gateway, gateway.client() as client:
        gateway.pv("my:x", 1.5)
        snapshot = client.snapshot(["pva://my:x"], duration=0.5)
        assert [sample["value"] for sample in snapshot.data["my:x"]] == [1.5]


def test_the_calls_may_be_made_by_a_subscriber() -> None:
    with ScriptedGateway() as gateway, gateway.client() as client:
        gateway.pv("my:x", 1.5)
        seen: list[float] = []
        client.monitor_stream("pva://my:x").subscribe(lambda update: seen.append(client.get(update.address.uri).value))
        gateway.settle()
        assert seen == [1.5]


def test_a_put_that_is_never_subscribed_to_is_a_warning_at_the_line_of_its_call(client: Client) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        client.put_stream("pva://my:x", 7.0)
        client.put_stream("pva://my:y", 7.0).pipe(ops.map(lambda reply: reply.error))
        client.put_many_stream({"pva://my:z": 1})
        gc.collect()  # what `pipe` returns is in a cycle
    texts = sorted(str(warning.message) for warning in caught)
    assert [text.split(" was")[0] for text in texts] == [
        "put_many_stream(['pva://my:z'])",
        "put_stream('pva://my:x')",
        "put_stream('pva://my:y')",
    ]
    assert all("nothing was written" in text and "client.put()" in text for text in texts)
    assert {(warning.category, Path(warning.filename).name) for warning in caught} == {
        (UserWarning, "test_blocking_client.py")
    }


def test_a_put_that_is_subscribed_to_is_no_warning(client: Client, transport: Any) -> None:
    stream = client.put_stream("pva://my:x", 7.0)
    stream.pipe(ops.map(lambda reply: reply.error)).subscribe(on_error=lambda _: None).dispose()
    del stream
    gc.collect()
    assert len(transport.commands) == 1
