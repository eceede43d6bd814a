"""Clients get history and live updates without gap or duplicate, over each transport."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import reactivex as rx
from reactivex import operators as ops

from k2eg_rx import Client
from k2eg_rx.errors import ClientClosedError, OperationTimeout
from k2eg_rx.protocol.msgpack_codec import pack
from k2eg_rx.pv import monitor_topic
from k2eg_rx.settings import Settings
from k2eg_rx.transport.interfaces import Receiver, Record, RecordSource

PATIENCE = 100.0
HOUR = timedelta(hours=1)
HEADERS = [("k2eg-ser-type", b"Msgpack")]
SECOND = 1_000_000_000


def body(name: str, value: object, time_ns: int | None) -> bytes:
    structure: dict[str, Any] = {"value": value, "alarm": {"severity": 0}}
    if time_ns is not None:
        structure["timeStamp"] = {"secondsPastEpoch": time_ns // SECOND, "nanoseconds": time_ns % SECOND}
    return pack({name: structure})


class Gateway(Receiver):
    """A gateway that acknowledges monitors and publishes the values that a test gives it."""

    def __init__(self, bench: Any) -> None:
        self.suffix = uuid.uuid4().hex[:8]
        self.commands, self.replies = f"commands-{self.suffix}", f"replies-{self.suffix}"
        self._bench = bench
        self._sink = bench.sink()
        self.activated: list[str] = []
        self.changed = threading.Condition()
        bench.backend.create_topic(self.commands)
        source: RecordSource = bench.events(self)
        source.read(self.commands).result(PATIENCE)

    def ready(self) -> bool:
        return True

    def receive(self, records: Sequence[Record]) -> None:
        for record in records:
            command = json.loads(record.value or b"{}")
            with self.changed:
                self.activated.extend(command.get("pv_name_list") or [command["pv_name"]])
                self.changed.notify_all()
            reply = pack({"error": 0, "reply_id": command["reply_id"], "message": "yes"})
            self._sink.send(command["reply_topic"], reply, key=b"k", headers=HEADERS)

    def wait_for_activation(self, *names: str) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: set(self.activated) >= {f"pva://{name}" for name in names}, PATIENCE)

    def settings(self) -> Settings:
        address = getattr(self._bench.backend, "address", None) or getattr(
            getattr(self._bench.backend, "_broker", None), "address", "memory:1"
        )
        return Settings("contract", address, self.commands, self.replies)

    def pv(self, name: str = "pv", partitions: int = 3) -> str:
        """Creates the topic of a new PV; returns the PV's name."""
        name = f"{name}:{self.suffix}:{len(self._bench.topic(None))}{uuid.uuid4().hex[:4]}"
        self._bench.backend.create_topic(monitor_topic(name), partitions)
        return name

    def publish(self, name: str, *values: object, at: int | None = None, timed: bool = True) -> None:
        """Publishes values and waits for their delivery. A value's time is the current one, or `at` plus its index."""
        sent = threading.Semaphore(0)
        for n, value in enumerate(values):
            time_ns = time.time_ns() if at is None else at + n
            self._sink.send(
                monitor_topic(name),
                body(name, value, time_ns if timed else None),
                key=name.encode(),
                headers=HEADERS,
                on_delivery=lambda error: sent.release(),
            )
        for _ in values:
            assert sent.acquire(timeout=PATIENCE)


class Subscriber:
    """A subscriber that records its notifications; with `hold`, it blocks until `gate` is set."""

    def __init__(self, stream: rx.Observable[Any], *, hold: bool = False) -> None:
        self.changed = threading.Condition()
        self.updates: list[Any] = []
        self.errors: list[Exception] = []
        self.completed = False
        self.gate = threading.Event()
        if not hold:
            self.gate.set()
        self.subscription = stream.subscribe(self._take, self._fail, self._complete)

    def _take(self, update: Any) -> None:
        self.gate.wait(PATIENCE)
        with self.changed:
            self.updates.append(update)
            self.changed.notify_all()

    def _fail(self, error: Exception) -> None:
        with self.changed:
            self.errors.append(error)
            self.changed.notify_all()

    def _complete(self) -> None:
        with self.changed:
            self.completed = True
            self.changed.notify_all()

    def wait(self, happened: Callable[[], bool]) -> None:
        with self.changed:
            if not self.changed.wait_for(happened, PATIENCE):
                pytest.fail(f"{len(self.updates)} updates, the last {self.values[-5:]}, {self.errors}")

    def wait_for(self, value: object) -> None:
        self.wait(lambda: bool(self.updates) and self.updates[-1].value == value)

    def wait_for_end(self) -> None:
        self.wait(lambda: self.completed or bool(self.errors))

    @property
    def values(self) -> list[Any]:
        return [update.value for update in self.updates]

    @property
    def replayed(self) -> list[Any]:
        return [update.value for update in self.updates if update.replayed]


