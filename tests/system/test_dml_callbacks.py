"""`dml` against the real IOC: get and monitor."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import pairwise
from queue import Queue
from typing import Any

import pytest

from k2eg import OperationTimeout
from k2eg.dml import dml
from k2eg_rx.embedded import EmbeddedStack

TIMEOUT = 60.0


@pytest.fixture
def k(stack: EmbeddedStack, fresh_app_name: str) -> Iterator[dml]:
    with dml("demo", fresh_app_name, settings=stack.settings(fresh_app_name)) as client:
        yield client


class Handler:
    """A handler whose calls can be waited for."""

    def __init__(self) -> None:
        self.calls: Queue[tuple[str, dict[str, Any]]] = Queue()

    def __call__(self, name: str, data: dict[str, Any]) -> None:
        self.calls.put((name, data))

    def take(self, count: int) -> list[tuple[str, dict[str, Any]]]:
        return [self.calls.get(timeout=TIMEOUT) for _ in range(count)]

    def values(self, count: int) -> list[Any]:
        return [data["value"] for _, data in self.take(count)]


@pytest.mark.parametrize("protocol", ["pva", "ca"])
def test_get_returns_the_structure(k: dml, protocol: str) -> None:
    data = k.get(f"{protocol}://demo:setpoint1", timeout=TIMEOUT)
    assert isinstance(data["value"], float)
    assert data["alarm"]["severity"] == 0
    assert data["timeStamp"]["secondsPastEpoch"] > 1_000_000_000
    assert (data["display"]["units"], data["display"]["limitHigh"]) == ("A", 10.0)


def test_get_reads_a_records_field_and_a_path_in_the_structure(k: dml) -> None:
    assert k.get("ca://demo:setpoint1.DESC")["value"] == "Set point of the first magnet"
    assert k.get("pva://demo:setpoint1.display.units")["value"] == "A"


def test_get_of_a_missing_pv_times_out(k: dml) -> None:
    with pytest.raises(OperationTimeout, match=r"get of pva://no:such:pv: no reply within 0\.\d+ s"):
        k.get("pva://no:such:pv", timeout=0.3)


def test_wait_for_backends_returns_when_replies_can_be_received(k: dml) -> None:
    k.wait_for_backends(timeout=TIMEOUT)


@pytest.mark.parametrize("protocol", ["pva", "ca"])
def test_a_handler_is_called_with_every_update_in_order(k: dml, protocol: str) -> None:
    handler = Handler()
    assert k.monitor(f"{protocol}://demo:ramp100", handler, timeout=TIMEOUT)["error"] == 0
    calls = handler.take(50)
    assert {name for name, _ in calls} == {"demo:ramp100"}
    ramp = [data["value"] for _, data in calls]
    assert all((later - earlier) % 100 == 1 for earlier, later in pairwise(ramp)), ramp


def test_each_handler_of_a_constant_pv_is_called_once(k: dml) -> None:
    first, second = Handler(), Handler()
    k.monitor("pva://demo:message", first)
    k.monitor("pva://demo:message", second)
    assert first.values(1) == second.values(1)


def test_stopping_one_handler_does_not_affect_another(k: dml) -> None:
    stopped, other = Handler(), Handler()
    k.monitor("pva://demo:ramp100", stopped)
    k.monitor("pva://demo:ramp100", other)
    stopped.take(1)
    k.stop_monitor("pva://demo:ramp100", stopped)
    last = stopped.calls.qsize()
    other.take(30 + other.calls.qsize())
    assert stopped.calls.qsize() - last <= 1  # one call may have been in progress
    k.stop_monitor("demo:ramp100")
    assert k.status.monitors == 0


def test_monitor_many_calls_one_handler(k: dml) -> None:
    uris = ["pva://demo:ramp1", "ca://demo:sum", "pva://demo:mode", "ca://demo:message", "pva://demo:table"]
    handler = Handler()
    k.monitor_many(uris, handler, timeout=TIMEOUT)
    seen: dict[str, Any] = {}
    while len(seen) < len(uris):
        (call,) = handler.take(1)
        seen.update([call])
    assert set(seen) == {uri.partition("://")[2] for uri in uris}
    assert seen["demo:mode"]["value"]["choices"] == ["Off", "Standby", "Ramping", "Beam"]


def test_the_same_pv_can_be_monitored_again(k: dml) -> None:
    for _ in range(3):
        handler = Handler()
        k.monitor("ca://demo:sum", handler, timeout=TIMEOUT)
        assert isinstance(handler.values(1)[0], float)
        k.stop_monitor("demo:sum")


def test_a_put_calls_the_handler(k: dml) -> None:
    handler = Handler()
    k.monitor("ca://demo:setpoint2", handler)
    handler.take(1)
    target = 1.25 if k.get("pva://demo:setpoint2")["value"] != 1.25 else 2.25
    k.put("pva://demo:setpoint2", target)
    while handler.values(1) != [target]:
        pass


def test_a_failing_handler_is_called_again(k: dml, caplog: pytest.LogCaptureFixture) -> None:
    handler = Handler()

    def fail(name: str, data: dict[str, Any]) -> None:
        handler(name, data)
        raise RuntimeError("a bug of the handler")

    with caplog.at_level(logging.ERROR):
        k.monitor("pva://demo:ramp10", fail)
        handler.take(3)
        k.stop_monitor("demo:ramp10")
    assert "handler failed" in caplog.text
    assert "item=demo:ramp10" in caplog.text


def test_two_instances_of_an_application_both_receive_updates(stack: EmbeddedStack, fresh_app_name: str) -> None:
    settings = stack.settings(fresh_app_name)
    first, second = Handler(), Handler()
    with dml("demo", fresh_app_name, settings=settings) as one, dml("demo", fresh_app_name, settings=settings) as two:
        one.monitor("pva://demo:ramp10", first)
        two.monitor("pva://demo:ramp10", second)
        assert len(first.values(5)) == len(second.values(5)) == 5
        assert one.get("pva://demo:mode")["value"] == two.get("ca://demo:mode")["value"]
