"""A minimal gateway in a process of its own: replies to every command at once, without EPICS.

Benchmarks against it measure client and Kafka only. It replies to a get with the structure of a full NTScalar and to a
monitor with success, on request also with a first event. The benchmark produces all other events.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import Any

import msgpack
from confluent_kafka import Consumer, Producer, TopicPartition

HEADER: list[tuple[str, str | bytes | None]] = [("k2eg-ser-type", b"Msgpack")]
PARTITIONS = 3  # of a PV's topic, as the deployed gateway creates it
_START_SECONDS = 60.0


def structure(value: float = 1.25, time_ns: int = 0) -> dict[str, Any]:
    """Returns the structure of a full NTScalar double, some 550 bytes packed, as a gateway sends it; of now, at first.

    The same twice running would be taken for a repetition of one event.
    """
    seconds, nanoseconds = divmod(time_ns or time.time_ns(), 1_000_000_000)
    return {
        "value": value,
        "alarm": {"severity": 0, "status": 0, "message": ""},
        "timeStamp": {"secondsPastEpoch": seconds, "nanoseconds": nanoseconds, "userTag": 0},
        "display": {
            "limitLow": -10.0,
            "limitHigh": 10.0,
            "description": "beam current",
            "units": "mA",
            "precision": 3,
            "form": {
                "index": 0,
                "choices": ["Default", "String", "Binary", "Decimal", "Hex", "Exponential", "Engineering"],
            },
        },
        "control": {"limitLow": -9.0, "limitHigh": 9.0, "minStep": 0.0},
        "valueAlarm": {
            "active": False,
            "lowAlarmLimit": float("nan"),
            "lowWarningLimit": float("nan"),
            "highWarningLimit": 6.0,
            "highAlarmLimit": 8.0,
            "lowAlarmSeverity": 0,
            "lowWarningSeverity": 0,
            "highWarningSeverity": 0,
            "highAlarmSeverity": 0,
            "hysteresis": 0.0,
        },
    }


def _answer(command: dict[str, Any]) -> dict[str, Any]:
    reply: dict[str, Any] = {"error": 0, "reply_id": command["reply_id"]}
    if command["command"] == "get":
        reply[command["pv_name"].partition("://")[2]] = structure()
    return reply


def _serve(address: str, command_topic: str, first_events: bool, ready: Event, stop: Event) -> None:
    producer = Producer({"bootstrap.servers": address, "linger.ms": 0, "log_level": 0})
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": "bench-responder",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(command_topic, 0, 0)])
    while not stop.is_set():
        message = consumer.poll(0.2)
        if message is None:
            continue
        if message.error() is not None:
            ready.set()  # the end of the empty topic is known: all later commands are read
            continue
        command = json.loads(message.value() or b"{}")
        producer.produce(command["reply_topic"], msgpack.packb(_answer(command)), key=b"reply", headers=HEADER)
        if first_events and command["command"] == "monitor":
            name = command["pv_name"].partition("://")[2]
            event = msgpack.packb({name: structure()})
            producer.produce(command["monitor_dest_topic"], event, key=name.encode(), headers=HEADER)
        producer.poll(0)
    consumer.close()
    producer.flush(5)


@contextmanager
def responder(address: str, command_topic: str, *, first_events: bool = False) -> Iterator[None]:
    """Replies to the commands of an existing, empty topic within the context.

    Args:
        address: The broker.
        command_topic: The topic.
        first_events: Whether a monitored PV has a first event.
    """
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Event(), context.Event()
    process = context.Process(target=_serve, args=(address, command_topic, first_events, ready, stop), daemon=True)
    process.start()
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not ready.wait(0.5):
            if not process.is_alive() or time.monotonic() > deadline:
                raise SystemExit("the responder did not start")
        yield
    finally:
        stop.set()
        process.join(10)
