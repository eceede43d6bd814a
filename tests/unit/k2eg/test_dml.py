"""`dml`: commands sent, results returned, handlers called."""

from __future__ import annotations

import base64
import logging
import uuid
from functools import partial, wraps
from inspect import signature
from typing import Any
from unittest.mock import Mock

import pytest
import reactivex as rx
from reactivex import Observable

from k2eg.broker import SnapshotProperties
from k2eg.dml import dml
from k2eg.serialization import NTTable, Scalar, Vector
from k2eg_rx import ClientClosedError, OperationError, OperationTimeout, Reply, StreamClient
from k2eg_rx.protocol.msgpack_codec import unpack

NUMBER = {"value": 1.5, "alarm": {"severity": 0}}
ENUM = {"value": {"index": 0, "choices": ["Off", "On"]}}


def fields(command: dict[str, Any]) -> Any:
    return unpack(base64.b64decode(command["value"]))


def test_get_returns_the_structure(k: dml, gateway: Any) -> None:
    gateway.set_pvs(my__pv=NUMBER)
    assert k.get("pva://my:pv", timeout=5.0) == NUMBER
    assert k.get(pv_url="pva://my:pv") == NUMBER
    assert gateway.commands[0]["pv_name"] == "pva://my:pv"


def test_a_failure_reply_is_raised_with_its_code(k: dml, gateway: Any) -> None:
    gateway.set_pvs()
    with pytest.raises(OperationError, match=r"get of pva://my:pv: .* -3: Timeout operation"):
        k.get("pva://my:pv")


