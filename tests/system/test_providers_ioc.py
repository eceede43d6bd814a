"""The soft IOC: start, errors, stop."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from k2eg_rx.embedded.ioc import IocError, SoftIoc
from k2eg_rx.embedded.loopback import (
    HOST,
    ServerPorts,
    free_ports,
    merge_client_environments,
    without_epics,
)
from k2eg_rx.gateway.epics.pva_provider import PVAccessProvider
from k2eg_rx.pv import PVAddress

TIMEOUT = 60.0
RECORD = 'record(ao, "$(P=)x") { field(VAL, "$(V=1)") field(PINI, "YES") }\n'


@pytest.fixture
def database(tmp_path: Path) -> Path:
    file = tmp_path / "x.db"
    file.write_text(RECORD)
    return file


def value_of(ioc: SoftIoc, name: str) -> float:
    provider = PVAccessProvider(ioc.client_environment)
    value: float = provider.get(PVAddress.parse(f"pva://{name}"), TIMEOUT).result(TIMEOUT).structure["value"]
    provider.close()
    return value


def test_stopped_programs_hide_no_pvs(database: Path) -> None:
    with SoftIoc(database) as ioc, ExitStack() as stack:
        for _ in range(30):  # programs that have bound the search port and read nothing
            stopped = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                stopped.setsockopt(socket.SOL_SOCKET, option, 1)
            stopped.bind(("", ioc.ports.pva_search))
        assert value_of(ioc, "x") == 1.0


@contextmanager
def process_descriptor(pid: int | None) -> Iterator[int]:
    """Yields a descriptor that becomes readable when the process ends."""
    assert pid is not None
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def ended(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], TIMEOUT)[0])


def test_it_serves_records_between_start_and_stop(database: Path) -> None:
    ioc = SoftIoc(database)
    assert ioc.pid is None
    ioc.start()
    assert ioc.start() is ioc
    assert value_of(ioc, "x") == 1.0
    with process_descriptor(ioc.pid) as process, socket.socket() as probe:
        ioc.stop()
        ioc.stop()
        assert ended(process)
        assert ioc.pid is None
        assert probe.connect_ex((HOST, ioc.ports.ca)) != 0


def test_it_serves_several_databases_with_macros(tmp_path: Path, database: Path) -> None:
    second = tmp_path / "second.db"
    second.write_text('record(ao, "$(P)y") { field(VAL, "2") field(PINI, "YES") }')
    with SoftIoc([database, str(second)], {"P": "my:", "V": "7"}) as ioc:
        assert (value_of(ioc, "my:x"), value_of(ioc, "my:y")) == (7.0, 2.0)


def test_it_restarts_on_the_same_ports(database: Path) -> None:
    ioc = SoftIoc(database)
    with ioc:
        before = ioc.client_environment
    with ioc:
        assert ioc.client_environment == before
        assert value_of(ioc, "x") == 1.0


def test_an_invalid_database_is_an_error_with_the_ioc_output(tmp_path: Path) -> None:
    with pytest.raises(IocError, match=r"(?s)the IOC ended with code 1; its output:.*Can't open file '.*none.db'"):
        SoftIoc(tmp_path / "none.db").start()
    bad = tmp_path / "bad.db"
    bad.write_text('record(nonsense, "x") {}')
    with pytest.raises(IocError, match=r"(?s)nonsense"):
        SoftIoc(bad).start()


def test_a_requested_port_in_use_is_an_error_and_a_chosen_one_is_avoided(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as occupied:
        occupied.bind((HOST, 0))
        occupied.listen()
        used = ServerPorts(occupied.getsockname()[1], *free_ports(2))
        with pytest.raises(IocError, match=f"the IOC's port {used.ca} is in use"):
            SoftIoc(database, ports=used).start()
        offered = iter([used, ServerPorts(*free_ports(3))])
        monkeypatch.setattr(ServerPorts, "free", lambda: next(offered))
        with SoftIoc(database) as ioc:
            assert ioc.ports.ca != used.ca
            assert value_of(ioc, "x") == 1.0


def test_it_ignores_the_epics_variables_of_the_environment(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPICS_PVAS_INTF_ADDR_LIST", "192.0.2.1")
    monkeypatch.setenv("EPICS_CAS_INTF_ADDR_LIST", "192.0.2.1")
    with SoftIoc(database) as ioc:
        assert value_of(ioc, "x") == 1.0


def test_its_output_is_logged(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "k2eg_rx.embedded.ioc"), SoftIoc(database):
        pass
    assert "iocRun: All initialization complete" in caplog.text


@pytest.mark.parametrize("fork", ["", "if os.fork() == 0: sys.stdin.read(); os._exit(0)"])
def test_it_ends_when_its_owner_is_killed(database: Path, fork: str) -> None:
    """It ends even if a fork of the owner keeps the pipe to the IOC's input open."""
    script = (
        "import os, sys\n"
        "from k2eg_rx.embedded.ioc import SoftIoc\n"
        "ioc = SoftIoc(sys.argv[1]).start()\n"
        f"{fork}\n"
        "print(ioc.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script, str(database)],
        env=without_epics(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        with process_descriptor(int(owner.stdout.readline())) as process:
            owner.send_signal(signal.SIGKILL)
            assert ended(process)


def test_it_is_killed_if_it_does_not_exit(database: Path) -> None:
    ioc = SoftIoc(database).start()
    with process_descriptor(ioc.pid) as process:
        assert ioc.pid is not None
        os.kill(ioc.pid, signal.SIGSTOP)  # it does not read the end of its input
        ioc.stop()
        assert ended(process)


def test_free_ports_are_distinct_and_free_for_tcp_and_udp() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    for port in ports:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as own:
                own.bind((HOST, port))


def test_client_environments_merge_their_addresses() -> None:
    one, other = ServerPorts(1, 2, 3), ServerPorts(4, 5, 6)
    merged = merge_client_environments(
        one.ca_client_environment | one.pva_client_environment, other.pva_client_environment, one.ca_client_environment
    )
    assert merged == {
        "EPICS_CA_ADDR_LIST": "127.0.0.1:1",
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
        "EPICS_PVA_ADDR_LIST": "127.0.0.1:3 127.0.0.1:6",
        "EPICS_PVA_AUTO_ADDR_LIST": "NO",
        "EPICS_PVA_BROADCAST_PORT": "3",
        "EPICS_PVA_NAME_SERVERS": "127.0.0.1:2 127.0.0.1:5",
    }
