"""A bare client of a fleet of gateways, without this library: what it sees is what is in Kafka."""

from __future__ import annotations

import json
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import msgpack
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from k2eg_rx.pv import monitor_topic, snapshot_topic

PATIENCE = 120.0  # seconds until a test fails; a passing test never waits that long
_SILENT = 60  # reads of 50 ms without a record until the consumer is checked


class Application:
    """Sends commands and reads topics, without this library: what it sees is what is in Kafka."""

    def __init__(self, site: Any) -> None:
        self._commands = f"commands-{site.name}"
        self.reply_topic = f"raw-{uuid.uuid4().hex[:8]}"
        self._broker = site.broker
        self._consumer = self._make_consumer()
        self._next: dict[str, int] = {}  # the offset to read next, by topic
        self._admin = AdminClient({"bootstrap.servers": site.broker})
        new = [NewTopic(self.reply_topic, 1), NewTopic(self._commands, 6)]  # so that each gateway gets some commands
        for future in self._admin.create_topics(new).values():
            future.exception(PATIENCE)  # another application may have created the command topic
        self.changed = threading.Condition()
        self.values: dict[str, list[int]] = defaultdict(list)  # by PV
        self.current: dict[str, list[int]] = defaultdict(list)  # without those of an older epoch than seen before
        self.epochs: dict[str, list[str]] = defaultdict(list)  # by Kafka key
        self.iterations: dict[str, list[int]] = defaultdict(list)  # the numbers of the tails, by topic
        self.replies: dict[str, dict[str, Any]] = {}
        self._snapshots: set[str] = set()
        self._closing = threading.Event()
        self._asked = [self.reply_topic]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def follow(self, *topics: str) -> None:
        """Reads topics from their beginning on, which are created before."""
        for future in self._admin.create_topics([NewTopic(topic, 1) for topic in topics]).values():
            future.exception(PATIENCE)
        self._asked += topics

    def _make_consumer(self) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self._broker,
                "group.id": uuid.uuid4().hex,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "topic.metadata.refresh.interval.ms": 100,
            }
        )

    def _run(self) -> None:
        silent = 0
        while not self._closing.is_set():
            while self._asked:
                self._consumer.incremental_assign([TopicPartition(self._asked.pop(0), 0, OFFSET_BEGINNING)])
            messages = self._consumer.consume(500, 0.05)
            for message in messages:
                if message.error() is None:
                    self._next[message.topic() or ""] = (message.offset() or 0) + 1
                    with self.changed:
                        self._add(message)
                        self.changed.notify_all()
            silent = 0 if messages else silent + 1
            if silent == _SILENT:
                silent = 0
                self._replace_if_disconnected()

    def _replace_if_disconnected(self) -> None:
        """Goes on with another consumer if librdkafka has lost its broker for good in a restart (its issue 5301)."""
        try:
            self._consumer.list_topics(self.reply_topic, timeout=2.0)
        except KafkaException:
            old, self._consumer = self._consumer, self._make_consumer()
            self._consumer.assign(
                [TopicPartition(at.topic, 0, self._next.get(at.topic, OFFSET_BEGINNING)) for at in old.assignment()]
            )
            old.close()

    def _add(self, message: Any) -> None:
        headers = dict(message.headers() or ())
        if "k2eg-ser-type" not in headers:
            return
        body = (
            msgpack.unpackb(message.value()) if headers["k2eg-ser-type"] == b"Msgpack" else json.loads(message.value())
        )
        if message.topic() == self.reply_topic:
            self.replies[body["reply_id"]] = body
            return
        key = message.key().decode()
        self.epochs[key].append(headers.get("k2eg-epoch", b"").decode())
        if message.topic() in self._snapshots:
            if body["message_type"] == 2:
                self.iterations[message.topic()].append(body["iter_index"])
        elif "k2eg-repeated" not in headers:
            self.values[key].append(body[key]["value"])
            if self.epochs[key][-1] == max(self.epochs[key]):
                self.current[key].append(body[key]["value"])

    def send(self, command: str, **fields: Any) -> str:
        """Sends a command; returns its id."""
        reply_id = uuid.uuid4().hex
        body = {"command": command, "reply_topic": self.reply_topic, "reply_id": reply_id, "serialization": "msgpack"}
        producer = Producer({"bootstrap.servers": self._broker})  # not one that has lost its broker in a restart
        producer.produce(self._commands, json.dumps({**body, **fields}).encode())
        producer.flush(PATIENCE)
        return reply_id

    def wait_until(self, happened: Callable[[], Any], what: str) -> None:
        with self.changed:
            if not self.changed.wait_for(happened, PATIENCE):
                pytest.fail(f"waited for {what}: {dict(self.values)} {dict(self.iterations)} {self.replies}"[:3000])

    def ask(self, command: str, **fields: Any) -> dict[str, Any]:
        """Sends a command and returns its reply."""
        reply_id = self.send(command, **fields)
        self.wait_until(lambda: reply_id in self.replies, f"the reply to {command}")
        return self.replies[reply_id]

    def monitor(self, uris: Sequence[str], **fields: Any) -> list[str]:
        """Monitors PVs; returns their names."""
        names = [uri.partition("://")[2] for uri in uris]
        self.follow(*map(monitor_topic, names))
        fields = fields or {"uri_keys": True}
        assert self.ask("multi-monitor", pv_name_list=list(uris), activate=True, **fields)["error"] == 0
        return names

    def start(self, name: str, uris: Sequence[str], **properties: Any) -> str:
        """Starts a recurring snapshot; returns its topic."""
        topic = snapshot_topic(name)
        self._snapshots.add(topic)
        self.follow(topic)
        reply = self.ask("repeating_snapshot", snapshot_name=name, pv_name_list=list(uris), **properties)
        assert reply["error"] == 0, reply
        return topic

    def delete(self, topic: str) -> None:
        """Deletes a topic."""
        self._admin.delete_topics([topic])[topic].result(PATIENCE)

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self._consumer.close()


def assert_numbers_go_on(numbers: Sequence[int]) -> None:
    assert list(numbers) == sorted(set(numbers)), "a number is back or there twice"


def owners(application: Application, names: Sequence[str]) -> dict[str, str]:
    """Returns the epoch of the latest event of each PV; it changes with its owner."""
    with application.changed:
        return {name: application.epochs[name][-1] for name in names}


def wait_for_owners(application: Application, names: Sequence[str]) -> None:
    """Waits until the PVs have stopped moving: the group assigns partitions before their owners have changed."""
    before: dict[str, str] = {}
    application.wait_until(lambda: all(application.values[name] for name in names), "values")
    while (now := owners(application, names)) != before:
        before = now
        with application.changed:
            counts = {name: len(application.values[name]) for name in names}
        application.wait_until(
            lambda counts=counts: all(len(application.values[name]) > n + 30 for name, n in counts.items()), "values"
        )


def wait_for_members(site: Any, members: int) -> None:
    """Waits until the group that shares the PVs has as many members, all with partitions."""
    admin, group = AdminClient({"bootstrap.servers": site.broker}), f"gateways-{site.name}-state"
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.1)):
        found = admin.describe_consumer_groups([group])[group].result(PATIENCE).members
        if len(found) == members and all(member.assignment.topic_partitions for member in found):
            return
        pause.wait(0.1)
    pytest.fail(f"the group must have {members} members, got {len(found)}")
