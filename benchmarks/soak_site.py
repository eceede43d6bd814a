"""The processes of the soak: Apache Kafka, an IOC, three gateways, two clients, and how each is disturbed.

Two gateways share the command topic of the puts. Monitors and the recurring snapshot have a command topic with a
gateway of its own: two gateways that monitor one PV both publish it, so duplicates would say nothing.
"""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from apache_kafka import SHORT_SESSION, ApacheKafka
from confluent_kafka.admin import AdminClient, NewTopic
from kafka_distribution import find_distribution

from k2eg_rx.embedded import ServerPorts, without_epics
from soak_clients import RECEIVED
from soak_ioc import TICK

TARGETS = 8
PARTITIONS = 6  # of the command topics
START = 120.0  # seconds for a process to start on a busy machine
_TICKS_SECONDS = 600.0  # of the log of counts that is searched for a moment
JUMP = 1000  # counts that a restarted IOC skips, so that no value is posted twice
_HERE = Path(__file__).parent
_INI = """[DEFAULT]
kafka_broker_url={broker}
k2eg_cmd_topic={commands}
[gateway]
group={group}
"""


class Part:
    """A process that is killed, frozen and restarted.

    Args:
        name: What it is called in the results.
        launch: Starts the process, given the number of the run.
        is_ready: Waits until it works.
    """

    def __init__(
        self,
        name: str,
        launch: Callable[[int], subprocess.Popen[str]],
        is_ready: Callable[[subprocess.Popen[str]], None],
    ) -> None:
        self.name = name
        self.run = -1
        self.exit_codes: list[int] = []
        self._launch = launch
        self._is_ready = is_ready
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Starts the next run."""
        self.run += 1
        self.process = self._launch(self.run)
        self._is_ready(self.process)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal."""
        if self.process is not None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """Kills the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self, seconds: float = 30.0) -> None:
        """Stops the process with SIGTERM and records its exit code; kills it if it does not end."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.exit_codes.append(self.process.wait(seconds))
        except subprocess.TimeoutExpired:
            self.exit_codes.append(-signal.SIGKILL)
            self.kill()

    def has_died(self) -> bool:
        """Whether the process has ended by itself."""
        return self.process is not None and self.process.poll() is not None


