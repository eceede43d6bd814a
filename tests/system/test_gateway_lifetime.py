"""Start, operation and close of a gateway over Kafka in memory and an embedded broker."""

from __future__ import annotations

import itertools
import json
import logging
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from k2eg_rx.embedded.broker import EmbeddedBroker
from k2eg_rx.embedded.ioc import SoftIoc
from k2eg_rx.embedded.loopback import HOST, free_ports, without_epics
from k2eg_rx.errors import TransportError
from k2eg_rx.gateway import Gateway, GatewayOptions, PVReading
from k2eg_rx.gateway.commands.channels import Channels
from k2eg_rx.gateway.commands.topics import Topics
from k2eg_rx.gateway.commands.update_queue import UpdateQueue
from k2eg_rx.gateway.epics.pva_provider import PVAccessProvider
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.gateway.runtime.event_loop import EventLoop, call_soon
from k2eg_rx.gateway.runtime.metrics import Metrics
from k2eg_rx.kafka import KafkaTransport
from k2eg_rx.kafka.metadata.topic_admin import KafkaTopicAdmin
from k2eg_rx.protocol import connection_event, decode_notice, is_notice
from k2eg_rx.protocol.decode import decode_body
from k2eg_rx.protocol.structures import Structure
from k2eg_rx.pv import PVAddress
from k2eg_rx.settings import Settings
from k2eg_rx.testing import MemoryBroker, MemoryTransport
from k2eg_rx.transport.interfaces import Receiver, Record, Transport

COMMANDS = "commands"
BIG = "b" * 3000
SECONDS = 20.0  # timeout for operations that take milliseconds on an idle machine


class Subscription:
    def __init__(self) -> None:
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


class Provider:
    """Returns a PV's name as its value, `BIG` for `big`; gets of `slow` never complete, those of `raises` raise."""

    def __init__(self) -> None:
        self.gets = threading.Semaphore(0)
        self.subscribed: dict[str, tuple[Subscription, Callable[[Structure], None]]] = {}
        self.changed = threading.Condition()

    def get(self, address: PVAddress, timeout: float) -> Future[PVReading]:
        future: Future[PVReading] = Future()
        if address.base == "raises":
            raise RuntimeError("failed")
        if address.base != "slow":
            future.set_result(PVReading({"value": BIG if address.base == "big" else address.name}))
        self.gets.release()
        return future

    def put(
        self,
        address: PVAddress,
        fields: Mapping[str, Any],
        timeout: float,
        *,
        wait: bool = False,
        on_written: Callable[[], None] = lambda: None,
        may_send: Callable[[], bool] = lambda: True,
    ) -> Future[None]:
        future: Future[None] = Future()
        if may_send():
            future.set_result(None)
        return future

    def subscribe(
        self,
        address: PVAddress,
        on_update: Callable[[Structure], None],
        on_connection: Callable[[bool], None],
        on_unreadable: Callable[[], None] = lambda: None,
    ) -> Subscription:
        subscription = Subscription()
        with self.changed:
            self.subscribed[address.name] = (subscription, on_update)
            self.changed.notify_all()
        return subscription

    def subscriber_of(self, name: str) -> Callable[[Structure], None]:
        with self.changed:
            assert self.changed.wait_for(lambda: name in self.subscribed, SECONDS)
            return self.subscribed[name][1]

    def close(self) -> None:
        pass


