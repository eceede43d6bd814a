"""Single reads: the value of a PV, and several PVs acquired together.

In: addresses. Out: Observables of one value each; every subscription sends one command. They emit on the library's own
threads, see `requests`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

from reactivex import Observable

from k2eg_rx.client.requests import Request, Requests, check_reply
from k2eg_rx.protocol import GetCommand, OneShotAssembler, PVData, Reply, Snapshot, SnapshotCommand, structure_of
from k2eg_rx.pv import PVAddress

# Seen once of the deployed gateway for a healthy PV: a race there, to be asked again. The spelling is the gateway's.
_SPURIOUS = (-2, "Operaton cancelled")


def is_spurious(reply: Reply) -> bool:
    """Whether a reply to a get says nothing about the PV, so that the gateway is to be asked once more."""
    return (reply.error, reply.message) == _SPURIOUS


def data_of(address: PVAddress, reply: Reply) -> PVData:
    """Returns the PV's value in the reply to a get.

    Raises:
        OperationError: The reply is a failure, or about another field than the one asked for.
        WireError: It is not about that PV.
    """
    check_reply(reply, GetCommand.operation, address.uri)
    return PVData(address.name, structure_of(address, reply.body))


class Reads:
    """Reads PVs for one client.

    Args:
        requests: What sends the commands.
    """

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def get(self, address: PVAddress, timeout: float) -> Observable[PVData]:
        """Returns a PV's value; arguments as for `request`."""
        return self._requests.single(self.request(address, timeout))

    def request(self, address: PVAddress, timeout: float) -> Request[PVData]:
        """Returns the request for a PV's value.

        Args:
            address: The PV.
            timeout: Seconds until `OperationTimeout`.
        """

        def read(reply: Reply) -> PVData:
            return data_of(address, reply)

        return Request(GetCommand(address.uri), address.uri, timeout, read, is_spurious)

    def snapshot(self, addresses: Sequence[PVAddress], timeout: float, window: int | None) -> Observable[Snapshot]:
        """Returns the values of several PVs, acquired together by the gateway.

        Args:
            addresses: The PVs.
            timeout: Seconds until `OperationTimeout`.
            window: Milliseconds that the gateway waits for the PVs; None leaves it to the gateway.
        """
        command = SnapshotCommand(tuple(address.uri for address in addresses), window)
        subject = addresses[0].uri if len(addresses) == 1 else f"{len(addresses)} PVs"

        def assembler() -> Callable[[Reply], Snapshot | None]:
            return OneShotAssembler(str(uuid.uuid4()), addresses).feed

        return self._requests.assembled(command, assembler, subject, timeout)
