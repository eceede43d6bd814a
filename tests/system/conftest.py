"""Fixtures: real broker, IOC and gateway on the loopback interface, started once per session."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial, wraps
from pathlib import Path
from typing import Generic, TypeVar
from weakref import WeakSet

import pytest
import reactivex as rx

from k2eg_rx import Client
from k2eg_rx.embedded import EmbeddedStack
from k2eg_rx.embedded.ioc import SoftIoc
from k2eg_rx.embedded.loopback import HOST, ServerPorts, without_epics
from k2eg_rx.embedded.ports import claim_ports, release_ports
from k2eg_rx.embedded.stack import COMMAND_TOPIC
from k2eg_rx.gateway.gateway import Gateway
from k2eg_rx.gateway.runtime.event_loop import call_soon

DATA = Path(__file__).parents[1] / "data"
INI = "[DEFAULT]\nkafka_broker_url={broker}\nk2eg_cmd_topic={commands}\n[kafka]\nfetch.wait.max.ms=5\n"
ENDS_WITHIN = 90.0  # seconds for a subprocess to start, work and end on a busy machine
TIMEOUT = 60.0  # seconds until something that should happen is missing

_T = TypeVar("_T")


_gateways: WeakSet[Gateway] = WeakSet()  # of this process


@pytest.fixture(scope="session", autouse=True)
def gateways_are_known() -> Iterator[None]:
    """Remembers each gateway that is made.

    `gc.get_objects` would refer to the tuples that other threads are making, which then fail with `SystemError`.
    """
    make = Gateway.__init__

    @wraps(make)
    def remember(self: Gateway, *arguments: object, **keywords: object) -> None:
        make(self, *arguments, **keywords)  # type: ignore[arg-type]
        _gateways.add(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Gateway, "__init__", remember)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the state of this process's gateways to the report of a failed test, and what changes within a second."""
    report = yield
    if report.failed:
        gateways = list(_gateways)
        lines: list[str] = []
        for _ in range(2):
            lines += [f"{gateway.metrics}\n{gateway.state()}" for gateway in gateways]
            time.sleep(1.0)
        report.sections.append(("gateways", "\n".join(lines)))
    return report


class Collected(Generic[_T]):
    """Records the items of a stream and waits for them."""

    def __init__(self, stream: rx.Observable[_T]) -> None:
        self.items: list[_T] = []
        self.errors: list[Exception] = []
        self.completed = False
        self.started = datetime.now(UTC)  # the broker may have older events of the PVs, from other tests
        self._condition = threading.Condition()
        self.subscription = stream.subscribe(self._next, self._error, self._end)

    def _next(self, item: _T) -> None:
        with self._condition:
            self.items.append(item)
            self._condition.notify_all()

    def _error(self, error: Exception) -> None:
        with self._condition:
            self.errors.append(error)
            self._condition.notify_all()

    def _end(self) -> None:
        with self._condition:
            self.completed = True
            self._condition.notify_all()

    def until(self, happened: Callable[[Collected[_T]], object]) -> Collected[_T]:
        """Waits until a condition on the recorded items holds."""
        with self._condition:
            assert self._condition.wait_for(lambda: happened(self), TIMEOUT), (self.items[-3:], self.errors)
        return self

    def until_count(self, count: int) -> list[_T]:
        """Waits for a number of items in total; returns all."""
        return self.until(lambda collected: len(collected.items) >= count or collected.errors).items

    def until_more(self, count: int) -> list[_T]:
        """Waits for a number of further items; returns all."""
        return self.until_count(len(self.items) + count)

    def until_end(self) -> None:
        """Waits until the stream has completed or failed."""
        self.until(lambda collected: collected.completed or collected.errors)


@dataclass(frozen=True)
class PvsServer:
    """Serves the PVAccess variables of tests/data/pvs.py in a subprocess."""

    client_environment: Mapping[str, str]


@pytest.fixture(scope="module", autouse=True)
def monitors_end_with_their_module() -> Iterator[None]:
    """Ends the monitors that the tests of a module have left.

    The gateway does not know their listeners on the embedded broker, and would publish them for the whole session.
    """
    yield
    for gateway in list(_gateways):
        call_soon(gateway._loop, partial(gateway._handler.expire, {}))


@pytest.fixture(scope="session", autouse=True)
def records_ioc() -> Iterator[SoftIoc]:
    """An IOC with the records of tests/data/records.db.

    libca reads its addresses once per process. So they include those of the stack, which may start after a test that
    uses libca. This IOC is found as a name server, whose address is additional; it must run before libca starts.
    """
    with SoftIoc(DATA / "records.db") as ioc, pytest.MonkeyPatch.context() as environment:
        environment.setenv("EPICS_CA_NAME_SERVERS", f"{HOST}:{ioc.ports.ca}")
        environment.setenv("EPICS_CA_AUTO_ADDR_LIST", "NO")
        environment.setenv("EPICS_CA_ADDR_LIST", f"{HOST}:{claim_ports().ca}")  # of the stack, which may start later
        release_ports()
        yield ioc


@pytest.fixture(scope="session")
def pvs_server() -> Iterator[PvsServer]:
    """A server with the PVAccess variables of tests/data/pvs.py."""
    ports = ServerPorts.free()
    server = subprocess.Popen(
        [sys.executable, DATA / "pvs.py"],
        env=without_epics() | ports.pva_server_environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with server:  # leaving it closes the server's input, which ends it
        assert server.stdout is not None
        assert server.stdout.readline() == "up\n"
        yield PvsServer(ports.pva_client_environment)


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest) -> Iterator[EmbeddedStack]:
    """Broker, IOC with the demo's records, table server and gateway: started once for all tests.

    With ``pytest --broker apache`` the broker is an Apache Kafka.
    """
    on_apache = request.config.getoption("--broker") == "apache"
    address = request.getfixturevalue("apache_kafka").address if on_apache else None
    with EmbeddedStack(broker_address=address) as stack:
        yield stack


@pytest.fixture
def fresh_app_name() -> str:
    """A unique application name, so that each test has its own reply topic and group."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def client(stack: EmbeddedStack, fresh_app_name: str) -> Iterator[Client]:
    """A client of the stack."""
    with Client("demo", fresh_app_name, settings=stack.settings(fresh_app_name)) as client:
        yield client


@pytest.fixture
def environment(stack: EmbeddedStack, tmp_path: Path, fresh_app_name: str) -> dict[str, str]:
    """A process environment with the documented variables."""
    (tmp_path / "stack.ini").write_text(INI.format(broker=stack.broker_address, commands=COMMAND_TOPIC))
    return {
        **os.environ,
        "K2EG_PYTHON_CONFIGURATION_PATH_FOLDER": str(tmp_path),
        "K2EG_CLI_DEFAULT_ENVIRONMENT": "stack",
        "K2EG_CLI_DEFAULT_APP_NAME": fresh_app_name,
    }


Start = Callable[..., "subprocess.Popen[str]"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def start(environment: dict[str, str]) -> Start:
    """Starts the command line."""

    def start(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "k2eg.cli", *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def run(start: Start) -> Run:
    """Runs the command line to its end."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        with start(*words) as process:
            try:
                out, err = process.communicate(timeout=ENDS_WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = process.communicate()
                pytest.fail(f"k2eg {' '.join(words)} did not end; output: {out!r} {err!r}")
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    return run