class Reader(Receiver):
    """A receiver that reads topics of a transport and waits for records."""

    def __init__(self, transport: Transport, *topics: str) -> None:
        self.records: list[Record] = []
        self.changed = threading.Condition()
        self.source = transport.events(self, None)
        for topic in topics:
            self.source.read(topic).result(SECONDS)

    def ready(self) -> bool:
        return True

    def receive(self, records: Sequence[Record]) -> None:
        with self.changed:
            self.records.extend(record for record in records if connection_event(record) is None)
            self.changed.notify_all()

    def bodies(self, count: int) -> list[dict[str, Any]]:
        """Waits for a number of records; returns their bodies, without notices."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.records) >= count, SECONDS), self.records
            return [decode_body(record) for record in self.records if not is_notice(record)]


class GatewayUnderTest:
    """A gateway over a transport, with a sink for commands and a reader of replies."""

    def __init__(self, transport: Transport, **options: Any) -> None:
        self.provider = Provider()
        self.options = GatewayOptions(create_topics=False, monitor_expiration=0, **options)
        self.gateway = Gateway(transport, {"pva": self.provider}, self.options, COMMANDS)
        self.sink = transport.sink()
        self.reader = Reader(transport, "replies", "a")

    def send_command(self, command: str, reply_id: str = "id", **fields: Any) -> None:
        body = {"command": command, "reply_topic": "replies", "reply_id": reply_id, "serialization": "json"}
        body |= {"uri_keys": True} | fields  # as this library's clients: the others get first values once more
        self.sink.send(COMMANDS, json.dumps(body).encode())

    def close(self) -> None:
        self.gateway.close()
        self.reader.source.close(1.0)
        self.sink.close(1.0)


@pytest.fixture
def memory() -> Iterator[GatewayUnderTest]:
    transport = MemoryTransport(MemoryBroker())
    bench = GatewayUnderTest(transport)
    yield bench
    bench.close()
    transport.close(1.0)


@pytest.fixture
def settings() -> Iterator[Settings]:
    with EmbeddedBroker() as broker:
        # A rebalance of this broker can take the time of a session less one second.
        source = {"fetch.wait.max.ms": "5", "session.timeout.ms": "6000", "heartbeat.interval.ms": "100"}
        yield Settings("test", broker.address, COMMANDS, "replies", source)


@pytest.fixture
def threads_of_the_gateway() -> Callable[[], list[str]]:
    """Returns the names of the gateway threads that this test has started."""
    others = set(threading.enumerate())

    def names() -> list[str]:
        own = set(threading.enumerate()) - others
        return [thread.name for thread in own if thread.name.startswith("k2eg-gateway")]

    return names


def test_commands_are_answered_over_kafka_once_start_returns(settings: Settings) -> None:
    transport = KafkaTransport(settings)
    bench = GatewayUnderTest(transport)
    try:
        bench.gateway.start()
        bench.send_command("get", pv_name="pva://x")
        bench.send_command("monitor", "m", pv_name="pva://a", monitor_dest_topic="a")
        post_value = bench.provider.subscriber_of("a")
        for value in range(100):
            post_value({"value": value})
        bodies = bench.reader.bodies(102)
    finally:
        bench.close()
        transport.close(1.0)
    assert [body["a"]["value"] for body in bodies if "a" in body] == list(range(100))
    assert {"error": 0, "reply_id": "id", "x": {"value": "x"}} in bodies


def test_updates_are_published_if_the_thread_that_was_to_wake_the_gateway_is_held_up(
    memory: GatewayUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.gateway.start()
    memory.send_command("monitor", pv_name="pva://a", monitor_dest_topic="replies")
    post_value = memory.provider.subscriber_of("a")
    with monkeypatch.context() as patch:
        patch.setattr(UpdateQueue, "_wake", lambda _: None)
        post_value({"value": 1})
    post_value({"value": 2})
    assert [body["a"] for body in memory.reader.bodies(3) if "a" in body] == [{"value": 1}, {"value": 2}]


def test_values_that_kafka_does_not_accept_are_answered_by_small_records(settings: Settings) -> None:
    settings = replace(settings, producer={"message.max.bytes": "2000"})
    transport = KafkaTransport(settings)
    bench = GatewayUnderTest(transport)
    try:
        bench.gateway.start()
        bench.send_command("get", "g", pv_name="pva://big")
        bench.send_command("monitor", "m", pv_name="pva://a", monitor_dest_topic="a")
        bench.provider.subscriber_of("a")({"value": BIG})
        bench.provider.subscriber_of("a")({"value": 1})
        bench.send_command("snapshot", "s", pv_name_list=["pva://c"])
        bench.provider.subscriber_of("c")({"value": BIG})
        bodies, number = bench.reader.bodies(6), 6
        while {"error": 1, "reply_id": "s"} not in bodies or {"a": {"value": 1}} not in bodies:
            number += 1  # values may be published once more
            bodies = bench.reader.bodies(number)
    finally:
        bench.close()
        transport.close(1.0)
    get, snapshot = ([body for body in bodies if body.get("reply_id") == reply_id] for reply_id in "gs")
    assert (get[0]["error"], len(get)) == (-2, 1)
    assert "bytes, which Kafka does not accept" in get[0]["message"]
    assert [body["error"] for body in snapshot] == [-2, 1], "before the end of the snapshot"
    (notice,) = [decode_notice(record) for record in bench.reader.records if is_notice(record)]
    assert (notice.pv_name, notice.lost) == ("a", 1)
    assert "bytes, which Kafka does not accept" in notice.reason
    assert {"a": {"value": 1}} in bodies


def test_two_gateways_of_a_group_share_the_commands(settings: Settings) -> None:
    transport = KafkaTransport(settings)
    first, second = GatewayUnderTest(transport), GatewayUnderTest(transport)
    sent = itertools.count()

    def times_answered() -> list[int]:
        """Sends gets to all partitions; returns how often each was answered once all are."""
        ids = [str(next(sent)) for _ in range(40)]
        for reply_id in ids:
            first.send_command("get", reply_id, pv_name=f"pva://x{reply_id}")
        replies: Counter[str] = Counter()
        with first.reader.changed:
            while not replies.keys() >= set(ids):
                assert first.reader.changed.wait(SECONDS), f"no reply to {set(ids) - replies.keys()}"
                replies = Counter(str(decode_body(record)["reply_id"]) for record in first.reader.records)
        return [replies[reply_id] for reply_id in ids]

    try:
        first.gateway.start()
        assert times_answered() == [1] * 40
        assert not second.provider.gets.acquire(blocking=False)
        second.gateway.start()
        while not second.provider.gets.acquire(blocking=False):  # the rebalance may take some rounds
            times_answered()
        assert times_answered() == [1] * 40
    finally:
        first.close()
        second.close()
        transport.close(1.0)


def test_closing_answers_pending_commands_and_ends_all_threads(
    memory: GatewayUnderTest, threads_of_the_gateway: Callable[[], list[str]]
) -> None:
    memory.gateway.start()
    memory.send_command("monitor", "m", pv_name="pva://a", monitor_dest_topic="a")
    memory.provider.subscriber_of("a")({"value": 1})
    memory.reader.bodies(2)
    memory.send_command("get", "g", pv_name="pva://slow")
    assert memory.provider.gets.acquire(timeout=SECONDS)
    memory.gateway.close()
    memory.gateway.close()
    assert memory.reader.bodies(3)[-1] == {
        "error": -2,
        "reply_id": "g",
        "message": "the gateway is stopping: the get may still be carried out",
    }
    assert memory.provider.subscribed["a"][0].closed.is_set()
    assert threads_of_the_gateway() == []


def test_invalid_records_of_the_command_topic_do_not_stop_the_gateway(memory: GatewayUnderTest) -> None:
    memory.gateway.start()
    for value in (b"", b"\xff", b"{}", b"[]", b'{"command": 3}', b"[" * 100_000, b'{"command":"get"}'):
        memory.sink.send(COMMANDS, value)
    memory.send_command("get", "r", pv_name="pva://raises")
    memory.send_command("get", "n", pv_name="ca://not:spoken")
    memory.send_command("nonsense", "o")
    memory.send_command("get", "g", pv_name="pva://x")
    by_id = {body["reply_id"]: body["error"] for body in memory.reader.bodies(4)}
    assert by_id == {"r": -2, "n": -2, "o": -1, "g": 0}
    metrics: Metrics = memory.gateway.metrics
    assert metrics.poison == 7
    assert metrics.commands == 11


def test_more_commands_than_max_pending_are_all_answered() -> None:
    transport = MemoryTransport(MemoryBroker())
    bench = GatewayUnderTest(transport, max_pending=2, operation_timeout=0.3)
    try:
        bench.gateway.start()
        for number in range(3):
            bench.send_command("get", f"slow{number}", pv_name="pva://slow")
        bench.send_command("get", "fast", pv_name="pva://x")
        bodies = bench.reader.bodies(4)
    finally:
        bench.close()
        transport.close(1.0)
    assert {body["reply_id"]: body["error"] for body in bodies} == {"slow0": -3, "slow1": -3, "slow2": -3, "fast": 0}


def test_start_fails_without_a_broker(threads_of_the_gateway: Callable[[], list[str]]) -> None:
    (port,) = free_ports(1)
    transport = KafkaTransport(Settings("test", f"{HOST}:{port}", COMMANDS, "replies"))
    gateway = Gateway(transport, {}, GatewayOptions(create_topics=False), COMMANDS)
    try:
        with pytest.raises(TransportError, match="command topic 'commands'"):
            gateway.start(timeout=0.5)
    finally:
        gateway.close(1.0)
        transport.close(1.0)
    assert threads_of_the_gateway() == []


def test_admin_requests_that_the_broker_does_not_support_time_out(settings: Settings) -> None:
    admin = KafkaTopicAdmin(settings)
    with pytest.raises(TransportError, match="cannot create topics"):
        admin.create({"a": 3, "b": 1})
    assert admin.listeners() is None
    admin.close()


def test_the_event_loop_continues_after_an_exception(threads_of_the_gateway: Callable[[], list[str]]) -> None:
    failures: list[int] = []
    loop = EventLoop(lambda: failures.append(1))
    names: list[str] = []
    done = threading.Event()

    def fail() -> None:
        raise RuntimeError("failed")

    def succeed() -> None:
        names.append(threading.current_thread().name)
        done.set()

    call_soon(loop, fail)
    call_soon(loop, succeed)
    assert done.wait(SECONDS)
    assert (failures, names) == ([1], ["k2eg-gateway"])
    loop.close(SECONDS)
    call_soon(loop, succeed)
    assert threads_of_the_gateway() == []


class InstantTopicAdmin:
    """Creates every topic at once; no topic has listeners."""

    def create(self, topics: Mapping[str, int]) -> Mapping[str, str]:
        return {}

    def listeners(self) -> Mapping[str, int] | None:
        return {}

    def end_offsets(self, topics: Any) -> dict[str, int]:
        return {}

    def delete(self, topics: Any) -> dict[str, str]:
        return {}

    def close(self) -> None:
        pass


def test_a_missing_topic_while_the_event_loop_closes_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    failures: list[int] = []
    loop = EventLoop(lambda: failures.append(1))
    topics = Topics(InstantTopicAdmin(), loop, create=True)
    created, late = threading.Event(), threading.Event()

    def create() -> None:
        topics.ensure("a", 3).subscribe(on_completed=created.set)

    call_soon(loop, create)
    assert created.wait(SECONDS)
    running, all_queued, closed = threading.Event(), threading.Event(), threading.Event()

    def block() -> None:
        running.set()
        assert all_queued.wait(SECONDS)

    def recreate() -> None:
        running.set()
        assert closed.wait(SECONDS)
        topics.recreate("a", late.set)

    call_soon(loop, block)
    assert running.wait(SECONDS)
    running.clear()
    for action in (recreate, late.set):  # both due when the first action ends
        call_soon(loop, action)
    all_queued.set()
    assert running.wait(SECONDS)
    loop.close(0.0)
    closed.set()
    loop.close(SECONDS)
    topics.close(SECONDS)
    assert (failures, caplog.text, late.is_set()) == ([], "", False)


class Lines(logging.Handler):
    """A handler whose messages a test waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: SimpleQueue[str] = SimpleQueue()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.put(record.getMessage())