class Site:
    """All processes.

    Args:
        folder: For configuration, data and logs.
        pvs: Number of counting PVs.
        rate: Their rate, in hertz.
    """

    def __init__(self, folder: Path, pvs: int, rate: float) -> None:
        self.folder = folder
        self.pvs = pvs
        self.rate = rate
        self.targets = TARGETS
        kafka, conf = folder / "kafka", folder / "conf"
        for each in (kafka, conf):
            each.mkdir()
        properties = {**SHORT_SESSION, "auto.create.topics.enable": "false"}
        self.broker = ApacheKafka(find_distribution(), kafka, properties).start()
        topics = [NewTopic(name, PARTITIONS) for name in ("puts", "monitors")]
        admin = AdminClient({"bootstrap.servers": self.broker.address})
        for created in admin.create_topics(topics).values():
            created.result(START)
        for name in ("puts", "monitors"):
            text = _INI.format(broker=self.broker.address, commands=name, group=f"gateways-{name}")
            (conf / f"soak-{name}.ini").write_text(text)
        self._ports = ServerPorts.free()
        self._environment = {
            **without_epics(),
            **self._ports.pva_client_environment,
            "EPICS_CA_AUTO_ADDR_LIST": "NO",
            "EPICS_CA_ADDR_LIST": "127.0.0.1",
            "K2EG_PYTHON_CONFIGURATION_PATH_FOLDER": str(conf),
        }
        self._read = {"received": (-1, 0)}
        self.newest: dict[int, int] = {}  # the newest value of each PV that the current run of the client has logged
        self.ioc = Part("ioc", self._launch_ioc, _await_ready)
        self.put_gateways = [self._gateway(f"gateway-puts-{number}", "puts") for number in range(2)]
        self.monitor_gateway = self._gateway("gateway-monitors", "monitors")
        self.watcher = Part("client", lambda run: self._launch_client("watch", run, pvs), lambda _: None)
        self.putter = Part("put-client", lambda run: self._launch_client("put", run, TARGETS), lambda _: None)
        self.parts = [self.ioc, *self.put_gateways, self.monitor_gateway, self.watcher, self.putter]

    def start(self) -> None:
        """Starts all processes."""
        for part in self.parts:
            part.start()

    def close(self) -> None:
        """Ends all processes."""
        for part in self.parts:
            part.signal(signal.SIGCONT)
            part.kill()
        with suppress(OSError):
            self.broker.kill()

    def _launch(self, name: str, *words: str, pipe: bool = False) -> subprocess.Popen[str]:
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *words],
                env=self._environment,
                cwd=_HERE,
                stdin=subprocess.PIPE if pipe else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipe else log,
                stderr=log,
                text=True,
            )

    def _launch_ioc(self, _run: int) -> subprocess.Popen[str]:
        conf = self._ports.pva_client_environment | self._ports.pva_server_environment
        first = max((count for count, _ in self.ticks()), default=0) + JUMP
        arguments = {"count": self.pvs, "targets": TARGETS, "rate": self.rate, "first": first, "conf": conf}
        return self._launch("ioc", "soak_ioc.py", json.dumps({**arguments, "folder": str(self.folder)}), pipe=True)

    def _gateway(self, name: str, topic: str) -> Part:
        def is_ready(process: subprocess.Popen[str]) -> None:
            log, deadline = self.folder / f"{name}.log", time.monotonic() + START
            while log.read_text().count("gateway started") <= part.run:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{name} did not start: {log.read_text()[-2000:]}")
                time.sleep(0.1)

        part = Part(name, lambda _: self._launch(name, "-m", "k2eg.cli", "-e", f"soak-{topic}", "gateway"), is_ready)
        return part

    def _launch_client(self, what: str, run: int, count: int) -> subprocess.Popen[str]:
        return self._launch(f"client-{what}", "soak_clients.py", what, str(self.folder), str(run), str(count))

    def ticks(self) -> Iterator[tuple[int, float]]:
        """Yields the counts that the IOC has posted, with their times."""
        return complete_records(self.folder / "ticks.bin", TICK)

    def first_tick_after(self, moment: float) -> int | None:
        """Returns the first count that was posted after a moment; None if there is none yet."""
        size, path = TICK.size, self.folder / "ticks.bin"
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size // size * size - size * round(self.rate * _TICKS_SECONDS)))
            newest = file.read()
        usable = newest[: len(newest) - len(newest) % size]
        return next((count for count, posted in TICK.iter_unpack(usable) if posted > moment), None)

    def stop_counting(self) -> int:
        """Stops the counting PVs; returns their last value."""
        process = self.ioc.process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("stop\n")
        process.stdin.flush()
        return int(process.stdout.readline())

    def read_received(self) -> dict[int, int]:
        """Returns the newest value of each PV that the current run of the client has logged."""
        run, position = self._read["received"]
        if run != self.watcher.run:
            run, position = self.watcher.run, 0
            self.newest.clear()
        path = self.folder / f"received-{run}.bin"
        if path.exists():
            with path.open("rb") as file:
                file.seek(position)
                data = file.read()
            usable = len(data) - len(data) % RECEIVED.size
            for number, _, _, value, _ in RECEIVED.iter_unpack(data[:usable]):
                self.newest[number] = value
            position += usable
        self._read["received"] = run, position
        return self.newest

    def puts_done_since(self, moment: float) -> set[str]:
        """Returns the targets to which a put was sent after a moment, and confirmed."""
        done: set[str] = set()
        sent: dict[int, str] = {}
        for entry in json_lines(self.folder / f"put-{self.putter.run}.jsonl"):
            if entry.get("sent", 0.0) > moment:
                sent[entry["value"]] = entry["pv"]
            elif entry.get("outcome") == "done" and entry["value"] in sent:
                done.add(sent[entry["value"]])
        return done


def _await_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise SystemExit("the IOC did not start")


def complete_records(path: Path, form: struct.Struct) -> Iterator[tuple[Any, ...]]:
    """Yields the records of a binary log; not one that a kill has cut."""
    if path.exists():
        data = path.read_bytes()
        yield from form.iter_unpack(data[: len(data) - len(data) % form.size])


def json_lines(path: Path) -> Iterator[Any]:
    """Yields the lines of a log; not one that a kill has cut."""
    if path.exists():
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)
