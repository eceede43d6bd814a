"""A single-node Apache Kafka (KRaft) as a child process, for tests: it can be killed, frozen and started again.

In: a folder, properties. Out: a broker on free ports of the loopback interface. The methods may be called on any
thread, one at a time; each start has a thread of its own, which waits for the broker's end.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from kafka_distribution import Distribution

HOST = "127.0.0.1"
PLAINTEXT = "PLAINTEXT"

_STORAGE = "kafka.tools.StorageTool"
_BROKER = "kafka.Kafka"
_CONTROLLER = "CONTROLLER"

# Below the ports from which Linux takes those of outgoing connections: while a broker is down nobody takes its port by
# chance, not even a client that connects to that very port and so to itself.
_PORTS = range(20_000, 32_000)

_START_SECONDS = 300.0  # it takes 3 s of processor time, on machines that have other things to do
_STOP_SECONDS = 60.0  # it takes 0.5 s; the first time it makes the class archive, some 5 s
_ASK_SECONDS = 0.2  # between questions whether it is ready
_TAIL = 40  # lines of the log in an error

_JAVA_OPTIONS = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # a broker that lives for minutes spends more time compiling than it gains
    "-XX:+ExitOnOutOfMemoryError",
    "-Xlog:cds=error",  # else it names each class that is not put into the archive
    "-Dlog4j2.level=INFO",
)

# One node, little memory, and no waiting for others that might come.
_PROPERTIES: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    # One that was killed is let in again when the session of the one before is over; 9 s and 2 s by default.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "log.index.size.max.bytes": str(1 << 20),  # each partition maps two files of that size; 10 MiB by default
    "log.cleaner.dedupe.buffer.size": str(4 << 20),  # taken from the heap at the start; 128 MiB by default
}

# The kernel kills the broker when the thread that started it ends, be it because the tests were killed.
_DIE_WITH_PARENT = """
import ctypes, os, sys
PR_SET_PDEATHSIG, SIGKILL = 1, 9
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent ended first")
os.execv(sys.argv[2], sys.argv[2:])
"""

_silent = logging.getLogger("k2eg-tests.apache-kafka")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False  # that a broker which is starting refuses connections is no news


class BrokerError(Exception):
    """The broker did not start. The text has the end of its log."""


@dataclass(frozen=True, slots=True)
class ForeignKafka:
    """A broker that somebody else started; it cannot be stopped."""

    address: str


class ApacheKafka:
    """A broker that runs from `start` to `stop`, or as a context manager.

    Attributes:
        ports: The port of each listener, by the listener's name. They stay the same as long as the object lives.
        log: The file with what the broker said.
    """

    def __init__(
        self,
        distribution: Distribution,
        folder: Path,
        properties: Mapping[str, str] | None = None,
        listeners: Mapping[str, str] | None = None,
        java_options: Sequence[str] = (),
    ) -> None:
        """
        Args:
            distribution: The programs.
            folder: Where data, log and configuration go; an empty one.
            properties: The broker's properties, beyond ours and above them.
            listeners: Further listeners beside the open one: names, and the security protocol of each.
            java_options: Further options for ``java``, above ours.
        """
        self._distribution = distribution
        self._folder = folder
        self._data = folder / "data"
        self._java_options = (*_JAVA_OPTIONS, *java_options)
        protocols = {PLAINTEXT: PLAINTEXT, _CONTROLLER: PLAINTEXT, **(listeners or {})}
        self.ports = dict(zip(protocols, _free_ports(len(protocols)), strict=True))
        self.log = folder / "broker.log"
        self._properties = {**_PROPERTIES, **self._addresses(protocols), **(properties or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._new_archive: Path | None = None

    def _addresses(self, protocols: Mapping[str, str]) -> dict[str, str]:
        listeners = {name: f"{name}://{self.address_of(name)}" for name in protocols}
        return {
            "listeners": ",".join(listeners.values()),
            "advertised.listeners": ",".join(at for name, at in listeners.items() if name != _CONTROLLER),
            "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
            "inter.broker.listener.name": PLAINTEXT,
            "controller.listener.names": _CONTROLLER,
            "controller.quorum.voters": f"1@{self.address_of(_CONTROLLER)}",
            "log.dirs": str(self._data),
        }

    @property
    def address(self) -> str:
        """Where it listens for anybody, without encryption: ``host:port``."""
        return self.address_of(PLAINTEXT)

    def address_of(self, listener: str) -> str:
        """Returns where a listener listens: ``host:port``."""
        return f"{HOST}:{self.ports[listener]}"

    @property
    def pid(self) -> int | None:
        """The process id, or None while it does not run."""
        return self._process.pid if self._process else None

    def start(self, timeout: float = _START_SECONDS) -> Self:
        """Starts the broker and returns it when it answers and takes topics; the second time with its old data.

        Raises:
            BrokerError: It ended, or did not get ready in time.
        """
        if self._process is None:
            deadline = time.monotonic() + timeout
            if not self._data.exists():
                self._format(timeout)
            self._process = self._launch(_BROKER, self._configuration(), archive=True)
            try:
                self._await_ready(self._process, deadline)
            except BaseException:
                self.kill()
                raise
        return self

    def stop(self) -> None:
        """Has the broker end in good order, the hard way if it does not. Idempotent."""
        process = self._process
        if process is None:
            return
        process.terminate()
        self.thaw()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return
        self._process = None
        if self._new_archive is not None and self._new_archive.exists():
            self._new_archive.replace(self._distribution.class_archive)

    def kill(self) -> None:
        """Ends the broker as a power cut does. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def freeze(self) -> None:
        """Has the broker stand still, its connections open; see `thaw`."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Has the broker go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def remove_data(self) -> None:
        """Stops it and removes what it stored; the log stays."""
        self.stop()
        shutil.rmtree(self._data, ignore_errors=True)

    def log_tail(self) -> str:
        """Returns the last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-_TAIL:])

    def _configuration(self) -> str:
        path = self._folder / "server.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in self._properties.items()))
        return str(path)

    def _format(self, timeout: float) -> None:
        cluster = uuid.uuid4().hex[:22]
        tool = self._launch(_STORAGE, "format", "--cluster-id", cluster, "--config", self._configuration())
        try:
            code = tool.wait(timeout)
        except subprocess.TimeoutExpired:
            tool.kill()
            code = tool.wait()
        if code != 0:
            shutil.rmtree(self._data, ignore_errors=True)
            raise BrokerError(f"Apache Kafka: its storage was not formatted (code {code})\n{self.log_tail()}")

    def _await_ready(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        properties: dict[str, str | int | float | bool] = {
            "bootstrap.servers": self.address,
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 100,
        }
        admin = AdminClient(properties, logger=_silent)
        while process.poll() is None:
            with contextlib.suppress(KafkaException):
                if admin.list_topics(timeout=_ASK_SECONDS).brokers:  # it is among them when topics may be put on it
                    return
            if time.monotonic() > deadline:
                raise BrokerError(f"Apache Kafka was not ready in time; its log ends:\n{self.log_tail()}")
        raise BrokerError(f"Apache Kafka ended with code {process.returncode}; its log ends:\n{self.log_tail()}")

    def _launch(self, main_class: str, *arguments: str, archive: bool = False) -> subprocess.Popen[bytes]:
        programs = self._distribution
        sharing = [f"-XX:SharedArchiveFile={programs.class_archive}"]
        self._new_archive = None
        if archive and not programs.class_archive.exists():
            self._new_archive = programs.class_archive.with_suffix(f".{uuid.uuid4().hex}")
            sharing = [f"-XX:ArchiveClassesAtExit={self._new_archive}"]
        command = [programs.java, *self._java_options, *sharing, "-cp", programs.class_path, main_class, *arguments]
        return _start_process(command, self._folder, self.log)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _start_process(command: Sequence[str], folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """Starts a process that lives no longer than this one."""
    started: Future[subprocess.Popen[bytes]] = Future()
    stub = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())]

    def run() -> None:
        try:
            with log.open("ab") as output:
                process = subprocess.Popen(
                    [*stub, *command],
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # the Ctrl-C at a terminal is for the tests, which then stop it
                )
        except BaseException as failure:
            started.set_exception(failure)
            return
        started.set_result(process)
        process.wait()  # this thread started it, so it has to live as long

    threading.Thread(target=run, name="apache-kafka", daemon=True).start()
    return started.result()


def _free_ports(count: int) -> list[int]:
    chance = random.SystemRandom()  # the other one is made to repeat itself by property tests
    ports: list[int] = []
    while len(ports) < count:
        port = chance.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            if port not in ports:
                ports.append(port)
    return ports
