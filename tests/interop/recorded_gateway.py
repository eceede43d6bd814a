"""A stand-in for the deployed gateway: its recorded messages, and what clients have to bear of it.

Structures, keys, texts and codes are those of tests/data/recorded.jsonl, with the values and times of simulated PVs. As
the deployed gateway, it makes the topics of monitors one after the other and replies then, refreshes a monitor that is
asked for again with an older value after newer ones, writes 16-bit integers as unsigned, acknowledges PVs that do not
exist, and publishes one more iteration of a recurring snapshot that is stopped. It writes no headers but one.

With `numbered`, recurring snapshots have sequence numbers and what these are for: the tail comes before the last data
message and after the next iteration's header, and data messages come in reverse order where no partial pushes tell
their order.

Thread safety: commands run on threads of a pool, values change on another; one lock guards both.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgpack
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

RECORDED = Path(__file__).parents[1] / "data" / "recorded.jsonl"
HEADERS: list[tuple[str, str | bytes | None]] = [("k2eg-ser-type", b"Msgpack")]
MONITOR_KEY, SNAPSHOT_KEY, RECURRING_KEY = "monitor-error-key", "snapshot-dist-key", "repeating-snapshot-events"
TICK = 0.1  # seconds between the values of counters
GIVES_UP = 2.0  # seconds until a PV that does not exist is reported; the deployed gateway takes 10
TOPIC_SECONDS = 0.2  # to make a topic; the deployed gateway takes up to 0.5
# Seconds after the reply at which a monitor's value is published: the deployed gateway's clients have joined by then.
FIRST_VALUES = (1.0, 4.0)
STILL = {"still1": 41.0, "still2": 42.0, "still3": 43.0, "still4": 44.0}


def recorded_structures() -> dict[str, dict[str, Any]]:
    """Returns a recorded structure of each PV, by its name."""
    found: dict[str, dict[str, Any]] = {}
    for line in RECORDED.read_text().splitlines():
        message = json.loads(line)
        if "/json" not in message["case"]:
            body = msgpack.unpackb(base64.b64decode(message["value_b64"])) if is_msgpack(message) else {}
            found.update({name: body[name] for name in body if isinstance(body[name], dict)})
    return found


def is_msgpack(message: dict[str, Any]) -> bool:
    return ["k2eg-ser-type", "Msgpack"] in message["headers"]


def topic_of(name: str) -> str:
    return name.replace(":", "_")


class Count:
    """A number that a test waits for."""

    def __init__(self) -> None:
        self._number = 0
        self._changed = threading.Condition()

    def add(self) -> None:
        with self._changed:
            self._number += 1
            self._changed.notify_all()

    def wait_for(self, number: int, seconds: float) -> bool:
        """Returns whether the number is reached in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._number >= number, seconds)


