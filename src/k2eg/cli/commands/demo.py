"""``k2eg demo``: runs a broker, an IOC and a gateway, and shows the IOC's PVs live.

It prints a table on a terminal, lines elsewhere, until Ctrl-C or SIGTERM.

Thread safety: main thread only.
"""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from k2eg.cli.arguments import Parser, broker
from k2eg.cli.demo_pvs import PVS, catalogue_lines
from k2eg.cli.demo_registry import DemoError, DemoRegistration
from k2eg.cli.output import print_lines
from k2eg.cli.printing.formatting import Formatter
from k2eg.cli.printing.live_rows import LiveRows
from k2eg_rx import Client, PVAddress, PVUpdate
from k2eg_rx.concurrency import TerminationSignals
from k2eg_rx.errors import require_extra

if TYPE_CHECKING:
    from k2eg_rx.embedded import EmbeddedStack

APP_NAME = "k2eg-demo"
DEMO_MODULES = ("p4p", "aioca", "numpy", "pvxslibs", "rich")

_REFRESH_SECONDS = 0.2  # numbers that change faster cannot be read
_LINES_SECONDS = 1.0  # between two lines of a PV without a terminal
_CLIENT_CLOSE_SECONDS = 0.8  # of the 3 s in which the demo ends; the stack takes the rest


def demo(arguments: Namespace) -> None:
    """Runs the demo until Ctrl-C or SIGTERM, or runs its tour.

    Raises:
        ModuleNotFoundError: The extra ``demo`` is not installed.
        DemoError: Another demo is running.
        Exception: A part did not start, or a step of the tour failed.
    """
    if arguments.list:
        print("\n".join(catalogue_lines(arguments.db)))
        return
    require_extra("demo", DEMO_MODULES, "`k2eg demo`")
    _clear_epics_variables()
    if arguments.tour:
        _tour(arguments)
        return
    registration = DemoRegistration()
    with TerminationSignals() as signals:
        registration.check()
        with _stack(arguments) as stack, _client(stack) as client:
            try:
                registration.register(stack.broker_address)
                rows = LiveRows(PVAddress.parse(uri).name for uri in PVS)
                client.monitor_many_stream(PVS, overflow="latest").subscribe(
                    lambda update: rows.add(update, time.monotonic())
                )
                signals.defer()
                print("\n".join([*catalogue_lines(arguments.db), ""]), flush=True)
                show = _show_table if sys.stdout.isatty() else _show_lines
                show(heading(stack.broker_address), rows, signals.wait)
            finally:
                signals.defer()
                registration.unregister()
    print("stopped")


def _clear_epics_variables() -> None:
    """Removes the site's EPICS settings from this process, so that only the demo's PVs are found."""
    for name in [name for name in os.environ if name.startswith("EPICS_")]:
        del os.environ[name]


def _tour(arguments: Namespace) -> None:
    from k2eg.cli.commands.tour import Tour  # noqa: PLC0415 - only the tour needs it

    with TerminationSignals(), _stack(arguments) as stack, _client(stack) as client:
        Tour(client, print).run()


@contextmanager
def _stack(arguments: Namespace) -> Generator[EmbeddedStack]:
    from k2eg_rx.embedded import DEMO_DATABASE, EmbeddedStack  # noqa: PLC0415 - slow to import, and part of an extra

    broker_address: str | None = arguments.kafka
    for database in arguments.db:
        if not database.is_file():
            raise DemoError(f"--db must be a database file, got {database}, which does not exist")

    if broker_address is None:
        print("starting a Kafka broker, an EPICS IOC and a gateway ...", flush=True)
    else:
        print(f"starting an EPICS IOC and a gateway, with the Kafka broker at {broker_address} ...", flush=True)
    databases = [DEMO_DATABASE, *arguments.db]
    with EmbeddedStack(databases, broker_address, pva=arguments.pva, ca=arguments.ca) as stack:
        yield stack


@contextmanager
def _client(stack: EmbeddedStack) -> Generator[Client]:
    client = Client("demo", APP_NAME, settings=stack.settings(APP_NAME))
    try:
        yield client
    finally:
        client.close(_CLIENT_CLOSE_SECONDS)


def heading(broker_address: str) -> list[str]:
    """Returns the lines above the table: title and commands to try."""
    return [
        f"K2EG demo: EPICS -> gateway -> Kafka at {broker_address} -> here (Ctrl-C ends it)",
        "Try in another terminal:  k2eg -e demo put pva://demo:setpoint1 8.5",
        "                          k2eg -e demo get pva://demo:sum ca://demo:mode",
        "",
    ]


def _show_table(lines: Sequence[str], rows: LiveRows, wait: Callable[[float], bool]) -> None:
    from rich.console import Console  # noqa: PLC0415 - an extra
    from rich.live import Live  # noqa: PLC0415

    from k2eg.cli.printing.live_table import live_table  # noqa: PLC0415

    addresses = [PVAddress.parse(uri) for uri in PVS]
    # On the alternate screen: the terminal's content is restored at the end.
    with Live(console=Console(), screen=True, auto_refresh=False) as live:
        while True:
            live.update(live_table(lines, addresses, rows.rows(time.monotonic()), time.time_ns()), refresh=True)
            if wait(_REFRESH_SECONDS):
                return


def _show_lines(lines: Sequence[str], rows: LiveRows, wait: Callable[[float], bool]) -> None:
    print("\n".join(lines), flush=True)
    formatter = Formatter(name_width=max(len(PVAddress.parse(uri).name) for uri in PVS))
    shown: dict[str, PVUpdate] = {}
    while not wait(_LINES_SECONDS):
        for row in rows.rows(time.monotonic()):
            if row.data is not None and shown.get(row.name) is not row.data:
                shown[row.name] = row.data
                print_lines(formatter.pv(row.data))


def add_arguments(parser: Parser) -> None:
    """Adds the arguments of ``demo``."""
    parser.add_argument("--tour", action="store_true", help="run each operation once, print the results, and exit")
    parser.add_argument(
        "--kafka", type=broker, metavar="HOST:PORT", help="use this Kafka broker instead of an embedded one"
    )
    parser.add_argument("--list", action="store_true", help="print what PVs there are, and exit")
    parser.add_argument(
        "--db", type=Path, action="append", default=[], metavar="FILE", help="serve the records of this database too"
    )
    for protocol, name in {"pva": "PVAccess", "ca": "Channel Access"}.items():
        parser.add_argument(
            f"--{protocol}",
            type=broker,
            action="append",
            default=[],
            metavar="HOST:PORT",
            help=f"serve the PVs of this IOC too, over {name}",
        )