@pytest.fixture
def gateway(bench) -> Gateway:
    return Gateway(bench)


@pytest.fixture
def clients(bench, gateway) -> Iterator[Callable[..., Client]]:
    opened: list[Client] = []

    def open_client(**arguments: Any) -> Client:
        transport = bench.another_transport()
        opened.append(Client("contract", "test", settings=gateway.settings(), transport=transport, **arguments))
        return opened[-1]

    yield open_client
    for client in opened:
        client.close()


@pytest.fixture
def client(clients) -> Client:
    return clients()


def test_history_comes_first_and_then_live_updates(client, gateway):
    pv = gateway.pv()
    gateway.publish(pv, *range(100))
    subscriber = Subscriber(client.monitor_stream(f"pva://{pv}", since=HOUR))
    subscriber.wait_for(99)
    gateway.publish(pv, *range(100, 150))
    subscriber.wait_for(149)
    assert subscriber.values == list(range(150))
    assert subscriber.replayed[:100] == list(range(100))
    assert not subscriber.updates[-1].replayed
    gateway.wait_for_activation(pv)  # this gateway publishes no value at an activation
    assert gateway.activated == [f"pva://{pv}"]


def test_updates_before_the_start_are_not_delivered(client, gateway):
    pv = gateway.pv()
    now = time.time_ns()
    gateway.publish(pv, "old", at=now - 30 * SECOND)
    gateway.publish(pv, "new", at=now - 5 * SECOND)
    for since in (timedelta(seconds=20), datetime.now(UTC) - timedelta(seconds=20)):
        subscriber = Subscriber(client.monitor_stream(f"pva://{pv}", since=since))
        subscriber.wait_for("new")
        assert (subscriber.values, subscriber.replayed) == (["new"], ["new"])


def test_no_update_is_lost_or_repeated_while_the_gateway_publishes(clients, gateway):
    pv = gateway.pv()
    stop = threading.Event()
    published: list[int] = []

    def publish() -> None:
        while not stop.is_set():
            start = len(published)
            gateway.publish(pv, *range(start, start + 20))
            published.extend(range(start, start + 20))
            stop.wait(0.01)  # a thousand updates a second or so: at full speed no reader would catch up

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        client = clients()
        live = Subscriber(client.monitor_stream(f"pva://{pv}"))
        subscribers = [
            Subscriber(client.monitor_stream(f"pva://{pv}", since=HOUR, capacity=capacity))
            for capacity in (5, 50, 1000)
        ]
        subscribers += [Subscriber(clients().monitor_stream(f"pva://{pv}", since=HOUR)) for _ in range(2)]
        for subscriber in subscribers:
            subscriber.wait(
                lambda subscriber=subscriber: bool(subscriber.updates) and not subscriber.updates[-1].replayed
            )
    finally:
        stop.set()
        publisher.join()
    for subscriber in [live, *subscribers]:
        subscriber.wait_for(published[-1])
    for subscriber in subscribers:
        assert subscriber.values == published
        first_live = next(n for n, update in enumerate(subscriber.updates) if not update.replayed)
        assert not any(update.replayed for update in subscriber.updates[first_live:])
    assert live.values == published[live.values[0] :]
    assert live.replayed == []


def test_a_slow_subscriber_to_history_does_not_delay_others(client, gateway):
    """While it is behind, its updates are read from Kafka, in order and without loss."""
    pv = gateway.pv()
    gateway.publish(pv, *range(500))
    slow = Subscriber(client.monitor_stream(f"pva://{pv}", since=HOUR, capacity=10), hold=True)
    live = Subscriber(client.monitor_stream(f"pva://{pv}", capacity=10))
    gateway.wait_for_activation(pv)
    for n in range(500, 1000, 10):
        gateway.publish(pv, *range(n, n + 10))
        live.wait_for(n + 9)
    assert slow.values == []
    slow.gate.set()
    slow.wait_for(999)
    gateway.publish(pv, 1000)
    slow.wait_for(1000)
    assert slow.values == list(range(1001))
    live.wait_for(1000)
    assert live.values[-500:] == list(range(501, 1001))


