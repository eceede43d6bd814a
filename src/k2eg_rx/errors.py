"""Exceptions that this library raises.

A bad argument is a `ValueError`, raised at the call. Every other error is a `K2EGError`; its class tells the cause:
the transport (`TransportError`), the gateway's refusal (`OperationError`), a missing reply (`OperationTimeout`), a
malformed message (`WireError`), a stream without items (`EmptyStreamError`), another PV of puts that are sent all or
none (`PutWithheldError`), or a client that cannot be used any more (`ClientClosedError`, `ForkError`).
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from k2eg_rx.texts import printable


class K2EGError(Exception):
    """Base class of this library's errors, bad arguments excepted. Its text is one line, without control characters."""

    def __str__(self) -> str:
        return printable(super().__str__())


class OperationError(K2EGError):
    """The gateway replied to an operation with a failure.

    Attributes:
        error: The gateway's error code; negative.
        message: The gateway's text, or an empty string.
        operation: The operation: ``get``, ``put``, ``monitor``, ...
        subject: The PV's URI or the snapshot's name.
    """

    def __init__(self, error: int, message: str, operation: str = "", subject: str = "") -> None:
        super().__init__(error, message, operation, subject)
        self.error = error
        self.message = message
        self.operation = operation
        self.subject = subject

    def __str__(self) -> str:
        what = f"{self.operation} of {self.subject}: " if self.operation else ""
        return printable(f"{what}the gateway answered with error {self.error}: {self.message or 'no message'}")


class OperationTimeout(K2EGError, TimeoutError):
    """No reply arrived in time. The text starts with "Timeout", which scripts for other K2EG clients look for.

    Attributes:
        operation: The operation: ``get``, ``put``, ``monitor``, ...
        subject: The PV's URI or the snapshot's name.
        waited: The timeout in seconds.
        hint: What else is known, such as a gateway that was never seen; may be empty.
        missing: What did not arrive; ``nothing`` of a stream.
    """

    def __init__(self, operation: str, subject: str, waited: float, hint: str = "", missing: str = "no reply") -> None:
        super().__init__(operation, subject, waited, hint, missing)
        self.operation = operation
        self.subject = subject
        self.waited = waited
        self.hint = hint
        self.missing = missing

    def __str__(self) -> str:
        text = f"Timeout: {self.operation} of {self.subject}: {self.missing} within {self.waited:g} s"
        return printable(f"{text}; {self.hint}" if self.hint else text)


class EmptyStreamError(K2EGError):
    """A stream completed without an item where `first` waits for one, such as a monitor when the client is closed."""


class TransportError(K2EGError):
    """Kafka failed: the broker is unreachable, refuses the connection, or lacks a topic. The text says what to do."""


class WireError(K2EGError):
    """A record violates the protocol.

    Attributes:
        kind: The violation, a key to count by: ``header``, ``serialization``, ``undecodable``, ``shape``, ``size``,
            ``protocol``.
        text: The details.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind, text)
        self.kind = kind
        self.text = text

    def __str__(self) -> str:
        return printable(f"{self.kind}: {self.text}")


class ClientClosedError(K2EGError):
    """The client is closed, or was closed during the operation."""


class PutWithheldError(K2EGError):
    """A put of all or none was not sent: nothing was written, because of another PV.

    Attributes:
        uri: The other PV.
        reason: Its error.
    """

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(uri, reason)
        self.uri = uri
        self.reason = reason

    def __str__(self) -> str:
        return printable(f"nothing was written, because of {self.uri}: {self.reason}")


class ForkError(K2EGError):
    """The client was created before a fork and is used in the child. Create a client in the child instead."""


def require_extra(extra: str, modules: Iterable[str], what: str) -> None:
    """Checks that the packages of an extra are installed.

    Args:
        extra: The extra's name in ``k2eg[...]``.
        modules: The packages that are required.
        what: The function that requires them, for the error.

    Raises:
        ModuleNotFoundError: A package is missing; the text says what to install.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        packages = ", ".join(missing)
        raise ModuleNotFoundError(
            f"{what} needs {packages}, not installed here: pip install 'k2eg[{extra}]'", name=missing[0]
        )
