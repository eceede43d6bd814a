"""A single-node Apache Kafka (KRaft) as a child process that tests can kill.

It listens on free ports of the loopback interface, and can be killed, suspended and restarted.

Thread safety: one call at a time, from any thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import struct
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

from k2eg_rx.embedded.loopback import HOST, free_ports

PLAINTEXT = "PLAINTEXT"

_STORAGE = "kafka.tools.StorageTool"
_BROKER = "kafka.Kafka"
_CONTROLLER = "CONTROLLER"

_START_SECONDS = 300.0  # a start takes 3 s of processor time; the machine may be busy
_STOP_SECONDS = 60.0  # a stop takes 0.5 s, and about 5 s if it writes the class archive
_POLL_SECONDS = 0.2  # seconds between checks for readiness
_CLIENT_SECONDS = 10.0  # after which another client checks: one leaves the address for that which the broker advertises
_BATCH_SIZE = struct.Struct(">qi")  # a record batch begins with its first offset and the number of bytes that follow
_TAIL = 40  # lines of the log in an error; a Java stack trace fits

_JAVA_OPTIONS = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # in a run of minutes the optimizing compiler costs more time than it saves
    "-XX:+ExitOnOutOfMemoryError",
    "-Xlog:cds=error",  # warnings name each class that is not archived
    "-Dlog4j2.level=INFO",
)

# One node, little memory, and no delay for further group members.
_PROPERTIES: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    # On a busy machine a broker may have no time for heartbeats, and would then lead no partition; 9 s by default.
    "broker.session.timeout.ms": "60000",
    "broker.heartbeat.interval.ms": "500",
    "log.index.size.max.bytes": str(1 << 20),  # each partition maps two files of this size; 10 MiB by default
    "log.cleaner.dedupe.buffer.size": str(4 << 20),  # allocated at the start; 128 MiB by default
}

# Properties of a broker that is killed: the controller rejects it at the restart until its session has expired.
SHORT_SESSION: Mapping[str, str] = {"broker.session.timeout.ms": "3000"}

# The kernel kills the broker when the thread that started it ends, also if the tests are killed.
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
_silent.propagate = False  # a starting broker refuses connections, which is expected


class BrokerError(Exception):
    """The broker did not start. The text ends with the last lines of its log."""


@dataclass(frozen=True, slots=True)
class ExternalKafka:
    """A running broker given by its address; it cannot be stopped."""

    address: str


class ApacheKafka:
    """A broker that runs from `start` to `stop`, or as a context manager.

    Attributes:
        ports: The port of each listener, by the listener's name; constant over restarts.
        log: The file with the broker's output.
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
            distribution: Java and the class path.
            folder: An empty folder for data, log and configuration.
            properties: Broker properties; they override the defaults of this module.
            listeners: Further listeners beside the plaintext one: names and security protocols.
            java_options: Options for ``java``; they override the defaults of this module.
        """
        self._distribution = distribution
        self._folder = folder
        self._data = folder / "data"
        self._java_options = (*_JAVA_OPTIONS, *java_options)
        protocols = {PLAINTEXT: PLAINTEXT, _CONTROLLER: PLAINTEXT, **(listeners or {})}
        self.ports = dict(zip(protocols, free_ports(len(protocols)), strict=True))
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
        """The address of the plaintext listener: ``host:port``."""
        return self.address_of(PLAINTEXT)

    def address_of(self, listener: str) -> str:
        """Returns the address of a listener: ``host:port``."""
        return f"{HOST}:{self.ports[listener]}"

    @property
    def pid(self) -> int | None:
        """The process id; None while the broker does not run."""
        return self._process.pid if self._process else None

    def start(self, timeout: float = _START_SECONDS) -> Self:
        """Starts the broker with its previous data, if any; returns when topics can be created.

        Raises:
            BrokerError: The process exited, or was not ready in time.
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
        """Shuts the broker down; kills it if that takes too long. Idempotent."""
        process = self._process
        if process is None:
            return
        process.terminate()
        self.resume()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return
        self._process = None
        if self._new_archive is not None and self._new_archive.exists():
            self._new_archive.replace(self._distribution.class_archive)

    def kill(self) -> None:
        """Kills the process, as a power cut does. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def suspend(self) -> None:
        """Suspends the process (SIGSTOP); its connections stay open. Returns when all of its threads have stopped."""
        self._signal(signal.SIGSTOP)
        if self._process is not None:
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def resume(self) -> None:
        """Resumes the process after `suspend`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def remove_data(self) -> None:
        """Stops the broker and removes its data; the log is kept."""
        self.stop()
        shutil.rmtree(self._data, ignore_errors=True)

    def lose_records(self, topic: str, batches: int) -> None:
        """Removes the last record batches of the partition of a topic that has most of them.

        A power cut does so, as Kafka acknowledges records before they are on disk. The broker must not run.
        """
        logs = {log: _batches(log) for log in self._data.glob(f"{topic}-*/*.log")}
        log, starts = max(logs.items(), key=lambda item: len(item[1]))
        with log.open("r+b") as file:
            file.truncate(starts[-batches])
        for derived in (*log.parent.glob("*index"), *log.parent.glob("*.snapshot")):
            derived.unlink()

    def batches(self, topics: str) -> int:
        """Returns the number of record batches, each a producer's request, in the topics that match a pattern."""
        return sum(len(_batches(log)) for log in self._data.glob(f"{topics}-[0-9]*/*.log"))

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
            raise BrokerError(f"Apache Kafka: formatting the storage failed with code {code}:\n{self.log_tail()}")

    def _await_ready(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        properties: dict[str, str | int | float | bool] = {
            "bootstrap.servers": self.address,
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 100,
        }
        admin, renewal = AdminClient(properties, logger=_silent), time.monotonic() + _CLIENT_SECONDS
        while process.poll() is None:
            if time.monotonic() > renewal:
                admin, renewal = AdminClient(properties, logger=_silent), time.monotonic() + _CLIENT_SECONDS
            with contextlib.suppress(KafkaException):
                if admin.list_topics(timeout=_POLL_SECONDS).brokers:  # listed once topics can be placed on it
                    return
            if time.monotonic() > deadline:
                raise BrokerError(f"Apache Kafka was not ready in time; the end of its log:\n{self.log_tail()}")
        raise BrokerError(f"Apache Kafka ended with code {process.returncode}; the end of its log:\n{self.log_tail()}")

    def _launch(self, main_class: str, *arguments: str, archive: bool = False) -> subprocess.Popen[bytes]:
        installed = self._distribution
        sharing = [f"-XX:SharedArchiveFile={installed.class_archive}"]
        self._new_archive = None
        if archive and not installed.class_archive.exists():
            self._new_archive = installed.class_archive.with_suffix(f".{uuid.uuid4().hex}")
            sharing = [f"-XX:ArchiveClassesAtExit={self._new_archive}"]
        command = [installed.java, *self._java_options, *sharing, "-cp", installed.class_path, main_class, *arguments]
        return _start_process(command, self._folder, self.log)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _batches(log: Path) -> list[int]:
    """Returns the positions of the record batches in a file of a log."""
    content, starts, at = log.read_bytes(), list[int](), 0
    while at + _BATCH_SIZE.size <= len(content):
        _, size = _BATCH_SIZE.unpack_from(content, at)
        if size <= 0:  # the rest of the file is not used yet
            break
        starts.append(at)
        at += _BATCH_SIZE.size + size
    return starts


def _start_process(command: Sequence[str], folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """Starts a process that the kernel kills when this one ends."""
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
                    start_new_session=True,  # Ctrl-C at a terminal interrupts the tests, which then stop the broker
                )
        except BaseException as failure:
            started.set_exception(failure)
            return
        started.set_result(process)
        process.wait()  # the kernel kills the broker when this thread ends

    threading.Thread(target=run, name="apache-kafka", daemon=True).start()
    return started.result()