def test_several_pvs_are_merged_by_event_time(client, gateway):
    names = [gateway.pv(f"pv{n}") for n in range(3)]
    start = time.time_ns() - 60 * SECOND
    for n, name in enumerate(names):
        for step in range(40):
            gateway.publish(name, step * 3 + n, at=start + (step * 3 + n) * 1_000_000)
    uris = [f"pva://{name}" for name in names]
    subscriber = Subscriber(client.monitor_many_stream(uris, since=HOUR))
    subscriber.wait(lambda: len(subscriber.updates) >= 120)
    assert subscriber.values == list(range(120))
    replay = Subscriber(client.replay_stream(uris, HOUR))
    replay.wait_for_end()
    assert (replay.values, replay.completed) == (list(range(120)), True)


def test_a_pv_without_updates_since_the_start_has_its_last_value(client, gateway):
    pv = gateway.pv()
    live = Subscriber(client.monitor_stream(f"pva://{pv}"))
    subscriber = Subscriber(client.monitor_stream(f"pva://{pv}", since=timedelta(seconds=1)))
    gateway.wait_for_activation(pv)
    gateway.publish(pv, "old", at=time.time_ns() - 30 * SECOND)
    live.wait_for("old")
    subscriber.wait_for("old")
    late = Subscriber(client.monitor_stream(f"pva://{pv}", since=timedelta(seconds=1)))
    late.wait_for("old")
    gateway.publish(pv, "new")
    for each in (live, subscriber, late):
        each.wait_for("new")
        assert each.values == ["old", "new"]
    assert late.replayed == []


def test_a_pv_without_a_topic_has_no_history(client, gateway):
    pv = f"later:{gateway.suffix}"
    subscriber = Subscriber(client.monitor_stream(f"pva://{pv}", since=HOUR))
    gateway.wait_for_activation(pv)
    gateway._bench.backend.create_topic(monitor_topic(pv), 3)
    gateway.publish(pv, 1, 2)
    subscriber.wait_for(2)
    assert subscriber.values == [1, 2]


def test_a_value_published_again_for_another_client_is_delivered_once(client, gateway):
    pv = gateway.pv()
    at = time.time_ns()
    for _ in range(3):
        gateway.publish(pv, 1, at=at)
    subscriber = Subscriber(client.monitor_stream(f"pva://{pv}", since=HOUR))
    subscriber.wait_for(1)
    gateway.publish(pv, 1, at=at)
    gateway.publish(pv, 2)
    subscriber.wait_for(2)
    assert subscriber.values == [1, 2]


def test_pvs_that_share_a_topic_are_separated(client, gateway):
    colon, under = f"a:{gateway.suffix}", f"a_{gateway.suffix}"
    gateway._bench.backend.create_topic(monitor_topic(colon), 3)
    for n in range(20):
        gateway.publish(colon, ("colon", n))
        gateway.publish(under, ("under", n))
    replay = Subscriber(client.replay_stream([f"pva://{under}"], HOUR))
    replay.wait_for_end()
    assert replay.values == [["under", n] for n in range(20)]


