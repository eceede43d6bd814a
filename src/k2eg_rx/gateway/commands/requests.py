"""A command on its way through the gateway, and the two shapes an answer often has.

In: parsed commands. Out: `CommandRequest`s, short Observables. Belongs to the gateway's thread.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

import reactivex
from reactivex import Observable

from k2eg_rx.gateway.commands.messages import Outgoing, reply
from k2eg_rx.gateway.runtime.metrics import Metrics
from k2eg_rx.protocol import ReplyTo

_Command = TypeVar("_Command")


class CommandRequest(NamedTuple, Generic[_Command]):
    """A command to carry out.

    Attributes:
        command: What is asked.
        reply_to: Whom to answer.
        timestamp_ms: When it was sent, Unix milliseconds by Kafka's clock; -1 if that is not known.
    """

    command: _Command
    reply_to: ReplyTo
    timestamp_ms: int = -1

    def age(self, now: float) -> float:
        """Returns how many seconds ago it was sent; 0 if that is not known. `now` is Unix time."""
        return now - self.timestamp_ms / 1000 if self.timestamp_ms >= 0 else 0.0


def said(reply_to: ReplyTo, *outgoing: Outgoing) -> Observable[Outgoing]:
    """Returns an answer of these records; of none if the command does not say whom to answer."""
    return reactivex.of(*outgoing) if reply_to.complete else reactivex.empty()


def refused(
    counters: Metrics, reply_to: ReplyTo, key: str, error: int, message: str | None = None
) -> Observable[Outgoing]:
    """Returns the answer to a command that is not carried out."""
    counters.refused += 1
    return said(reply_to, reply(reply_to, key, error, message))
