"""What the commands share: the client, the signals that end a stream, and why an operation timed out.

Thread safety: main thread, where Python handles signals.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from enum import IntEnum
from typing import Any

import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops

from k2eg.cli.output import terminal_columns
from k2eg.cli.printing.formatting import Formatter
from k2eg_rx import Client, ConnectionState, K2EGError, OperationTimeout, PVAddress, Settings, TransportError, first
from k2eg_rx.concurrency import TerminationSignals

# Seconds for a broker to answer after others of the cluster were found to be away.
_GRACE = 1.5
_PATIENCE = 15.0  # seconds until a command begins without a connection whose state is known
CLOSE_SECONDS = 1.0  # usually 0.02 s; a rebalance of the consumer group may take longer


def is_of_pv(error: Exception) -> bool:
    """Returns whether a gateway has said that the PV does not answer, within the time of the request."""
    return isinstance(error, OperationTimeout) and error.hint.startswith("the gateway is there")


class ExitCode(IntEnum):
    """The exit codes of commands, beside 0 for success."""

    FAILED = 1  # something failed: a PV, an operation
    USAGE = 2
    NO_KAFKA = 3
    NO_GATEWAY = 4
    NOT_VERIFIED = 5  # a value that was written is not there

    @classmethod
    def of(cls, error: Exception) -> ExitCode:
        """Returns the exit code for an error."""
        if isinstance(error, CommandError):
            return error.code
        if isinstance(error, TransportError):
            return cls.NO_KAFKA
        return cls.NO_GATEWAY if isinstance(error, OperationTimeout) and not is_of_pv(error) else cls.FAILED


class CommandError(Exception):
    """A command failed; the text says why, in one line or several.

    Attributes:
        code: The exit code.
    """

    def __init__(self, text: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(text)
        self.code = code


@contextmanager
def open_client(settings: Settings, arguments: Namespace) -> Generator[Client]:
    """Yields the command's client, and closes it."""
    client = Client(settings.environment_id, arguments.app, settings=settings)
    try:
        yield client
    finally:
        client.close(CLOSE_SECONDS)


@contextmanager
def open_connected_client(settings: Settings, arguments: Namespace) -> Generator[Client]:
    """Yields the client of a command that ends with its answer, as `open_client`, when it is connected.

    Raises:
        TransportError: The cluster refuses the client or cannot be reached; nothing was sent. Where that is not known
            within the command's timeout, the command begins.
    """
    with open_client(settings, arguments) as client:
        status = client.status_stream()
        patience: float = getattr(arguments, "timeout", None) or _PATIENCE
        refusal = client.ready_stream(patience).pipe(ops.ignore_elements())

        def fail(_: object) -> Observable[Any]:
            return rx.throw(TransportError(client.status.reason or "no broker answers"))

        down = status.pipe(
            ops.filter(lambda status: status.connection is ConnectionState.DOWN),
            ops.take(1),
            ops.flat_map(lambda _: rx.merge(refusal, rx.timer(_GRACE).pipe(ops.flat_map(fail)))),
        )
        up = status.pipe(ops.filter(lambda status: status.connection is ConnectionState.UP))
        first(rx.merge(up, down, rx.timer(patience)))
        yield client


@contextmanager
def until_signal() -> Generator[TerminationSignals]:
    """Ends its body at Ctrl-C, SIGTERM or SIGHUP, which is the usual way to end a stream, not a failure.

    A body with an event loop, which an exception at any place may leave hanging, defers signals and looks at them.
    """
    with TerminationSignals() as signals, suppress(KeyboardInterrupt):
        yield signals


def cause_of(error: OperationTimeout, client: Client) -> K2EGError:
    """Returns the connection's error, if there is one, in place of the timeout that it caused."""
    status = client.status
    if status.connection is ConnectionState.UP or not status.reason:
        return error
    return TransportError(status.reason)


def formatter_for(arguments: Namespace, uris: Iterable[str]) -> Formatter:
    """Returns the formatter for the PVs of a command."""
    width = max(len(PVAddress.parse(uri).name) for uri in uris)
    return Formatter(
        json=arguments.json,
        full=arguments.full,
        name_width=width,
        terse=getattr(arguments, "terse", False),
        columns=terminal_columns,
    )
