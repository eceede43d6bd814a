"""Untrusted input is bounded in size and depth, and the source never executes it."""

from __future__ import annotations

import ast
import json
import logging
import queue
from pathlib import Path

import pytest
from reactivex import operators as ops
from reactivex.testing import TestScheduler

from k2eg_rx import Client, first
from k2eg_rx.errors import WireError
from k2eg_rx.gateway import GatewayOptions, Metrics
from k2eg_rx.gateway.commands.claims import Claims
from k2eg_rx.gateway.commands.messages import OutgoingRecord
from k2eg_rx.gateway.commands.source import ReceivedCommand
from k2eg_rx.gateway.gateway import CommandHandler
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.protocol.decode import decode_body
from k2eg_rx.protocol.msgpack_codec import pack
from k2eg_rx.protocol.replies import decode_reply
from k2eg_rx.pv import monitor_topic
from k2eg_rx.settings import MAX_MESSAGE_BYTES, Settings, load_settings
from k2eg_rx.testing import MemoryBroker, MemoryTransport
from k2eg_rx.transport.interfaces import Record

SOURCE = Path(__file__).parents[2] / "src"
MSGPACK = [("k2eg-ser-type", b"Msgpack")]
JSON = [("k2eg-ser-type", b"Json")]
LIMIT = 1000
PATIENCE = 120.0  # seconds until a test fails; a passing test never waits that long


@pytest.fixture
def broker() -> MemoryBroker:
    broker = MemoryBroker()
    broker.create_topic(monitor_topic("x"))
    return broker