def test_an_interval_includes_its_start_and_excludes_its_stop(client, gateway):
    pv = gateway.pv()
    start = (time.time_ns() // SECOND - 60) * SECOND
    for n in range(10):
        gateway.publish(pv, n, at=start + n * SECOND)
    first_time = datetime.fromtimestamp(start // SECOND, UTC)
    replay = Subscriber(
        client.replay_stream([f"pva://{pv}"], first_time + timedelta(seconds=2), first_time + timedelta(seconds=5))
    )
    replay.wait_for_end()
    assert replay.values == [2, 3, 4]
    assert all(update.replayed for update in replay.updates)


def test_an_event_without_a_time_is_selected_by_kafkas_timestamp(client, gateway):
    pv = gateway.pv()
    gateway.publish(pv, "timeless", timed=False)
    gateway.publish(pv, "last")
    replay = Subscriber(client.replay_stream([f"pva://{pv}"], timedelta(seconds=30)))
    replay.wait_for_end()
    assert replay.values == ["timeless", "last"]


def test_an_empty_replay_completes(client, gateway):
    existing, missing = gateway.pv(), "pva://no:such:pv"
    for uri in (f"pva://{existing}", missing):
        replay = Subscriber(client.replay_stream([uri], HOUR))
        replay.wait_for_end()
        assert (replay.updates, replay.completed) == ([], True)
    assert gateway.activated == []


def test_a_replay_at_a_speed_keeps_the_intervals(client, gateway):
    pv = gateway.pv()
    start = time.time_ns() - 600 * SECOND
    for n in range(4):
        gateway.publish(pv, n, at=start + n * 60 * SECOND)
    started = time.monotonic()
    replay = Subscriber(client.replay_stream([f"pva://{pv}"], HOUR, speed=600))
    replay.wait_for_end()
    assert replay.values == [0, 1, 2, 3]
    assert time.monotonic() - started >= 0.3  # three minutes at speed 600


def test_a_slow_subscriber_to_a_replay_gets_all_updates(client, gateway):
    pv = gateway.pv()
    gateway.publish(pv, *range(2000))
    replay = Subscriber(client.replay_stream([f"pva://{pv}"], HOUR, capacity=7), hold=True)
    other = Subscriber(client.replay_stream([f"pva://{pv}"], HOUR))
    other.wait_for_end()
    assert replay.values == []
    replay.gate.set()
    replay.wait_for_end()
    assert replay.values == other.values == list(range(2000))


def test_an_undecodable_record_is_skipped_and_counted(client, gateway):
    pv = gateway.pv()
    gateway.publish(pv, 1)
    gateway._bench.send(monitor_topic(pv), b"\xc1", key=pv.encode())
    gateway.publish(pv, 2)
    replay = Subscriber(client.replay_stream([f"pva://{pv}"], HOUR))
    replay.wait_for_end()
    assert replay.values == [1, 2]
    assert client.status.discarded == 1


def test_unsubscribing_ends_the_history_reader(client, gateway):
    pv = gateway.pv()
    gateway.publish(pv, *range(2000))
    streams = [client.monitor_stream(f"pva://{pv}", since=HOUR, capacity=5)]
    streams.append(client.replay_stream([f"pva://{pv}"], HOUR, speed=0.001))
    for stream in streams:
        subscriber = Subscriber(stream.pipe(ops.take(3)))
        subscriber.wait_for_end()
        assert subscriber.values == [0, 1, 2]
    wait_until_no_reader()
    assert client.status.monitors == 0


def test_closing_the_client_ends_its_replays(client, gateway):
    pv = gateway.pv()
    gateway.publish(pv, *range(2000))
    monitor = Subscriber(client.monitor_stream(f"pva://{pv}", since=HOUR, capacity=5), hold=True)
    replay = Subscriber(client.replay_stream([f"pva://{pv}"], HOUR, speed=0.001))
    replay.wait(lambda: len(replay.updates) == 1)
    closer = threading.Thread(target=client.close)
    closer.start()
    wait_until_no_reader()
    monitor.gate.set()
    closer.join(PATIENCE)
    assert isinstance(replay.errors[0], ClientClosedError)
    monitor.wait_for_end()
    assert monitor.completed
    assert monitor.values == list(range(len(monitor.values)))


def test_a_replay_fails_after_the_timeout_if_the_broker_is_unavailable_and_a_monitor_waits(clients, gateway, bench):
    client = clients(timeout=1.5)
    pv = gateway.pv()
    gateway.publish(pv, 1)
    bench.backend.go_down()
    replay = Subscriber(client.replay_stream([f"pva://{pv}"], HOUR))
    monitor = Subscriber(client.monitor_stream(f"pva://{pv}", since=HOUR))
    replay.wait_for_end()
    (error,) = replay.errors
    assert isinstance(error, OperationTimeout)
    assert f"pva://{pv}" in str(error)
    bench.backend.come_up()
    monitor.wait_for(1)
    assert not monitor.errors
    wait_until_no_reader()


def test_history_continues_after_an_outage(clients, gateway, bench):
    client = clients(timeout=50.0)  # a broker may take long to start
    pv = gateway.pv()
    gateway.publish(pv, *range(3000))
    subscribers = [
        Subscriber(client.monitor_stream(f"pva://{pv}", since=HOUR, capacity=5), hold=True),
        Subscriber(client.replay_stream([f"pva://{pv}"], HOUR, capacity=5), hold=True),
    ]
    gateway.wait_for_activation(pv)
    bench.backend.go_down()
    for subscriber in subscribers:
        subscriber.gate.set()
    bench.backend.come_up()
    for subscriber in subscribers:
        subscriber.wait_for(2999)
    gateway.publish(pv, 3000)
    subscribers[0].wait_for(3000)
    assert subscribers[0].values == list(range(3001))
    subscribers[1].wait_for_end()
    assert (subscribers[1].values, subscribers[1].completed) == (list(range(3000)), True)


def test_a_group_shares_no_history_but_each_member_may_replay(clients, gateway):
    client = clients(group_name="group")
    pv = gateway.pv()
    gateway.publish(pv, 1, 2)
    with pytest.raises(ValueError, match="group_name"):
        client.monitor_stream(f"pva://{pv}", since=HOUR)
    replay = Subscriber(client.replay_stream([f"pva://{pv}"], HOUR))
    replay.wait_for_end()
    assert replay.values == [1, 2]


def wait_until_no_reader() -> None:
    """Waits for the threads of history tasks, which end soon after their subscription."""
    for thread in threading.enumerate():
        if thread.name == "k2eg-history":
            thread.join(PATIENCE)
            assert not thread.is_alive()