class RecordedGateway:
    """Serves simulated PVs, from `start` to `close` or as a context manager.

    Args:
        broker: Kafka's address.
        commands: The command topic.
        prefixes: The beginnings of the PVs' names; see records.db.
        numbered: Whether recurring snapshots have sequence numbers.
        nanoseconds: Whether their time stamps are nanoseconds, as the description of these numbers says.

    Attributes:
        topic_seconds: How long making a topic takes.
        refreshed: Counts the values that were published again for a later activation.
    """

    def __init__(
        self,
        broker: str,
        commands: str,
        prefixes: Sequence[str],
        *,
        numbered: bool = False,
        nanoseconds: bool = False,
    ) -> None:
        self.topic_seconds = TOPIC_SECONDS
        self.numbered = numbered
        self.time_unit = 1 if nanoseconds else 10**6  # of the time stamps of iterations, in nanoseconds
        self.refreshed = Count()
        self._broker = broker
        self._commands = commands
        self._producer = Producer({"bootstrap.servers": broker, "linger.ms": 0})
        self._admin = AdminClient({"bootstrap.servers": broker})
        self._lock = threading.RLock()
        self._pvs: dict[str, dict[str, Any]] = {}
        self._counters: list[str] = []
        self._monitors: dict[str, set[str]] = {}  # topics by PV
        self._snapshots: dict[str, _RecurringSnapshot] = {}
        self._closed = threading.Event()
        self._pool = ThreadPoolExecutor(64)
        known = recorded_structures()
        for prefix in prefixes:
            for number in (1, 2, 3):
                self._counters.append(f"{prefix}count{number}")
                self._pvs[self._counters[-1]] = with_value(known["t:fast"], 0.0)
            for name, value in STILL.items():
                self._pvs[prefix + name] = with_value(known["t:ao"], value)
            self._pvs[f"{prefix}setpoint"] = with_value(known["t:ao"], 1.5)
            self._pvs[f"{prefix}wave"] = with_value(known["t:wfd"], [1.5, 2.5, -3.0])
            self._pvs[f"{prefix}short"] = with_value(known["t:wfs"], [1, 2, 65533])  # unsigned, as recorded
            columns = {"element": ["SOL1"], "s": [0.35]}
            self._pvs[f"{prefix}table"] = with_value(known["P:TABLE"], columns) | {"labels": list(columns)}

    def start(self) -> RecordedGateway:
        made = self._admin.create_topics([NewTopic(self._commands, 1)])
        with contextlib.suppress(KafkaException):  # it exists
            made[self._commands].result()
        for target in (self._read_commands, self._count):
            self._pool.submit(target)
        return self

    def close(self) -> None:
        self._closed.set()
        for running in list(self._snapshots.values()):
            running.stop()
        self._pool.shutdown()
        self._producer.flush(5.0)

    def __enter__(self) -> RecordedGateway:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def publish(self, topic: str, body: dict[str, Any], key: str) -> None:
        """Produces a record."""
        self._producer.produce(topic, msgpack.packb(body), key, headers=HEADERS)
        self._producer.poll(0)

    def structure(self, name: str) -> dict[str, Any] | None:
        """Returns a PV's current structure; None if it does not exist."""
        with self._lock:
            return copy.deepcopy(self._pvs.get(name))

    def make_topic(self, topic: str, partitions: int) -> None:
        """Makes a topic, as slowly as the deployed gateway."""
        for made in self._admin.create_topics([NewTopic(topic, partitions)]).values():
            with contextlib.suppress(KafkaException):  # it exists
                made.result()
        while topic not in self._admin.list_topics(timeout=10.0).topics and not self._closed.wait(0.05):
            pass  # the controller has made it, the broker does not know yet
        self._closed.wait(self.topic_seconds)

    def _count(self) -> None:
        while not self._closed.wait(TICK):
            with self._lock:
                for name in self._counters:
                    self._pvs[name] = with_value(self._pvs[name], self._pvs[name]["value"] + 1)
                    self._publish_value(name, self._pvs[name])

    def _publish_value(self, name: str, structure: dict[str, Any]) -> None:
        for topic in self._monitors.get(name, ()):
            self.publish(topic, {name: structure}, name)
        for running in self._snapshots.values():
            running.add(name, copy.deepcopy(structure))

    def _read_commands(self) -> None:
        consumer = Consumer(
            {"bootstrap.servers": self._broker, "group.id": f"{self._commands}-k2eg", "auto.offset.reset": "earliest"}
        )
        consumer.subscribe([self._commands])
        with contextlib.closing(consumer):
            while not self._closed.is_set():
                message = consumer.poll(0.1)
                if message is not None and not message.error():
                    command = json.loads(message.value() or b"{}")
                    self._pool.submit(getattr(self, f"_{command['command'].replace('-', '_')}"), command)

    def _reply(self, command: dict[str, Any], key: str, error: int, message: str | None = None, **more: Any) -> None:
        text = {} if message is None else {"message": message}
        self._send_reply(command, key, error, text | more)

    def _send_reply(self, command: dict[str, Any], key: str, error: int, fields: dict[str, Any]) -> None:
        self.publish(command["reply_topic"], {"error": error, "reply_id": command["reply_id"]} | fields, key)

    def _get(self, command: dict[str, Any]) -> None:
        uri = command["pv_name"]
        found = self.structure(name_in(uri))
        if found is None:
            self._closed.wait(GIVES_UP)
            self._reply(command, uri, -3, "Timeout operation")
        else:
            self._send_reply(command, uri, 0, {name_in(uri): found})

    def _put(self, command: dict[str, Any]) -> None:
        uri, fields = command["pv_name"], msgpack.unpackb(base64.b64decode(command["value"]))
        name = name_in(uri)
        found = self.structure(name)
        if found is None:
            self._closed.wait(GIVES_UP)
            self._reply(command, uri, -3, "Timeout operation")
        elif isinstance(fields["value"], str) and not isinstance(found["value"], str):
            self._reply(command, uri, -2, "std::bad_cast")
        else:
            with self._lock:
                self._pvs[name] = with_value(found, fields["value"])
                self._publish_value(name, self._pvs[name])
            self._reply(command, uri, 0, "Successfull operation")

    def _monitor(self, command: dict[str, Any]) -> None:
        text = f"Monitor activated for {command['pv_name']}"
        self._activate(command, [(name_in(command["pv_name"]), command["monitor_dest_topic"])], text)

    def _multi_monitor(self, command: dict[str, Any]) -> None:
        names = [name_in(uri) for uri in command["pv_name_list"]]
        self._activate(command, [(name, topic_of(name)) for name in names], "Monitor activated")

    def _activate(self, command: dict[str, Any], targets: Sequence[tuple[str, str]], text: str) -> None:
        refreshed: list[tuple[str, str]] = []
        for name, topic in targets:
            self.make_topic(topic, 3)
            with self._lock:
                topics = self._monitors.setdefault(name, set())
                refreshed += [(name, topic)] if topic in topics else []
                topics.add(topic)  # from now on events flow, before the reply
        older = {name: self.structure(name) for name, _ in refreshed}
        self._reply(command, MONITOR_KEY, 0, text)
        waited = 0.0
        for at in FIRST_VALUES:
            self._closed.wait(at - waited)
            waited = at
            for name, topic in targets:
                again = older.pop(name, None)
                structure = again or self.structure(name)
                if structure is not None and not self._closed.is_set():
                    self.publish(topic, {name: structure}, name)
                if again is not None:
                    self.refreshed.add()

    def _snapshot(self, command: dict[str, Any]) -> None:
        for uri in command["pv_name_list"]:
            found = self.structure(name_in(uri))
            if found is not None:
                self._send_reply(command, SNAPSHOT_KEY, 0, {name_in(uri): found})
        self._closed.wait(command.get("time_window_msec", 1000) / 1000)
        self._reply(command, SNAPSHOT_KEY, 1)

    def _repeating_snapshot(self, command: dict[str, Any]) -> None:
        name, topic = command["snapshot_name"], re.sub("[^A-Za-z0-9-]", "_", command["snapshot_name"]).lower()
        with self._lock:
            if topic in self._snapshots:
                self._reply(command, RECURRING_KEY, 0, f"Snapshot {name} is already running")
                return
            self.make_topic(topic, 1)
            running = self._snapshots[topic] = _RecurringSnapshot(self, command, topic)
        text = f"The snapshot '{name}' has been started"
        self._reply(command, RECURRING_KEY, 0, text, publishing_topic=topic)
        self._pool.submit(running.run)

    def _repeating_snapshot_trigger(self, command: dict[str, Any]) -> None:
        name = command["snapshot_name"]
        with self._lock:
            running = self._snapshots.get(name.lower())
        if running is None:
            self._reply(command, RECURRING_KEY, -2, f"Snapshot '{name}' has not been found")
            return
        running.trigger()
        self._reply(command, RECURRING_KEY, 0, f"Snapshot '{name}' has been armed")

    def _repeating_snapshot_stop(self, command: dict[str, Any]) -> None:
        name = command["snapshot_name"]
        with self._lock:
            running = self._snapshots.pop(name.lower(), None)
        if running is not None:
            running.stop()
        text = "has been stopped" if running is not None else "is already stopped"
        self._reply(command, RECURRING_KEY, 0, f"Snapshot '{name}' {text}")