@pytest.mark.parametrize("uri", ["my:pv", "http://my:pv", "pva://", 5])
def test_an_invalid_uri_is_rejected_before_anything_is_sent(k: dml, gateway: Any, new_handler: Any, uri: Any) -> None:
    calls = [
        lambda: k.get(uri),
        lambda: k.put(uri, 1),
        lambda: k.monitor(uri, new_handler()),
        lambda: k.monitor_many(["pva://good", uri], new_handler()),
        lambda: k.snapshot(["pva://good", uri], new_handler()),
        lambda: k.snapshot_sync([uri]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"pva://"):
            call()
    assert gateway.commands == []


@pytest.mark.parametrize("timeout", [0, -1, "5"])
def test_an_invalid_timeout_is_rejected_before_anything_is_sent(k: dml, gateway: Any, timeout: Any) -> None:
    calls = [
        lambda: k.get("pva://x", timeout),
        lambda: k.put("pva://x", 1, timeout),
        lambda: k.monitor("pva://x", print, timeout),
        lambda: k.snapshot_recurring(SnapshotProperties("name", ["pva://x"]), print, timeout),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="timeout must be a finite number above 0"):
            call()
    assert gateway.commands == []


def test_put_of_a_plain_value_reads_the_type_of_a_gateway_that_does_not_check(k: dml, gateway: Any) -> None:
    gateway.set_pvs(my__pv=NUMBER)
    assert k.put("pva://my:pv", 42, timeout=5.0)["error"] == 0
    k.put("pva://my:pv", value=43)
    assert gateway.names() == ["get", "put", "get", "put"]
    puts = [command for command in gateway.commands if command["command"] == "put"]
    assert [fields(command) for command in puts] == [{"value": 42.0}, {"value": 43.0}]


def test_put_of_a_label_sends_its_index(k: dml, gateway: Any) -> None:
    gateway.set_pvs(my__mode=ENUM)
    k.put("pva://my:mode", "On")
    assert fields(gateway.commands[-1]) == {"value": {"index": 1}}


def test_put_of_an_unsuitable_value_sends_no_put(k: dml, gateway: Any) -> None:
    gateway.set_pvs(my__mode=ENUM)
    with pytest.raises(ValueError, match=r"pva://my:mode \(enum of Off, On\): cannot put 'Maybe', which is not one"):
        k.put("pva://my:mode", "Maybe")
    assert gateway.names() == ["get"]


def test_put_without_check_sends_the_value_unchanged(k: dml, gateway: Any) -> None:
    k.put("pva://my:mode", 5, check=False)
    k.put("pva://my:mode", {"value": {"index": 1}}, None, check=False)
    assert gateway.names() == ["put", "put"]
    assert [fields(command) for command in gateway.commands] == [{"value": 5}, {"value": {"index": 1}}]


def test_put_sends_the_documented_value_types_unchanged(k: dml, gateway: Any) -> None:
    table = NTTable(labels=["element", "s"])
    table.set_column("element", ["SOL9000", "XC99"])
    table.set_column("s", [0.0, 0.0])
    k.put("pva://my:pv", Scalar("value", 42))
    k.put("pva://my:array", Vector([1, 2, 3, 4]))
    k.put("pva://my:table", table)
    assert [fields(command) for command in gateway.commands] == [
        {"value": 42},
        {"value": [1, 2, 3, 4]},
        {"value": {"element": ["SOL9000", "XC99"], "s": [0.0, 0.0]}},
    ]


def test_put_returns_the_reply_or_raises_its_failure(k: dml, gateway: Any) -> None:
    gateway.reply_with("put", {"message": "done"})
    assert k.put("pva://x", Scalar(1))["message"] == "done"
    gateway.reply_with("put", {"error": -2, "message": "read only"})
    with pytest.raises(OperationError, match=r"put of pva://x: .* -2: read only"):
        k.put("pva://x", Scalar(1))


def test_a_handler_receives_name_and_structure(k: dml, gateway: Any, handle: Any, new_handler: Any) -> None:
    gateway.reply_with("monitor", {"message": "Monitor activated"})
    handler = new_handler()
    assert k.monitor("pva://my:pv", handler, timeout=5.0)["message"] == "Monitor activated"
    gateway.event("my_pv", "my:pv", 1, 2, 3)
    handle()
    assert handler.calls == [("my:pv", {"value": n}) for n in (1, 2, 3)]
    assert gateway.names() == ["monitor"]


def test_several_handlers_of_a_pv_are_all_called(k: dml, gateway: Any, handle: Any, new_handler: Any) -> None:
    first, second = new_handler(), new_handler()
    k.monitor("pva://my:pv", first)
    k.monitor("pva://my:pv", second)
    gateway.event("my_pv", "my:pv", 1)
    handle()
    assert first.values() == second.values() == [1]
    assert gateway.names() == ["monitor"]


def test_handlers_of_pvs_with_a_shared_topic_receive_their_own_pv(
    k: dml, gateway: Any, handle: Any, new_handler: Any
) -> None:
    first, second = new_handler(), new_handler()
    k.monitor("pva://a:b", first)
    k.monitor("pva://a_b", second)
    gateway.event("a_b", "a:b", 1)
    gateway.event("a_b", "a_b", 2)
    handle()
    assert (first.calls, second.calls) == ([("a:b", {"value": 1})], [("a_b", {"value": 2})])


def test_a_failing_handler_is_logged_and_called_again(
    k: dml, gateway: Any, handle: Any, new_handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    good, calls = new_handler(), new_handler()

    def bad(name: str, data: dict[str, Any]) -> None:
        calls(name, data)
        raise RuntimeError("no luck")

    k.monitor("pva://my:pv", bad)
    k.monitor("pva://my:pv", good)
    gateway.event("my_pv", "my:pv", 1, 2)
    handle()
    assert calls.values() == good.values() == [1, 2]
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert "my:pv" in caplog.records[0].getMessage()
    assert "no luck" in caplog.text


@pytest.mark.parametrize("name", ["my:pv", "pva://my:pv"])
def test_stop_monitor_stops_all_handlers_of_a_pv(
    k: dml, gateway: Any, handle: Any, new_handler: Any, name: str
) -> None:
    first, second, other = new_handler(), new_handler(), new_handler()
    k.monitor("pva://my:pv", first)
    k.monitor("pva://my:pv", second)
    k.monitor("pva://other", other)
    k.stop_monitor(name)
    gateway.event("my_pv", "my:pv", 1)
    gateway.event("other", "other", 2)
    assert k.status.lag == 1  # the topic of the stopped PV is not read any more
    handle()
    assert (first.calls, second.calls, other.values()) == ([], [], [2])
    assert k.status.monitors == 1


def test_stop_monitor_with_a_handler_stops_that_one(k: dml, gateway: Any, handle: Any, new_handler: Any) -> None:
    class Window:
        def __init__(self) -> None:
            self.seen = new_handler()

        def update(self, name: str, data: dict[str, Any]) -> None:
            self.seen(name, data)

    first, second = Window(), Window()
    k.monitor("pva://my:pv", first.update)
    k.monitor("pva://my:pv", second.update)
    k.stop_monitor("my:pv", first.update)  # each access of a bound method creates a new object
    gateway.event("my_pv", "my:pv", 1)
    handle()
    assert (first.seen.values(), second.seen.values()) == ([], [1])


def test_stop_monitor_of_an_unmonitored_pv_does_nothing(k: dml) -> None:
    k.stop_monitor("my:pv")
    k.stop_monitor("pva://my:pv", print)


def test_a_pv_can_be_monitored_again_after_a_stop(k: dml, gateway: Any, handle: Any, new_handler: Any) -> None:
    handler = new_handler()
    for value in (1, 2):
        k.monitor("pva://my:pv", handler)
        gateway.event("my_pv", "my:pv", value)
        handle()
        k.stop_monitor("my:pv")
    assert handler.values() == [1, 2]
    assert gateway.names() == ["monitor", "monitor"]


def test_monitor_many_sends_one_command_and_each_pv_can_be_stopped(
    k: dml, gateway: Any, handle: Any, new_handler: Any
) -> None:
    handler = new_handler()
    k.monitor_many(pv_uri_list=["pva://a", "ca://b"], handler=handler, timeout=5.0)
    assert [command.get("pv_name_list") for command in gateway.commands] == [["pva://a", "ca://b"]]
    gateway.event("a", "a", 1)
    gateway.event("b", "b", 2)
    handle()
    k.stop_monitor("a")
    gateway.event("a", "a", 3)
    gateway.event("b", "b", 4)
    handle()
    assert handler.calls == [("a", {"value": 1}), ("b", {"value": 2}), ("b", {"value": 4})]
    k.stop_monitor("ca://b")
    assert k.status.monitors == 0


@pytest.mark.parametrize("uris", [[], "pva://a"])
def test_monitor_many_needs_a_list(k: dml, uris: Any) -> None:
    with pytest.raises(ValueError, match="PV URIs"):
        k.monitor_many(uris, print)


def test_a_rejected_monitor_is_removed(k: dml, gateway: Any, handle: Any, new_handler: Any) -> None:
    gateway.reply_with("monitor", {"error": -2, "message": "worker is starting"})
    with pytest.raises(OperationError, match="worker is starting"):
        k.monitor("pva://my:pv", new_handler())
    assert k.status.monitors == 0
    del gateway.replies["monitor"]
    handler = new_handler()
    k.monitor("pva://my:pv", handler)
    gateway.event("my_pv", "my:pv", 1)
    handle()
    assert handler.values() == [1]


def test_a_monitor_without_reply_in_time_is_removed(
    k: dml, gateway: Any, handle: Any, new_handler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: Observable[Reply] = rx.throw(OperationTimeout("monitor", "pva://my:pv", 0.1))
    monkeypatch.setattr(k, "activation_stream", Mock(return_value=late))
    handler = new_handler()
    with pytest.raises(OperationTimeout, match="monitor of pva://my:pv"):
        k.monitor("pva://my:pv", handler, timeout=0.1)
    gateway.event("my_pv", "my:pv", 1)
    handle()
    assert (handler.calls, k.status.monitors) == ([], 0)


def test_a_handler_must_be_callable(k: dml, gateway: Any) -> None:
    with pytest.raises(ValueError, match=r"handler .* must be callable"):
        k.monitor("pva://x", "print")  # pyright: ignore[reportArgumentType]
    assert gateway.commands == []


def test_wait_for_backends_returns_when_replies_can_be_received(k: dml) -> None:
    k.wait_for_backends()
    k.wait_for_backends(timeout=1.0)


def test_dml_has_the_streams_of_the_client(k: dml) -> None:
    assert isinstance(k, StreamClient)
    assert callable(k.monitor_stream("pva://x").pipe)


def test_dml_is_a_context_manager_and_close_is_idempotent(gateway: Any) -> None:
    with dml("scripted", "test") as client:
        assert isinstance(client, dml)
        assert gateway.scripted.broker.present() == ["test"]
    client.close()
    assert gateway.scripted.broker.present() == []
    with pytest.raises(ClientClosedError):
        client.get("pva://x")
    with pytest.raises(ClientClosedError):
        client.monitor("pva://x", print)


def test_an_empty_app_name_is_rejected() -> None:
    with pytest.raises(ValueError, match="app_name must not be empty"):
        dml("local", "")


def test_the_constructor_has_the_options_of_the_client() -> None:
    # where group_name is keyword-only; the documented API has it third, and poll_timeout fourth
    documented, streams = (signature(kind.__init__).parameters for kind in (dml, StreamClient))
    assert [(each.name, each.default) for each in documented.values() if each.name != "poll_timeout"] == [
        (each.name, each.default) for each in streams.values()
    ]
    assert list(documented)[1:5] == ["environment_id", "app_name", "group_name", "poll_timeout"]


def test_a_group_name_is_any_object_by_its_text(gateway: Any) -> None:
    class Named:
        def __str__(self) -> str:
            return "my-k2eg-group"

    with pytest.raises(ValueError, match="group_name must not contain 'k2eg', got 'my-k2eg-group'"):
        dml("local", "app", Named())
    gateway.set_pvs(x=NUMBER)
    with dml("local", "app", uuid.uuid4(), 0.01) as client:
        assert client.get("pva://x") == NUMBER


@pytest.mark.parametrize("app_name", [None, 5])
def test_an_app_name_that_is_no_text_is_rejected(app_name: Any) -> None:
    with pytest.raises(ValueError, match="app_name must be a string"):
        dml("local", app_name)


def test_the_parts_of_a_uri(k: dml) -> None:
    assert k.parse_pv_url("ca://my:pv.HIGH") == ("ca", "my:pv.HIGH")
    with pytest.raises(ValueError, match="not well formed"):
        k.parse_pv_url("my:pv")


class _Handlers:
    def two(self, name: str, data: Any) -> None: ...
    def one(self, data: Any) -> None: ...
    def __call__(self, name: str, data: Any, more: int = 0) -> None: ...


def _of_data(function: Any) -> Any:
    """Returns a decorated handler, whose own signature differs from that of the function it is for."""

    @wraps(function)
    def handler(name: str, data: Any) -> Any:
        return function(data)

    return handler


async def _coroutine(name: str, data: Any) -> None: ...


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (lambda data: None, r"must take 2 arguments, .* and .*; got <function <lambda>.*, which takes '\(data\)'"),
        (lambda: None, "must take 2 arguments"),
        (lambda name, data, more: None, "must take 2 arguments"),
        (lambda name, *, data: None, "must take 2 arguments"),
        (_Handlers().one, "must take 2 arguments"),
        ([].append, "must take 2 arguments"),
        (_coroutine, "must be a plain function, not a coroutine function"),
        (None, "must be callable, got None"),
        ("handler", "must be callable, got 'handler'"),
    ],
)
def test_a_handler_that_cannot_be_called_is_refused_before_anything_is_sent(
    k: dml, gateway: Any, handler: Any, reason: str
) -> None:
    properties = SnapshotProperties("orbit", ["pva://x"])
    for call in (
        lambda: k.monitor("pva://x", handler),
        lambda: k.monitor_many(["pva://x", "pva://y"], handler),
        lambda: k.snapshot(["pva://x"], handler),
        lambda: k.snapshot_recurring(properties, handler),
    ):
        with pytest.raises(ValueError, match=reason):
            call()
    assert gateway.commands == []


@pytest.mark.parametrize(
    "handler",
    [
        print,
        dict,  # has no signature that can be read
        Mock(),
        _Handlers().two,
        _Handlers(),
        partial(_Handlers.two, _Handlers()),
        lambda *arguments: None,
        lambda name, data, more=None: None,
        _of_data(lambda data: None),
    ],
)
def test_a_handler_is_anything_that_takes_two_arguments(k: dml, gateway: Any, handler: Any) -> None:
    gateway.set_pvs(x=NUMBER)
    assert k.monitor("pva://x", handler)["error"] == 0


def test_an_older_value_that_the_deployed_gateway_repeats_reaches_no_handler(
    k: dml, gateway: Any, new_handler: Any
) -> None:
    """It publishes one after newer ones when another client activates the PV."""
    handler = new_handler()
    k.monitor("pva://m:b", handler)
    for value, seconds in ((1, 1001), (2, 1002), (1, 1001), (3, 1003)):
        time = {"secondsPastEpoch": seconds, "nanoseconds": 0}
        gateway.messages("m_b", "m:b", {"m:b": {"value": value, "timeStamp": time}})
    gateway.scripted.settle()
    assert handler.values() == [1, 2, 3]
    assert k.status.repeated == 1
