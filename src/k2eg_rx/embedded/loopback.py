"""EPICS on the loopback interface: free ports and the environment variables for servers and clients."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

HOST = "127.0.0.1"

_ADDRESS_LISTS = ("EPICS_CA_ADDR_LIST", "EPICS_PVA_ADDR_LIST", "EPICS_PVA_NAME_SERVERS")
# Below the range of outgoing connections (Linux: 32768 and up), from which any program of this machine may get a number
# between the choice here and the server's bind. While a server is down, a client could even be connected to itself.
_PORTS = range(10_000, 32_000)
_PORT_ATTEMPTS = 500  # an attempt fails only if the number is in use
_generator = random.SystemRandom()  # programs seed the default generator: two of them would choose the same ports


def _tcp_and_udp_port(sockets: ExitStack) -> int:
    for _ in range(_PORT_ATTEMPTS):
        port = _generator.choice(_PORTS)
        stream = sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        datagram = sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        try:
            stream.bind((HOST, port))
            datagram.bind((HOST, port))
        except OSError:
            continue
        return port
    raise OSError("no port is free for both TCP and UDP on the loopback interface")


def free_ports(count: int) -> list[int]:
    """Returns distinct port numbers that are free for TCP and UDP at present."""
    with ExitStack() as sockets:
        return [_tcp_and_udp_port(sockets) for _ in range(count)]


@dataclass(frozen=True, slots=True)
class ServerPorts:
    """The ports of one server.

    Attributes:
        ca: Channel Access, TCP and UDP.
        pva: PVAccess, TCP.
        pva_search: PVAccess, the UDP port for search requests.
    """

    ca: int
    pva: int
    pva_search: int

    @classmethod
    def free(cls) -> ServerPorts:
        """Returns ports that are free at present."""
        return cls(*free_ports(3))

    @property
    def pva_server_environment(self) -> dict[str, str]:
        """Variables for a PVAccess server on these ports, loopback interface only."""
        return {
            "EPICS_PVAS_SERVER_PORT": str(self.pva),
            "EPICS_PVAS_BROADCAST_PORT": str(self.pva_search),
            "EPICS_PVAS_INTF_ADDR_LIST": HOST,
            "EPICS_PVAS_BEACON_ADDR_LIST": HOST,
            "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
        }

    @property
    def ca_server_environment(self) -> dict[str, str]:
        """Variables for a Channel Access server on these ports, loopback interface only."""
        return {
            "EPICS_CAS_SERVER_PORT": str(self.ca),
            "EPICS_CAS_INTF_ADDR_LIST": HOST,
            "EPICS_CAS_BEACON_ADDR_LIST": HOST,
            "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
        }

    @property
    def pva_client_environment(self) -> dict[str, str]:
        """Variables for a PVAccess client of this server only.

        A client searches by TCP as well. All PVAccess programs of a host bind the search port, and a datagram reaches
        any one of them, which passes it on to the others: one that is stopped by a signal hides PVs from the others.
        """
        return {
            "EPICS_PVA_ADDR_LIST": f"{HOST}:{self.pva_search}",
            "EPICS_PVA_AUTO_ADDR_LIST": "NO",
            "EPICS_PVA_BROADCAST_PORT": str(self.pva_search),
            "EPICS_PVA_NAME_SERVERS": f"{HOST}:{self.pva}",
        }

    @property
    def ca_client_environment(self) -> dict[str, str]:
        """Variables for a Channel Access client of this server only."""
        return {"EPICS_CA_ADDR_LIST": f"{HOST}:{self.ca}", "EPICS_CA_AUTO_ADDR_LIST": "NO"}


def merge_client_environments(*environments: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables for a client of all the servers.

    Address lists are joined; of other variables (a PVAccess client's beacon port) the first value is used.
    """
    merged: dict[str, str] = {}
    for environment in environments:
        for name, value in environment.items():
            if name in _ADDRESS_LISTS and name in merged:
                known = merged[name].split()
                merged[name] = " ".join(known + [address for address in value.split() if address not in known])
            else:
                merged.setdefault(name, value)
    return merged


def without_epics(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns an environment, by default this process's, without EPICS variables."""
    source = os.environ if environment is None else environment
    return {name: value for name, value in source.items() if not name.startswith("EPICS_")}
