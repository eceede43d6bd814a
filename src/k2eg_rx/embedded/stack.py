"""A K2EG installation in this process: Kafka broker, EPICS IOC, table server and gateway.

Broker, table server and gateway run on threads of this process, the IOC is a child process; all use free ports of the
loopback interface.

Thread safety: `start` and `close` on any thread, one at a time.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from k2eg_rx.embedded.ports import claim_ports, release_ports
from k2eg_rx.settings import DEMO_KAFKA, Settings
from k2eg_rx.texts import get_logger

if TYPE_CHECKING:
    from k2eg_rx.embedded.loopback import ServerPorts

_log = get_logger(__name__)

DEMO_DATABASE = Path(__file__).parent / "database" / "demo.db"

# The values of environment `demo` (conf/demo.ini), with which other processes use a running stack.
ENVIRONMENT = "demo"
COMMAND_TOPIC = "k2eg-demo-commands"
_GATEWAY = "k2eg-demo-gateway"
_RECORD = re.compile(r"""^\s*g?record\s*\(\s*\w+\s*,\s*"?([^\s")]+)"?\s*\)""", re.MULTILINE)

CAMERA_PV = "demo:camera"
TABLE_PV = "demo:table"
TABLE_COLUMNS = {"element": "s", "device_name": "s", "s": "d", "length": "d"}
TABLE_ROWS: Sequence[dict[str, Any]] = (
    {"element": "SOL1", "device_name": "SOL:DEMO:100", "s": 0.35, "length": 0.20},
    {"element": "QUAD1", "device_name": "QUAD:DEMO:210", "s": 1.25, "length": 0.11},
    {"element": "XCOR1", "device_name": "XCOR:DEMO:221", "s": 1.60, "length": 0.05},
    {"element": "BPM1", "device_name": "BPMS:DEMO:230", "s": 1.85, "length": 0.08},
)

_CLOSE_SECONDS = 2.0  # for all parts: a demo ends within 3 s, its client included
_MIN_SECONDS = 0.2  # per part, even if earlier parts used up the time


@dataclass(frozen=True, slots=True)
class _Part:
    """A running part and its close function."""

    name: str
    close: Callable[[], object]


class EmbeddedStack:
    """A K2EG installation that runs from `start` to `close`; also a context manager."""

    def __init__(
        self,
        database: str | Path | Sequence[str | Path] | None = None,
        broker_address: str | None = None,
        ports: ServerPorts | None = None,
        pva: Sequence[str] = (),
        ca: Sequence[str] = (),
    ) -> None:
        """
        Args:
            database: The IOC's database file or files; by default the demo's.
            broker_address: The address of a Kafka broker, ``host:port``; by default a broker starts in this process.
            ports: The IOC's ports; by default free ones, the same for all stacks of this process. See `start`.
            pva: Addresses, ``host`` or ``host:port``, of other IOCs whose PVs the gateway serves too, over PVAccess.
            ca: The same over Channel Access.
        """
        given = DEMO_DATABASE if database is None else database
        self._databases = [given] if isinstance(given, str | Path) else list(given)
        self._ports = ports
        self._others = {"EPICS_PVA_ADDR_LIST": " ".join(pva), "EPICS_CA_ADDR_LIST": " ".join(ca)}
        self._external_broker = broker_address
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
        """The EPICS variables for an EPICS client of the stack's PVs only."""
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
            kafka=DEMO_KAFKA,
        )

    def start(self) -> Self:
        """Starts all parts and returns the stack when the gateway accepts commands.

        libca reads its address list once per process. Therefore one stack can run at a time, and later ones use the
        same ports. A caller that passes ports must ensure that libca's list contains them.

        Raises:
            RuntimeError: Another stack is running in this process.
            Exception: A part did not start; the parts before it are stopped.
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
        """Stops all parts in reverse order, within seconds. Idempotent; never raises."""
        deadline = time.monotonic() + _CLOSE_SECONDS
        while self._parts:
            part = self._parts.pop()
            _close(part, max(deadline - time.monotonic(), _MIN_SECONDS))

    def _add_part(self, name: str, close: Callable[[], object]) -> None:
        self._parts.append(_Part(name, close))

    def _start(self) -> None:
        # Imported here, because only a running stack needs the extra.
        from k2eg_rx.embedded.broker import EmbeddedBroker  # noqa: PLC0415
        from k2eg_rx.embedded.camera import Camera  # noqa: PLC0415
        from k2eg_rx.embedded.gateway import start_gateway  # noqa: PLC0415
        from k2eg_rx.embedded.ioc import SoftIoc  # noqa: PLC0415
        from k2eg_rx.embedded.loopback import merge_client_environments  # noqa: PLC0415
        from k2eg_rx.embedded.table_server import TableServer  # noqa: PLC0415

        if self._external_broker is None:
            broker = EmbeddedBroker()
            self._add_part("broker", broker.close)
            self._broker_address = broker.address
        record = _first_record(self._databases)
        ioc = SoftIoc(self._databases, ports=self._ports or self._own_ports())
        self._add_part("IOC", ioc.stop)
        ioc.start()
        camera = Camera("demo:beamsize", "demo:bpm10", ioc.client_environment)
        self._add_part("camera", camera.close)
        table = TableServer(TABLE_PV, TABLE_COLUMNS, TABLE_ROWS, others={CAMERA_PV: camera.pv})
        self._add_part("table", table.stop)
        table.start()
        self._client_environment = merge_client_environments(
            ioc.client_environment, table.client_environment, self._others
        )
        start_gateway(
            self.settings(_GATEWAY),
            self._client_environment,
            record,
            self._add_part,
            manage_topics=self._external_broker is not None,
        )

    def _own_ports(self) -> ServerPorts:
        ports = claim_ports()
        self._add_part("ports", release_ports)
        return ports

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _first_record(databases: Sequence[str | Path]) -> str:
    """Returns the name of the first record, which the gateway reads to check Channel Access."""
    for database in databases:
        found = _RECORD.search(Path(database).read_text())
        if found:
            return found[1]
    raise ValueError(f"no record in {', '.join(map(str, databases))}")


def _close(part: _Part, seconds: float) -> None:
    """Closes a part on a thread of its own, so that a part that hangs does not block the others."""

    def close() -> None:
        try:
            part.close()
        except Exception:
            _log.exception("closing a part failed: part=%s", part.name)

    closing = threading.Thread(target=close, name=f"k2eg-close-{part.name}", daemon=True)
    closing.start()
    closing.join(seconds)
    if closing.is_alive():
        _log.warning("closing a part timed out: part=%s seconds=%.1f", part.name, seconds)
