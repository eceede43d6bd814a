"""A parsed command with its context, and streams of a single reply."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

import reactivex
from reactivex import Observable

from k2eg_rx.gateway.commands.claims import Claim
from k2eg_rx.gateway.commands.messages import OutgoingRecord, reply
from k2eg_rx.gateway.runtime.metrics import Metrics
from k2eg_rx.protocol import ReplyTo

_Command = TypeVar("_Command")

_CLOCK_TOLERANCE = 5.0  # seconds by which clocks may differ; synchronized ones differ by milliseconds
_CLOCKS = (
    "; if that is not so, the clock of its sender or of the gateway is wrong: correct it, and let Kafka set the time"
    " stamps of the command topic (message.timestamp.type=LogAppendTime)"
)


class CommandRequest(NamedTuple, Generic[_Command]):
    """A command to carry out.

    Attributes:
        command: The parsed command.
        reply_to: Topic, id and serialization of the reply.
        claim: The right to carry the command out.
        timestamp_ms: The Kafka timestamp of the command in Unix milliseconds; -1 if unknown.
    """

    command: _Command
    reply_to: ReplyTo
    claim: Claim
    timestamp_ms: int = -1

    def age(self, now: float) -> float:
        """Returns the age of the command in seconds at Unix time `now`; 0 if unknown."""
        return now - self.timestamp_ms / 1000 if self.timestamp_ms >= 0 else 0.0

    def too_late(self, now: float, max_age: float, what: str) -> str:
        """Returns why the command must not be carried out any more; an empty string if it may be.

        A time stamp in the future says that a clock is wrong, so that the age is unknown.
        """
        age = self.age(now)
        if age > max_age:
            text = f"the {what} waited {age:.1f} s, longer than the {max_age:g} s after which it is not carried out"
            return f"{text}{_CLOCKS}"
        if age < -_CLOCK_TOLERANCE:
            return f"the {what} is not carried out: its time stamp is {-age:.1f} s in the future{_CLOCKS}"
        return ""


def reply_stream(reply_to: ReplyTo, *outgoing: OutgoingRecord) -> Observable[OutgoingRecord]:
    """Returns a stream of the given replies; an empty one if the command has no reply topic or id."""
    return reactivex.of(*outgoing) if reply_to.complete else reactivex.empty()


def refusal_stream(
    metrics: Metrics, reply_to: ReplyTo, key: str, error: int, message: str | None = None
) -> Observable[OutgoingRecord]:
    """Counts a refused command and returns a stream of its negative reply."""
    metrics.refused += 1
    return reply_stream(reply_to, reply(reply_to, key, error, message))