def test_oversized_messages_are_counted_and_not_decoded(broker: MemoryBroker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    settings = Settings("memory", "memory", "commands", "replies", max_message_bytes=LIMIT)
    values: queue.SimpleQueue[str] = queue.SimpleQueue()
    with Client("memory", "app", settings=settings, transport=MemoryTransport(broker)) as client:
        first(client.ready_stream())
        client.monitor_stream("pva://x").subscribe(lambda update: values.put(update.value))
        for topic in (monitor_topic("x"), "replies"):
            for size in (LIMIT, LIMIT + 1, 10 * LIMIT):
                broker.append(topic, _sized("x", size), b"x", MSGPACK)
        broker.append(monitor_topic("x"), pack({"x": {"value": "last"}}), b"x", MSGPACK)
        assert len(values.get(timeout=PATIENCE)) > LIMIT / 2
        assert values.get(timeout=PATIENCE) == "last"
        # two messages of each topic are too large, and the reply that fits has no reply id
        first(client.status_stream().pipe(ops.filter(lambda status: status.discarded == 5)))
    assert caplog.text.count(f"at most {LIMIT} bytes (setting max_message_bytes), got {LIMIT + 1}") == 2


def _sized(name: str, size: int) -> bytes:
    """Returns a message about a PV with a size in bytes."""
    empty = len(pack({name: {"value": "." * 500}})) - 500
    return pack({name: {"value": "." * (size - empty)}})


def test_oversized_commands_are_counted_and_not_decoded() -> None:
    metrics = Metrics()
    handler = CommandHandler({}, GatewayContext(TestScheduler(), metrics, GatewayOptions(max_command_bytes=LIMIT)))
    outgoing_records: list[OutgoingRecord] = []
    for size in (LIMIT, LIMIT + 1):
        command = json.dumps({"command": "x" * (size - 53), "reply_topic": "r", "reply_id": "id"}).encode()
        record = Record("commands", 0, 0, None, command)
        handler.handle(ReceivedCommand(record, Claims().of(record))).subscribe(outgoing_records.append)
        assert len(command) == size
    assert [outgoing.topic for outgoing in outgoing_records] == ["r"]  # the error of an unknown command
    assert (metrics.commands, metrics.poison) == (2, 1)


def test_the_limits_are_set_in_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "site.ini"
    required = "[DEFAULT]\nkafka_broker_url=b:1\nk2eg_cmd_topic=c\n"
    file.write_text(required)
    assert load_settings("site", "app", tmp_path).max_message_bytes == MAX_MESSAGE_BYTES
    file.write_text(required + "max_message_bytes = 123\n[gateway]\nmax_command_bytes = 45\n")
    settings = load_settings("site", "app", tmp_path)
    assert settings.max_message_bytes == 123
    assert GatewayOptions.from_section(settings.section("gateway")).max_command_bytes == 45
    for wrong in ("0", "-1", "many", "1.5"):
        file.write_text(f"{required}max_message_bytes={wrong}\n")
        with pytest.raises(ValueError, match=f"max_message_bytes must be a whole number above 0, got '{wrong}'"):
            load_settings("site", "app", tmp_path)


@pytest.mark.parametrize("depth", [1100, 5000, 1_000_000])
def test_nesting_is_bounded(depth: int) -> None:
    for value, headers in (
        (b"\x81\xa1x" + b"\x91" * depth + b"\x01", MSGPACK),
        (b"\x81\xa1x" + b"\x81\xa1x" * depth + b"\x01", MSGPACK),
        (b'{"x":' + b"[" * depth + b"]" * depth + b"}", JSON),
        (b'{"x":' * depth + b"1" + b"}" * depth, JSON),
    ):
        with pytest.raises(WireError, match="undecodable"):
            decode_body(Record("t", 0, 0, b"x", value, headers))


@pytest.mark.parametrize("wrong", [b"\x91" * 1015 + b"\x01", pack("." * 1_000_000)])
def test_errors_are_short_for_deep_and_long_values(wrong: bytes) -> None:
    body = b"\x82" + pack("reply_id") + pack("id") + pack("error") + wrong
    with pytest.raises(WireError) as caught:
        decode_reply(Record("t", 0, 0, b"x", body, MSGPACK))
    assert len(str(caught.value)) < 200


_FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
_FORBIDDEN_IMPORTS = {"pickle", "cPickle", "shelve", "dill", "jsonpickle", "yaml", "xmlrpc"}
_FORBIDDEN_FROM = _FORBIDDEN_IMPORTS | {"marshal"}
_FORBIDDEN_ATTRIBUTES = {
    ("os", "system"),
    ("os", "popen"),
    ("subprocess", "getoutput"),
    ("marshal", "load"),  # marshal.dumps, which makes keys of tables, executes nothing
    ("marshal", "loads"),
}


def _violations(tree: ast.AST) -> list[str]:
    """Returns the constructs of a module that could execute their input."""
    violations: list[str] = []
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in _FORBIDDEN_CALLS:
                violations.append(name)
            case ast.Attribute(value=ast.Name(id=module), attr=name) if (module, name) in _FORBIDDEN_ATTRIBUTES:
                violations.append(f"{module}.{name}")
            case ast.keyword(arg="shell", value=value) if not (
                isinstance(value, ast.Constant) and value.value is False
            ):
                violations.append("shell")
            case ast.Import(names=names):
                violations += [a.name for a in names if a.name.partition(".")[0] in _FORBIDDEN_IMPORTS]
            case ast.ImportFrom(module=str() as module) if module.partition(".")[0] in _FORBIDDEN_FROM:
                violations.append(module)
            case _:
                pass
    return violations


def test_the_source_executes_no_input() -> None:
    modules = list(SOURCE.rglob("*.py"))
    assert len(modules) > 50
    assert {str(path): found for path in modules if (found := _violations(ast.parse(path.read_text())))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "eval(x)",
        "exec(x)",
        "import pickle",
        "from pickle import loads",
        "import yaml",
        "os.system(x)",
        "f(shell=True)",
        "marshal.loads(x)",
        "from marshal import loads",
    ],
)
def test_violations_are_found(source: str) -> None:
    assert _violations(ast.parse(source))
