"""A whole K2EG installation in this process: a Kafka broker, a real EPICS IOC, a table server and the gateway.

In: nothing, or a database and the address of a broker. Out: the settings with which a client uses it, here or in
another process. The broker, the table server and the gateway run on threads of this process, the IOC is a child; all
are on the loopback interface and free ports. `start` and `close` may be called on any thread, one at a time.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from k2eg_rx.embedded.ports import claim_ports, release_ports
from k2eg_rx.settings import Settings

if TYPE_CHECKING:
    from k2eg_rx.embedded.loopback import ServerPorts

_log = logging.getLogger(__name__)

DEMO_DATABASE = Path(__file__).parent / "database" / "demo.db"

# Those of the environment `demo` (conf/demo.ini), by which other processes use a running stack.
ENVIRONMENT = "demo"
COMMAND_TOPIC = "k2eg-demo-commands"
_GATEWAY = "k2eg-demo-gateway"
_KAFKA = {
    "fetch.wait.max.ms": "5",  # the embedded broker answers a fetch only when this time is over
    "session.timeout.ms": "6000",  # and has the members of a group wait for each other for this long, less a second
}

_RECORD = re.compile(r"""^\s*g?record\s*\(\s*\w+\s*,\s*"?([^\s")]+)"?\s*\)""", re.MULTILINE)

TABLE_PV = "demo:table"
TABLE_COLUMNS = {"element": "s", "device_name": "s", "s": "d", "length": "d"}
TABLE_ROWS: Sequence[dict[str, Any]] = (
    {"element": "SOL1", "device_name": "SOL:DEMO:100", "s": 0.35, "length": 0.20},
    {"element": "QUAD1", "device_name": "QUAD:DEMO:210", "s": 1.25, "length": 0.11},
    {"element": "XCOR1", "device_name": "XCOR:DEMO:221", "s": 1.60, "length": 0.05},
    {"element": "BPM1", "device_name": "BPMS:DEMO:230", "s": 1.85, "length": 0.08},
)

_CLOSE_SECONDS = 2.0  # for all of it: a demo has 3 s to end, its client among them
_LEAST_SECONDS = 0.2  # for a part, even if those before it took all the time


@dataclass(frozen=True, slots=True)
class _Part:
    """Something that runs, and how to end it."""

    name: str
    close: Callable[[], object]


class EmbeddedStack:
    """A K2EG installation that runs from `start` to `close`, or as a context manager."""

    def __init__(
        self,
        database: str | Path | Sequence[str | Path] | None = None,
        broker_address: str | None = None,
        ports: ServerPorts | None = None,
    ) -> None:
        """
        Args:
            database: The IOC's database file, or files; by default the demo's.
            broker_address: A Kafka broker to use, ``host:port``; by default one is started in this process.
            ports: The IOC's ports; by default free ones, the same for all stacks of this process. See `start`.
        """
        given = DEMO_DATABASE if database is None else database
        self._databases = [given] if isinstance(given, str | Path) else list(given)
        self._ports = ports
        self._foreign_broker = broker_address
        self._broker_address = broker_address
        self._client_environment: dict[str, str] = {}
        self._parts: list[_Part] = []

    @property
    def broker_address(self) -> str:
        """The broker's address, ``host:port``.

        Raises:
            RuntimeError: The stack has not been started.
        """
        if self._broker_address is None:
            raise RuntimeError("the embedded stack is not started")
        return self._broker_address

    @property
    def client_environment(self) -> dict[str, str]:
        """The EPICS variables with which an EPICS client finds the stack's PVs, and only them."""
        return dict(self._client_environment)

    def settings(self, app_name: str) -> Settings:
        """Returns the settings for a client of this stack.

        Args:
            app_name: The client's application name.
        """
        return Settings(
            environment_id=ENVIRONMENT,
            broker_url=self.broker_address,
            command_topic=COMMAND_TOPIC,
            reply_topic=f"{app_name}-reply",
            kafka=_KAFKA,
        )

    def start(self) -> Self:
        """Starts everything and returns the stack when the gateway takes commands.

        libca takes one list of addresses for the whole life of a process. So one stack can run at a time; a later one
        uses the same ports. With ports given, whoever gives them sees to it that libca has them in its list.

        Raises:
            RuntimeError: Another stack runs in this process.
            Exception: A part did not start; those before it are stopped again.
        """
        if self._parts:
            return self
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Stops everything, in the reverse order, within seconds. Idempotent; never raises."""
        deadline = time.monotonic() + _CLOSE_SECONDS
        while self._parts:
            part = self._parts.pop()
            _close(part, max(deadline - time.monotonic(), _LEAST_SECONDS))

    def _runs(self, name: str, close: Callable[[], object]) -> None:
        self._parts.append(_Part(name, close))

    def _start(self) -> None:
        # Imported here: the extras are needed by those only who start a stack.
        from k2eg_rx.embedded.broker import EmbeddedBroker  # noqa: PLC0415
        from k2eg_rx.embedded.gateway import start_gateway  # noqa: PLC0415
        from k2eg_rx.embedded.ioc import SoftIoc  # noqa: PLC0415
        from k2eg_rx.embedded.loopback import merge_client_environments  # noqa: PLC0415
        from k2eg_rx.embedded.table_server import TableServer  # noqa: PLC0415

        if self._foreign_broker is None:
            broker = EmbeddedBroker()
            self._runs("broker", broker.close)
            self._broker_address = broker.address
        record = _first_record(self._databases)
        ioc = SoftIoc(self._databases, ports=self._ports or self._own_ports())
        self._runs("IOC", ioc.stop)
        ioc.start()
        table = TableServer(TABLE_PV, TABLE_COLUMNS, TABLE_ROWS)
        self._runs("table", table.stop)
        table.start()
        self._client_environment = merge_client_environments(ioc.client_environment, table.client_environment)
        start_gateway(
            self.settings(_GATEWAY),
            self._client_environment,
            record,
            self._runs,
            manage_topics=self._foreign_broker is not None,
        )

    def _own_ports(self) -> ServerPorts:
        ports = claim_ports()
        self._runs("ports", release_ports)
        return ports

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _first_record(databases: Sequence[str | Path]) -> str:
    """Returns the name of a record: one that the gateway can look for to see that Channel Access works."""
    for database in databases:
        found = _RECORD.search(Path(database).read_text())
        if found:
            return found[1]
    raise ValueError(f"there is no record in {', '.join(map(str, databases))}")


def _close(part: _Part, seconds: float) -> None:
    """Closes a part on a thread of its own, so that one that hangs holds up nothing."""

    def close() -> None:
        try:
            part.close()
        except Exception:
            _log.exception("%s did not close properly", part.name)

    closing = threading.Thread(target=close, name=f"k2eg-close-{part.name}", daemon=True)
    closing.start()
    closing.join(seconds)
    if closing.is_alive():
        _log.warning("%s did not close within %.1f s", part.name, seconds)
