"""Fixtures of the fault tests: a gateway that can be killed, clients, and a collector of updates."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from apache_kafka import ApacheKafka, ExternalKafka
from fleet_application import Application

from k2eg_rx import Client, PVUpdate
from k2eg_rx.settings import Settings

PATIENCE = 120.0  # seconds until a test fails; a passing test never waits that long
TEST_TIMEOUT = 900.0  # seconds for a whole test; a single wait fails much earlier


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Extends the timeout of these tests, which restart brokers and processes on machines that may be busy."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT))


class Collector:
    """Keeps the values of each PV in order, and how the streams ended."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.values: dict[str, list[int]] = defaultdict(list)
        self.ends: list[object] = []

    def on_next(self, update: PVUpdate) -> None:
        with self.changed:
            self.values[update.name].append(update.value)
            self.changed.notify_all()

    def on_end(self, error: object = "completed") -> None:
        with self.changed:
            self.ends.append(error)
            self.changed.notify_all()

    def wait_until(self, happened: Callable[[], bool], what: str, timeout: float = PATIENCE) -> None:
        with self.changed:
            if not self.changed.wait_for(happened, timeout):
                last = {name: values[-3:] for name, values in sorted(self.values.items())[:5]}
                pytest.fail(f"waited for {what}; {len(self.values)} PVs, {last}, ends: {self.ends}")

    def wait_for_last_values(self, last: Mapping[str, int]) -> None:
        """Waits until the last value of each PV has arrived."""
        self.wait_until(
            lambda: all(self.values[name][-1:] == [value] for name, value in last.items()), "each PV's last value"
        )

    def wait_for_progress(self, count: int = 3) -> None:
        """Waits for a number of further values of each PV."""
        with self.changed:
            before = {name: len(values) for name, values in self.values.items()}
        self.wait_until(
            lambda: all(len(self.values[name]) >= number + count for name, number in before.items()), "further values"
        )


