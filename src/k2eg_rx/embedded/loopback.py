"""EPICS on the loopback interface: free ports, and the variables with which servers and clients find each other.

In: nothing. Out: port numbers, maps of environment variables. Pure but for asking the kernel for ports; any thread.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

HOST = "127.0.0.1"

_ADDRESS_LISTS = ("EPICS_CA_ADDR_LIST", "EPICS_PVA_ADDR_LIST")
_PORT_ATTEMPTS = 50  # each succeeds unless somebody happens to have that number for UDP


def _both_kinds(held: ExitStack) -> int:
    for _ in range(_PORT_ATTEMPTS):
        stream = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        stream.bind((HOST, 0))
        port: int = stream.getsockname()[1]
        datagram = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        try:
            datagram.bind((HOST, port))
        except OSError:
            continue
        return port
    raise OSError("no port is free for both TCP and UDP on the loopback interface")


def free_ports(count: int) -> list[int]:
    """Returns different port numbers, each free for TCP and for UDP just now."""
    with ExitStack() as held:
        return [_both_kinds(held) for _ in range(count)]


@dataclass(frozen=True, slots=True)
class ServerPorts:
    """The ports of one server.

    Attributes:
        ca: Channel Access, TCP and UDP.
        pva: PVAccess, TCP.
        pva_search: PVAccess, the UDP port on which it is searched for.
    """

    ca: int
    pva: int
    pva_search: int

    @classmethod
    def free(cls) -> ServerPorts:
        """Returns ports that nobody uses just now."""
        return cls(*free_ports(3))

    @property
    def pva_server_environment(self) -> dict[str, str]:
        """What a PVAccess server needs to serve on these ports and the loopback interface only."""
        return {
            "EPICS_PVAS_SERVER_PORT": str(self.pva),
            "EPICS_PVAS_BROADCAST_PORT": str(self.pva_search),
            "EPICS_PVAS_INTF_ADDR_LIST": HOST,
            "EPICS_PVAS_BEACON_ADDR_LIST": HOST,
            "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
        }

    @property
    def ca_server_environment(self) -> dict[str, str]:
        """What a Channel Access server needs to serve on these ports and the loopback interface only."""
        return {
            "EPICS_CAS_SERVER_PORT": str(self.ca),
            "EPICS_CAS_INTF_ADDR_LIST": HOST,
            "EPICS_CAS_BEACON_ADDR_LIST": HOST,
            "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
        }

    @property
    def pva_client_environment(self) -> dict[str, str]:
        """What a PVAccess client needs to find the server, and only it."""
        return {
            "EPICS_PVA_ADDR_LIST": f"{HOST}:{self.pva_search}",
            "EPICS_PVA_AUTO_ADDR_LIST": "NO",
            "EPICS_PVA_BROADCAST_PORT": str(self.pva_search),
        }

    @property
    def ca_client_environment(self) -> dict[str, str]:
        """What a Channel Access client needs to find the server, and only it."""
        return {"EPICS_CA_ADDR_LIST": f"{HOST}:{self.ca}", "EPICS_CA_AUTO_ADDR_LIST": "NO"}


def merge_client_environments(*environments: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables with which one client finds the servers of all the given ones.

    The address lists are joined; of any other variable (the port on which a PVAccess client hears beacons) the first
    stands.
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
    """Returns an environment (by default this process's) without the EPICS variables of the site it runs at."""
    source = os.environ if environment is None else environment
    return {name: value for name, value in source.items() if not name.startswith("EPICS_")}