@pytest.fixture
def connection_lines() -> Iterator[SimpleQueue[str]]:
    log, lines = logging.getLogger("k2eg_rx.gateway.commands.connections"), Lines()
    level = log.level
    log.addHandler(lines)
    log.setLevel(logging.INFO)
    yield lines.texts
    log.removeHandler(lines)
    log.setLevel(level)


def test_a_stopped_ioc_is_one_line_and_its_return_another(tmp_path: Path, connection_lines: SimpleQueue[str]) -> None:
    (tmp_path / "x.db").write_text("".join(f'record(ao, "x{n}") {{ field(PINI, "YES") }}\n' for n in range(50)))
    loop = EventLoop(lambda: None)
    context = GatewayContext(loop)
    updates = threading.Semaphore(0)
    ioc = SoftIoc(tmp_path / "x.db")
    with ioc:
        provider = PVAccessProvider(ioc.client_environment)
        channels = Channels({"pva": provider}, UpdateQueue(context), context)

        def subscribe() -> None:
            for number in range(50):
                channels.stream(PVAddress.parse(f"pva://x{number}")).subscribe(lambda _: updates.release())

        call_soon(loop, subscribe)
        for _ in range(50):
            assert updates.acquire(timeout=SECONDS)
        assert context.metrics.pvs_connected == 50
    lost = connection_lines.get(timeout=SECONDS)
    assert lost.startswith("EPICS server lost: protocol=pva pvs=50 names=x")
    assert lost.endswith(" and 45 more")
    assert context.metrics.pvs_disconnected == 50
    with ioc:
        back = connection_lines.get(timeout=3 * SECONDS)  # p4p searches less often after a while
    provider.close()
    loop.close(SECONDS)
    assert back.startswith("EPICS server is back: protocol=pva pvs=50 of 50 away=")


def run(tmp_path: Path, text: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "test.ini").write_text(text)
    code = (
        "import sys; from k2eg_rx.gateway.service import run_gateway; from k2eg_rx.settings import load_settings;"
        "sys.exit(run_gateway(load_settings('test', 'gateway')))"
    )
    variables = without_epics(os.environ) | {
        "K2EG_PYTHON_CONFIGURATION_PATH_FOLDER": str(tmp_path),
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
        "EPICS_PVA_AUTO_ADDR_LIST": "NO",
    }
    return subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def test_an_invalid_environment_gives_an_exit_code_and_a_log_line(tmp_path: Path) -> None:
    done = run(tmp_path, "[DEFAULT]\nkafka_broker_url=x:1\nk2eg_cmd_topic=c\n[gateway]\ncreate_topics=maybe\n")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "create_topics must be 'yes' or 'no', got 'maybe'" in done.stderr