class GatewayProcess:
    """A gateway in a process of its own; its PVs count."""

    def __init__(self, **arguments: Any) -> None:
        script = Path(__file__).with_name("gateway_process.py")
        self._process = subprocess.Popen(
            [sys.executable, script, json.dumps(arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._read() == "ready\n"

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()

    def pause(self) -> dict[str, int]:
        """Stops the counting; returns the last value of each PV."""
        self._write("pause\n")
        return json.loads(self._read())["last"]

    def resume(self) -> None:
        """Continues the counting."""
        self._write("resume\n")

    def freeze(self) -> None:
        """Stops the process, as a virtual machine is paused; returns when it has stopped."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def thaw(self) -> None:
        """Continues a frozen process."""
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ends the gateway as SIGTERM does; returns when the process has ended."""
        self._process.communicate(timeout=PATIENCE)

    def kill(self) -> None:
        """Kills the process, as a power cut does. Idempotent."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


class Site:
    """A broker with a command topic of the test; makes gateways and clients.

    Args:
        broker: The broker's address.
        stack: Closes the gateways and clients.
    """

    def __init__(self, broker: str, stack: ExitStack) -> None:
        self.broker = broker
        self.name = uuid.uuid4().hex[:8]
        self._stack = stack

    def gateway(
        self,
        rate: float = 20.0,
        first: int = 0,
        kafka: Mapping[str, str] | None = None,
        epics: Mapping[str, str] | None = None,
        **options: Any,
    ) -> GatewayProcess:
        """Returns a running gateway, of PVs that count or, with `epics`, of those that the variables lead to."""
        gateway = GatewayProcess(
            broker=self.broker,
            commands=f"commands-{self.name}",
            rate=rate,
            first=first,
            kafka=dict(kafka or {}),
            epics=dict(epics or {}),
            options={"group": f"gateways-{self.name}", **options},
        )
        self._stack.callback(gateway.kill)
        return gateway

    def settings(self, app_name: str, *, events_topic: str = "", **kafka: str) -> Settings:
        """Returns the settings of a client."""
        commands, replies = f"commands-{self.name}", f"{app_name}-reply"
        return Settings("faults", self.broker, commands, replies, kafka, events_topic=events_topic)

    def client(
        self, app_name: str | None = None, group_name: str | None = None, *, events_topic: str = "", **arguments: Any
    ) -> Client:
        """Returns a client; by default its application name is unique."""
        name = app_name or f"app-{uuid.uuid4().hex[:8]}"
        arguments.setdefault("timeout", PATIENCE)  # of activations
        settings = self.settings(name, events_topic=events_topic)
        return self._stack.enter_context(Client("faults", name, group_name=group_name, settings=settings, **arguments))

    def uris(self, count: int) -> list[str]:
        """Returns URIs of PVs that no other test uses."""
        return [f"pva://{self.name}:pv{number:04}" for number in range(count)]


@pytest.fixture
def make_site() -> Iterator[Callable[[str], Site]]:
    """Makes a `Site` of a broker's address."""
    with ExitStack() as stack:
        yield lambda address: Site(address, stack)


@pytest.fixture
def site(apache_kafka: ApacheKafka | ExternalKafka, make_site: Callable[[str], Site]) -> Site:
    """A `Site` on the shared broker, which stays up."""
    return make_site(apache_kafka.address)


@pytest.fixture
def collector() -> Collector:
    return Collector()


@pytest.fixture
def make_collector() -> type[Collector]:
    return Collector


class IOC:
    """A PVAccess server whose PVs count, apart from the gateways: each update has a number of its own.

    Attributes:
        uris: The PVs that count.
        settable: PVs that keep what is put to them.
        puts: What was put to each of these, by URI, in order.
    """

    def __init__(self, prefix: str, count: int, rate: float, settable: int = 0) -> None:
        from p4p.nt import NTScalar
        from p4p.server import Server
        from p4p.server.thread import SharedPV

        def keep(puts: list[int]) -> Callable[[Any, Any], None]:
            def put(pv: Any, operation: Any) -> None:
                puts.append(int(operation.value()))
                pv.post(operation.value())
                operation.done()

            return put

        self._pvs = [SharedPV(nt=NTScalar("i"), initial=0) for _ in range(count)]
        names = [f"{prefix}:n{number}" for number in range(count)]
        self.uris = [f"pva://{name}" for name in names]
        self.settable = [f"pva://{prefix}:set{number}" for number in range(settable)]
        self.puts: dict[str, list[int]] = {uri: [] for uri in self.settable}
        served = dict(zip(names, self._pvs, strict=True))
        for uri, puts in self.puts.items():
            served[uri.removeprefix("pva://")] = pv = SharedPV(nt=NTScalar("i"), initial=0)
            pv.put(keep(puts))
        self._server = Server(providers=[served], isolate=True)
        self.variables = {**self._server.conf(), "EPICS_PVA_AUTO_ADDR_LIST": "NO"}
        self._closing = threading.Event()
        self._period = 1 / rate
        self._thread = threading.Thread(target=self._count, daemon=True)
        self._thread.start()

    def _count(self) -> None:
        number = 0
        while not self._closing.wait(self._period):
            number += 1
            for pv in self._pvs:
                pv.post(number, timestamp=time.time())

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self._server.stop()


@pytest.fixture
def make_ioc(site: Site) -> Iterator[Callable[..., IOC]]:
    """Makes an IOC; takes the number of its PVs, their rate, and the number of settable PVs."""
    with ExitStack() as stack:

        def make(*arguments: Any) -> IOC:
            made = IOC(site.name, *arguments)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def ioc(make_ioc: Callable[..., IOC]) -> IOC:
    """An IOC with five PVs that count at 20 Hz."""
    return make_ioc(5, 20.0)


@pytest.fixture
def application(site: Site) -> Iterator[Application]:
    """A bare client."""
    with closing(Application(site)) as made:
        yield made
