"""What became of each PV of a batch. Values; nothing comes in, any thread."""

from __future__ import annotations

from dataclasses import dataclass

from k2eg_rx.protocol import PVData, Reply


@dataclass(frozen=True, slots=True)
class GetResult:
    """What became of one PV of `get_many_stream`: its data, or why there are none.

    Attributes:
        uri: The PV.
        data: Its value; None if there is an error.
        error: `OperationTimeout` if it did not answer in time, `OperationError` if the gateway could not read it,
            `TransportError` or `ClientClosedError` if the command or its reply did not get through.
    """

    uri: str
    data: PVData | None = None
    error: Exception | None = None

    def result(self) -> PVData:
        """Returns the data, or raises the error."""
        if self.data is None:
            raise self.error or ValueError(f"{self.uri}: neither data nor an error")
        return self.data


@dataclass(frozen=True, slots=True)
class PutResult:
    """What became of one PV of `put_many_stream`: the gateway's reply, or why there is none.

    Attributes:
        uri: The PV.
        reply: The gateway's; None if there is an error.
        error: ValueError if the value does not fit the PV, `OperationTimeout` if it did not answer in time (the text
            says whether the put may still be carried out), `OperationError` if the gateway could not write it,
            `TransportError` or `ClientClosedError` if the command or its reply did not get through.
    """

    uri: str
    reply: Reply | None = None
    error: Exception | None = None

    def result(self) -> Reply:
        """Returns the reply, or raises the error."""
        if self.reply is None:
            raise self.error or ValueError(f"{self.uri}: neither a reply nor an error")
        return self.reply
