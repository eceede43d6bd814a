"""A recorder that is killed at random and goes on: whether its files have what Kafka has, each record once.

    python benchmarks/resume.py [--kills 50] [--pvs 8] [--rate 200] [--seed N]

Counting PVs are published to an embedded broker, which keeps 5 MiB of each: ten minutes at this rate. A process records
them with `positions` and ``resume=True``. It is killed (SIGKILL) at random while it starts, catches up or records, and
is started again. In the end a plain Kafka consumer reads the topics, and the set of topic, partition and offset is
compared with that in the files.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet
from confluent_kafka import Consumer, Producer, TopicPartition

from k2eg_rx import Client, Settings
from k2eg_rx.embedded.broker import EmbeddedBroker
from k2eg_rx.protocol import Serialization, encode_event, encode_structure
from k2eg_rx.pv import monitor_topic
from k2eg_rx.recording import RecordingError, positions, record, recover
from k2eg_rx.settings import DEMO_KAFKA

_ROTATE_BYTES = 100_000  # small, so that kills hit rotations too
_START = 60.0  # seconds until a recorder has recorded something, on a busy machine

Place = tuple[str, int, int]  # topic, partition, offset


def record_until_killed(address: str, path: str, pvs: list[str]) -> None:
    """Runs in the recorder's process: prints a line with its first recorded update."""
    with Client("benchmark", "resume", settings=settings(address)) as client:
        updates = client.monitor_many_stream([f"pva://{pv}" for pv in pvs], since=positions(path))
        started = threading.Event()
        failed = threading.Event()

        def fail(error: Exception) -> None:
            print(f"failed: {error}", flush=True)
            failed.set()

        recording = updates.pipe(record(path, resume=True, rotate_bytes=_ROTATE_BYTES, flush_rows=50, flush_every=0.1))
        recording.subscribe(lambda _: started.set(), fail)
        started.wait()
        print("recording", flush=True)
        failed.wait()


def settings(address: str) -> Settings:
    """Returns the settings of a client without a gateway."""
    return Settings(
        environment_id="benchmark",
        broker_url=address,
        command_topic="resume-commands",
        reply_topic="resume-reply",
        kafka=DEMO_KAFKA,
    )


class Machine:
    """Publishes counting PVs, as a gateway does, until it is stopped."""

    def __init__(self, address: str, pvs: list[str], rate: float) -> None:
        self._producer = Producer({"bootstrap.servers": address, "linger.ms": 5})
        self._pvs = pvs
        self._rate = rate
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="machine")
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._stopped.wait(len(self._pvs) / self._rate):
            seconds, nanoseconds = divmod(time.time_ns(), 10**9)
            stamp = {"secondsPastEpoch": seconds, "nanoseconds": nanoseconds, "userTag": 0}
            for pv in self._pvs:
                fragment = encode_structure(Serialization.MSGPACK, {"value": number, "timeStamp": stamp})
                body = encode_event(Serialization.MSGPACK, pv, fragment)
                headers: Any = [("k2eg-ser-type", b"Msgpack")]
                self._producer.produce(monitor_topic(pv), body, pv.encode(), headers=headers)
            self._producer.poll(0)
            number += 1

    def stop(self) -> None:
        """Ends; what was published is on the broker."""
        self._stopped.set()
        self._thread.join()
        self._producer.flush()


def dump(address: str, pvs: list[str]) -> Counter[Place]:
    """Returns what the topics hold."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "dump", "enable.auto.commit": False})
    places: Counter[Place] = Counter()
    for topic in map(monitor_topic, pvs):
        for partition in consumer.list_topics(topic, timeout=_START).topics[topic].partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_START)
            consumer.assign([TopicPartition(topic, partition, low)])
            following = low
            while following < high:
                message = consumer.poll(_START)
                if message is None or message.error():
                    raise RuntimeError(f"cannot read {topic}: {message and message.error()}")
                offset = message.offset() or 0
                following = offset + 1
                places[topic, partition, offset] += 1
    consumer.close()
    return places


def recorded(folder: Path) -> Counter[Place]:
    """Returns what the Parquet files have, as another program reads them."""
    places: Counter[Place] = Counter()
    for file in folder.glob("[!_]*.parquet"):
        columns = pyarrow.parquet.read_table(file, columns=["topic", "partition", "offset"])
        places.update(zip(*(column.to_pylist() for column in columns.columns), strict=True))
    return places


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """Starts a recorder."""
    return subprocess.Popen(
        [sys.executable, __file__, "--recorder", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def kill(recorder: subprocess.Popen[str], choose: random.Random) -> str:
    """Kills a recorder at a random moment; returns in which phase."""
    phase = choose.choice(("start", "catching up", "recording", "recording"))
    if phase == "start":
        time.sleep(choose.uniform(0.2, 2.0))
    else:
        line = recorder.stdout.readline() if recorder.stdout else ""
        if line != "recording\n":
            raise RuntimeError(f"recorder: {line!r}")
        time.sleep(choose.uniform(0.0, 0.2 if phase == "catching up" else 1.5))
    recorder.send_signal(signal.SIGKILL)
    recorder.communicate()
    return phase


def wait_until_complete(path: Path, wanted: Counter[Place]) -> None:
    """Waits until the recorder has all that the topics hold."""
    ends: dict[tuple[str, int], int] = {}
    for topic, partition, offset in wanted:
        ends[topic, partition] = max(offset + 1, ends.get((topic, partition), 0))
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline:
        with suppress(FileNotFoundError, RecordingError):  # the recorder completes a file meanwhile
            if dict(positions(path).next) == ends:
                return
        time.sleep(0.5)


def run(kills: int, pvs: list[str], rate: float, seed: int) -> bool:
    """Kills recorders and compares; returns whether files and topics have the same records."""
    choose, phases = random.Random(seed), Counter[str]()
    with EmbeddedBroker() as broker, tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.parquet")
        machine = Machine(broker.address, pvs, rate)
        try:
            for _ in range(kills):
                phases[kill(start([broker.address, str(path), *pvs]), choose)] += 1
        finally:
            machine.stop()
        wanted = dump(broker.address, pvs)
        last = start([broker.address, str(path), *pvs])
        wait_until_complete(path, wanted)
        last.kill()
        last.communicate()
        recover(folder)
        found = recorded(path.parent)
        files = len(list(path.parent.glob("[!_]*.parquet")))
    missing, foreign = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    twice = sum(count - 1 for count in found.values())
    print(
        f"kills: {kills} ({', '.join(f'{phase} {count}' for phase, count in sorted(phases.items()))}), files: {files}"
    )
    print(f"records in Kafka: {len(wanted):,}, in files: {found.total():,}")
    print(f"missing: {len(missing)}, twice: {twice}, not in Kafka: {len(foreign)}")
    return not missing and not foreign and not twice


def main() -> int:
    """Runs the benchmark, or a recorder of it."""
    if sys.argv[1:2] == ["--recorder"]:
        record_until_killed(sys.argv[2], sys.argv[3], sys.argv[4:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="(default %(default)s)")
    parser.add_argument("--pvs", type=int, default=8, help="(default %(default)s)")
    parser.add_argument("--rate", type=float, default=200.0, help="updates a second of all PVs (default %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=time.time_ns() % 10**6, help="of the moments (default: by the time)"
    )
    arguments = parser.parse_args()
    print(f"seed: {arguments.seed}")
    pvs = [f"bench:resume:{number}" for number in range(arguments.pvs)]
    return 0 if run(arguments.kills, pvs, arguments.rate, arguments.seed) else 1


if __name__ == "__main__":
    sys.exit(main())
