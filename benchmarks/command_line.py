"""Processor time of the command line, beside other programs that print a PV.

    python benchmarks/command_line.py [--rounds 7]

It starts a broker, an IOC and a gateway of its own. Each program runs once in a round; its figure is the least of all
rounds, user and system time together, which other work on the machine changes little. Python keeps compiled modules in
a folder of the benchmark, as those of an installed package are. `caget` and `pvget` are measured where they are
installed.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from k2eg_rx.embedded import EmbeddedStack
from k2eg_rx.embedded.stack import COMMAND_TOPIC

PV = "demo:setpoint1"
_TIMEOUT = 60.0
_BARE_GET = "a get by bare confluent-kafka"
_INI = "[DEFAULT]\nkafka_broker_url={broker}\nk2eg_cmd_topic={topic}\n"

# The least program that reads a PV through a gateway: no checks, no error but the end of the time.
_BARE = """
import json, sys, uuid
import msgpack
from confluent_kafka import Consumer, OFFSET_END, Producer, TopicPartition
broker, commands, uri = sys.argv[1:]
consumer = Consumer({"bootstrap.servers": broker, "group.id": uuid.uuid4().hex, "fetch.wait.max.ms": 5,
                     "allow.auto.create.topics": True})
topic = "bare-reply"
while not (partitions := consumer.list_topics(topic, timeout=10).topics[topic].partitions):
    consumer.poll(0.05)
starts = [TopicPartition(topic, number) for number in partitions]
for start in starts:
    start.offset = consumer.get_watermark_offsets(start, timeout=10)[1]
consumer.assign(starts)
producer, reply_id = Producer({"bootstrap.servers": broker, "linger.ms": 0}), uuid.uuid4().hex
command = {"command": "get", "serialization": "msgpack", "pv_name": uri, "reply_topic": topic, "reply_id": reply_id}
producer.produce(commands, json.dumps(command).encode())
producer.flush(10)
while True:
    record = consumer.poll(10)
    if record is not None and record.error() is None:
        reply = msgpack.unpackb(record.value())
        if reply["reply_id"] == reply_id:
            break
print(reply[uri.partition("://")[2]]["value"])
consumer.close()
"""


_AIOCA = "import sys; from aioca import caget, run; print(run(caget(sys.argv[1])))"


def processor_time(words: Sequence[str], environment: Mapping[str, str]) -> float:
    """Runs a program to its end; returns its user and system time in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)[:100]}: {done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def programs(broker: str) -> dict[str, list[str]]:
    """Returns the programs to measure, by name."""
    python, k2eg = sys.executable, [sys.executable, "-m", "k2eg.cli"]
    all_ = {
        "python -c pass": [python, "-c", "pass"],
        "k2eg -h": [*k2eg, "-h"],
        "k2eg get -h": [*k2eg, "get", "-h"],
        f"k2eg get pva://{PV}": [*k2eg, "get", f"pva://{PV}"],
        f"k2eg get {PV}": [*k2eg, "get", PV],
        _BARE_GET: [python, "-c", _BARE, broker, COMMAND_TOPIC, f"pva://{PV}"],
        f"a get by aioca of {PV}": [python, "-c", _AIOCA, PV],
        f"python -m p4p.client.cli get {PV}": [python, "-m", "p4p.client.cli", "get", PV],
        f"caget {PV}": ["caget", PV],
        f"pvget {PV}": ["pvget", PV],
    }
    return {name: words for name, words in all_.items() if shutil.which(words[0])}


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds: int = parser.parse_args().rounds
    with EmbeddedStack() as stack, tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "stack.ini").write_text(_INI.format(broker=stack.broker_address, topic=COMMAND_TOPIC))
        environment = {
            **os.environ,
            **stack.client_environment,
            "K2EG_PYTHON_CONFIGURATION_PATH_FOLDER": folder,
            "K2EG_CLI_DEFAULT_ENVIRONMENT": "stack",
            "PYTHONPYCACHEPREFIX": str(Path(folder) / "compiled"),
            "PYTHONDONTWRITEBYTECODE": "",
        }
        measured = programs(stack.broker_address)
        least = dict.fromkeys(measured, float("inf"))
        for _ in range(rounds):
            for name, words in measured.items():
                least[name] = min(least[name], processor_time(words, environment))
    base = least["python -c pass"]
    bare = least[_BARE_GET]
    print(f"{'program':44}{'ms':>8}{'above python -c pass':>22}{'of a bare get':>15}")
    for name, seconds in least.items():
        print(f"{name:44}{1000 * seconds:8.0f}{1000 * (seconds - base):22.0f}{seconds / bare:15.1f}")


if __name__ == "__main__":
    main()
