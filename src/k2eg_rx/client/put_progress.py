"""How far a put without a reply has come, and what its error says about it."""

from __future__ import annotations

from enum import Enum

from k2eg_rx.errors import ClientClosedError, TransportError
from k2eg_rx.transport import UnconfirmedError

CLOSED = "the client was closed before the reply arrived"


class PutProgress(Enum):
    """How far a put has come; the value is what a timeout says about it."""

    UNSENT = "nothing was written: the command was not sent, and will not be"
    SENT = "the command may still be carried out: it was sent, but Kafka has not confirmed it"
    STORED = "the command may still be carried out: it waits in Kafka for the gateway"


def error_of_put(error: Exception, progress: PutProgress) -> Exception:
    """Returns the error of a put without a reply.

    Args:
        error: Why there will be none: the client was closed, or Kafka refuses it or the command.
        progress: How far the put has come.
    """
    if isinstance(error, ClientClosedError):
        if str(error) != CLOSED:
            return error
        if progress is PutProgress.UNSENT:
            return ClientClosedError(f"{error}: the put was not sent")
        return ClientClosedError(f"{error}: the put may have been carried out, or may still be")
    if (
        isinstance(error, TransportError)
        and not isinstance(error, UnconfirmedError)
        and progress is not PutProgress.UNSENT
    ):
        return TransportError(f"the put may have been carried out, or may still be: {error}")
    return error
