"""Reads what Kafka, the IOC and the clients hold at the end of a soak, and counts."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgpack
from confluent_kafka import Consumer, Message, TopicPartition
from reactivex import operators as ops

from k2eg_rx import first
from k2eg_rx.pv import monitor_topic, snapshot_topic
from k2eg_rx.recording import replay_file
from soak_check import Absence, Held, delivery, missing_from_kafka, order_in_kafka, puts, repeats_in, steps_back
from soak_clients import RECEIVED, SNAPSHOT
from soak_ioc import counter
from soak_site import Site, complete_records, json_lines

_READ = 120.0  # seconds for reading everything
_HEADER, _TAIL = 0, 2  # message types of a recurring snapshot


def read_topics(address: str, topics: Iterable[str]) -> Iterator[Message]:
    """Yields all records of topics, from the beginning to the present end."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "soak-check", "enable.auto.commit": False})
    known = consumer.list_topics(timeout=_READ).topics
    left: dict[tuple[str, int], int] = {}
    assigned: list[TopicPartition] = []
    for topic in topics:
        for partition in known[topic].partitions if topic in known else ():
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_READ)
            if high > low:
                left[topic, partition] = high
                assigned.append(TopicPartition(topic, partition, low))
    consumer.assign(assigned)
    deadline = time.monotonic() + _READ
    while left and time.monotonic() < deadline:
        for message in consumer.consume(10_000, 0.5):
            if message.error() is None:
                at = message.topic() or "", message.partition() or 0
                yield message
                if (message.offset() or 0) + 1 >= left.get(at, 0):
                    left.pop(at, None)
    consumer.close()
    if left:
        raise SystemExit(f"{len(left)} partitions could not be read to their ends")


def _with_prefix(prefix: str, counts: Counter[str]) -> Counter[str]:
    return Counter({f"{prefix} {name}": count for name, count in counts.items()})


def _held(site: Site, counts: Counter[str]) -> dict[int, list[Held]]:
    """Returns the events of each counting PV, in the order of their offsets; counts the other records of its topic."""
    numbers = {counter(number).encode(): number for number in range(site.pvs)}
    held: dict[int, list[Held]] = defaultdict(list)
    for message in read_topics(site.broker.address, [monitor_topic(counter(number)) for number in range(site.pvs)]):
        number = numbers.get(message.key() or b"")
        if number is None:  # that a PV was lost, or that updates were not published
            headers: Any = message.headers() or [("none", b"")]
            counts[f"records with the header {headers[0][0]}, no events"] += 1
        else:
            value = msgpack.unpackb(message.value() or b"")[counter(number)]["value"]
            held[number].append(Held(message.partition() or 0, message.offset() or 0, value))
    return held


def count_all(site: Site, absences: Sequence[Absence]) -> Counter[str]:
    """Returns all counts; see `soak_check.ZERO` for those that must be zero."""
    ticks = list(site.ticks())
    counts: Counter[str] = Counter({"values posted": len(ticks) * site.pvs})
    held = _held(site, counts)
    for number in range(site.pvs):
        counts["values in Kafka"] += len(held[number])
        counts += _with_prefix("values", missing_from_kafka(ticks, held[number], absences))
        counts += _with_prefix("values", order_in_kafka(held[number]))
    for run in range(site.watcher.run + 1):
        received: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for number, partition, offset, _, _ in complete_records(site.folder / f"received-{run}.bin", RECEIVED):
            received[number].append((partition, offset))
        counts += _count_deliveries("client", held, received)
        counts += _count_deliveries("recording", held, _recorded(site, run))
        counts["streams ended"] += sum(1 for _ in json_lines(site.folder / f"errors-{run}.jsonl"))
    counts += _count_snapshots(site)
    log = [entry for run in range(site.putter.run + 1) for entry in json_lines(site.folder / f"put-{run}.jsonl")]
    executed = [(name, value, moment) for name, value, moment in json_lines(site.folder / "puts.log")]
    counts += _with_prefix("puts", puts(log, executed))
    counts["tracebacks"] = sum(
        path.read_text(errors="replace").count("Traceback") for path in Path(site.folder).glob("*.log")
    )
    return counts


def _count_deliveries(
    prefix: str, held: dict[int, list[Held]], received: dict[int, list[tuple[int, int]]]
) -> Counter[str]:
    counts: Counter[str] = Counter()
    for number, places in received.items():
        known = [(each.partition, each.offset) for each in held[number]]
        counts += _with_prefix(prefix, delivery(known, places, optional=repeats_in(held[number])))
        counts[f"{prefix} received"] += len(places)
    return counts


def _recorded(site: Site, run: int) -> dict[int, list[tuple[int, int]]]:
    """Returns the places of the recorded events of each PV; a killed run left a journal, which is read too."""
    names = {counter(number): number for number in range(site.pvs)}
    recorded: dict[int, list[tuple[int, int]]] = defaultdict(list)
    path = site.folder / f"recording-{run}.parquet"
    if path.exists() or list(site.folder.glob(f"_recording-{run}*")):
        for update in first(replay_file(path, speed=None).pipe(ops.to_list())):
            recorded[names[update.name]].append((update.record.partition, update.record.offset))
    return recorded


def _count_snapshots(site: Site) -> Counter[str]:
    """Compares the complete iterations in Kafka with those that each run of the client received."""
    complete: list[tuple[int, int]] = []
    begun: set[int] = set()
    for message in read_topics(site.broker.address, [snapshot_topic(SNAPSHOT)]):
        body: dict[str, Any] = msgpack.unpackb(message.value() or b"")
        iteration = body["iter_index"]
        if body["message_type"] == _HEADER:
            begun.add(iteration)
        elif body["message_type"] == _TAIL and iteration in begun:
            begun.discard(iteration)
            complete.append((iteration, body["timestamp"]))
    counts: Counter[str] = Counter({"snapshots in Kafka": len(complete)})
    for run in range(site.watcher.run + 1):
        iterations = list(json_lines(site.folder / f"snapshots-{run}.jsonl"))
        received = [(each["iteration"], each["at"]) for each in iterations]
        counts += _with_prefix("snapshots", delivery(complete, received))
        counts["snapshots received"] += len(received)
        counts["snapshots steps back"] += steps_back(iterations)
        counts["snapshots failed"] += sum(1 for each in iterations if each["error"])
    return counts
