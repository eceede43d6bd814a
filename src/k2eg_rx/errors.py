"""Every error this library raises, and who is to blame for it.

A bad argument is a plain `ValueError`, raised at the call. The others say whose turn it is to act: the
transport failed (`TransportError`), the gateway refused (`OperationError`), nobody answered in time
(`OperationTimeout`), the gateway broke the wire format (`WireError`), or the client is of no use any more
(`ClientClosedError`, `ForkError`).
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec


class K2EGError(Exception):
    """The base of all errors of this library that are not a bad argument."""


class OperationError(K2EGError):
    """The gateway answered an operation with a failure.

    Attributes:
        error: The gateway's code; negative.
        message: The gateway's own words, or an empty string.
        operation: What was asked for: ``get``, ``put``, ``monitor``, ...
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
        return f"{what}the gateway answered with error {self.error}: {self.message or 'no message'}"


class OperationTimeout(K2EGError, TimeoutError):
    """No reply came in time.

    Attributes:
        operation: What was asked for.
        subject: The PV's URI or the snapshot's name.
        waited: How long it waited, in seconds.
    """

    def __init__(self, operation: str, subject: str, waited: float, hint: str = "") -> None:
        super().__init__(operation, subject, waited, hint)
        self.operation = operation
        self.subject = subject
        self.waited = waited
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.operation} of {self.subject}: no reply within {self.waited:g} s"
        return f"{text}; {self.hint}" if self.hint else text


class EmptyStreamError(K2EGError):
    """A stream completed without an item where `first` waits for one, such as a monitor when the client is closed."""


class TransportError(K2EGError):
    """Kafka failed: the broker cannot be reached, refuses, or lacks a topic. The text says what to do."""


class WireError(K2EGError):
    """A record is not what the protocol says it has to be.

    Attributes:
        kind: What is wrong with it, one of a few words, so that it can be counted:
            ``header``, ``serialization``, ``undecodable``, ``shape``, ``size``.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind, text)
        self.kind = kind
        self.text = text

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


class ClientClosedError(K2EGError):
    """The client is closed, or was closed while the operation waited."""


class ForkError(K2EGError):
    """The client was made before a fork and is used in the child. Make a client in the child instead."""


def require_extra(extra: str, modules: Iterable[str], what: str) -> None:
    """Returns if the packages of an extra are there.

    Args:
        extra: The extra's name in ``k2eg[...]``.
        modules: The packages that are needed of it.
        what: What needs them, for the error.

    Raises:
        ModuleNotFoundError: One of them is missing; the text says what to install.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        packages = ", ".join(missing)
        raise ModuleNotFoundError(
            f"{what} needs {packages}, not installed here: pip install 'k2eg[{extra}]'", name=missing[0]
        )