class _RecurringSnapshot:
    """A recurring snapshot; `run` publishes its iterations until `stop`."""

    def __init__(self, gateway: RecordedGateway, command: dict[str, Any], topic: str) -> None:
        self._gateway = gateway
        self._name = command["snapshot_name"]
        self._topic = topic
        self._names = [name_in(uri) for uri in command["pv_name_list"]]
        self._window = command["time_window_msec"] / 1000
        self._push = command.get("sub_push_delay_msec", 0) / 1000
        self._buffered = command["type"].lower() == "timedbuffered"
        self._triggered = command.get("triggered", False)
        self._fields = set(command.get("pv_field_filter_list", ()))
        self._lock = threading.Lock()  # of the buffer
        self._publishing = threading.Lock()
        self._buffer: list[tuple[str, dict[str, Any]]] = []
        self._stopped = threading.Event()
        self._iteration = 0
        self._seq = self._submission = 0
        self._open = False
        self._held: Callable[[], None] = lambda: None  # publishes the tail that waits for the next header

    def add(self, name: str, structure: dict[str, Any]) -> None:
        if self._buffered and name in self._names:
            kept = {field: structure[field] for field in structure if not self._fields or field in self._fields}
            with self._lock:
                self._buffer.append((name, kept))

    def run(self) -> None:
        while not self._stopped.is_set():
            pushes = round(self._window / self._push) if self._buffered and self._push else 1
            for number in range(pushes):
                if self._stopped.wait(self._window / pushes):
                    return
                if not self._triggered:
                    self._submit(last=number == pushes - 1)

    def trigger(self) -> None:
        self._submit(last=True)

    def stop(self) -> None:
        """Ends the snapshot with one more iteration."""
        self._stopped.set()
        self._submit(last=True)
        with self._publishing:
            self._release()

    def _release(self) -> None:
        held, self._held = self._held, lambda: None
        held()

    def _values(self) -> list[tuple[str, dict[str, Any]]]:
        if self._buffered:
            with self._lock:
                values, self._buffer = self._buffer, []
            return values
        found = [(name, self._gateway.structure(name)) for name in self._names]
        return [(name, structure) for name, structure in found if structure is not None]

    def _submit(self, *, last: bool) -> None:
        with self._publishing:
            now = time.time_ns() // self._gateway.time_unit
            if not self._open:
                self._open = True
                self._iteration += 1
                self._seq = self._submission = 0
            self._submission += 1
            messages = list(self._messages(now, last=last))
            if self._gateway.numbered:
                self._publish_shuffled(messages, last=last)
            else:
                for message in messages:
                    self._gateway.publish(self._topic, message, self._name)
            self._open = not last

    def _messages(self, now: int, *, last: bool) -> Iterator[dict[str, Any]]:
        """Yields the messages of a push: with the first one the header, with the last one the tail."""
        common = {"timestamp": now, "iter_index": self._iteration}
        if self._submission == 1:
            yield {"message_type": 0, "snapshot_name": self._name} | common | self._numbers()
        values = self._values()
        for number, (name, structure) in enumerate(values, 1):
            numbers = self._numbers()
            if "submission_seq" in numbers:
                numbers["last_submission_data"] = number == len(values)
            yield {"message_type": 1} | common | {name: structure} | numbers
        if last:
            total = {"total_messages": self._seq + 1} if self._gateway.numbered else {}
            yield {"message_type": 2, "error": 0} | common | {"snapshot_name": self._name} | self._numbers() | total

    def _numbers(self) -> dict[str, Any]:
        self._seq += 1
        if not self._gateway.numbered:
            return {}
        return {"msg_seq": self._seq} | ({"submission_seq": self._submission} if self._push else {})

    def _publish_shuffled(self, messages: list[dict[str, Any]], *, last: bool) -> None:
        def send(*some: dict[str, Any]) -> None:
            for message in some:
                self._gateway.publish(self._topic, message, self._name)

        data = [message for message in messages if message["message_type"] == 1]
        if self._submission == 1:
            send(messages[0])
            self._release()
        if not last:
            send(*data)
            return
        kept = data if self._push else data[::-1]
        send(*kept[:-1])
        self._held = lambda: send(messages[-1], *kept[-1:])
        if self._triggered:  # the next header may be far
            self._release()


def name_in(uri: str) -> str:
    return uri.split("://", 1)[1]


def with_value(structure: dict[str, Any], value: Any) -> dict[str, Any]:
    """Returns a structure with another value, of now."""
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    stamp = {"secondsPastEpoch": seconds, "nanoseconds": nanoseconds, "userTag": 0}
    return structure | {"value": value, "timeStamp": stamp}
