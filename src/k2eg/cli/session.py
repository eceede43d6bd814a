"""What the commands share: the client, the signals that end a stream, and why an operation timed out.

Thread safety: main thread, where Python handles signals.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from enum import IntEnum

from k2eg.cli.output import terminal_columns
from k2eg.cli.printing.formatting import Formatter
from k2eg_rx import Client, ConnectionState, K2EGError, OperationTimeout, PVAddress, Settings, TransportError
from k2eg_rx.concurrency import TerminationSignals

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
def until_signal() -> Generator[None]:
    """Ends its body at Ctrl-C, SIGTERM or SIGHUP, which is the usual way to end a stream, not a failure."""
    with TerminationSignals(), suppress(KeyboardInterrupt):
        yield


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
