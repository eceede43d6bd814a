"""A parsed command with its context, its age, and streams of a single reply."""

from __future__ import annotations

from enum import Enum
from typing import Generic, NamedTuple, TypeVar

import reactivex
from reactivex import Observable

from k2eg_rx.gateway.commands.claims import Claim
from k2eg_rx.gateway.commands.messages import OutgoingRecord, reply
from k2eg_rx.gateway.runtime.metrics import Metrics, Result
from k2eg_rx.gateway.runtime.options import ANONYMOUS
from k2eg_rx.protocol import ReplyTo
from k2eg_rx.transport import Record

_Command = TypeVar("_Command")

_CLOCK_TOLERANCE = 5.0  # seconds by which clocks may differ; synchronized ones differ by milliseconds


class Clock(Enum):
    """Whose clock says when a command was written, and what to do if it is wrong.

    Attributes:
        KAFKA: The broker's, because the topic has `message.timestamp.type=LogAppendTime`.
        ARRIVAL: The gateway's, because the command was written a moment before it was received.
        SENDER: The sender's, of a command that waited in Kafka, or may have.
    """

    KAFKA = "the clock of Kafka's broker or of the gateway is wrong: correct it"
    ARRIVAL = "the clock of the gateway was set: keep it synchronized"
    SENDER = (
        "the clock of its sender or of the gateway is wrong: correct it, and let Kafka set the time stamps of the"
        " command topic (message.timestamp.type=LogAppendTime)"
    )


class Written(NamedTuple):
    """When a command was written to its topic.

    Attributes:
        time_ms: Unix milliseconds; -1 if unknown.
        clock: Whose clock it is by.
    """

    time_ms: int = -1
    clock: Clock = Clock.SENDER


def when_written(record: Record, now: float, *, is_live: bool) -> Written:
    """Returns when a record was written, by the most reliable clock that is known.

    Args:
        record: The record, which has just been received.
        now: Unix time in seconds.
        is_live: Whether it was certainly written a moment ago (`RecordSource.is_live`).
    """
    if record.is_append_time:
        return Written(record.timestamp_ms, Clock.KAFKA)
    if is_live:
        return Written(int(now * 1000), Clock.ARRIVAL)
    return Written(record.timestamp_ms, Clock.SENDER)


class CommandRequest(NamedTuple, Generic[_Command]):
    """A command to carry out.

    Attributes:
        command: The parsed command.
        reply_to: Topic, id and serialization of the reply.
        claim: The right to carry the command out.
        written: When the command was written to its topic.
        principal: Whose command it is.
        topic: The command topic.
    """

    command: _Command
    reply_to: ReplyTo
    claim: Claim
    written: Written = Written()
    principal: str = ANONYMOUS
    topic: str = ""

    def age(self, now: float) -> float:
        """Returns the age of the command in seconds at Unix time `now`; 0 if unknown."""
        return now - self.written.time_ms / 1000 if self.written.time_ms >= 0 else 0.0

    def too_late(self, now: float, max_age: float, what: str) -> str:
        """Returns why the command must not be carried out any more; an empty string if it may be.

        A time stamp in the future says that a clock is wrong, so that the age is unknown.
        """
        age = self.age(now)
        advice = f"; if that is not so, {self.written.clock.value}"
        if age > max_age:
            text = f"the {what} waited {age:.1f} s, longer than the {max_age:g} s after which it is not carried out"
            return f"{text}{advice}"
        if age < -_CLOCK_TOLERANCE:
            return f"the {what} is not carried out: its time stamp is {-age:.1f} s in the future{advice}"
        return ""


def reply_stream(
    metrics: Metrics, reply_to: ReplyTo, key: str, message: str, *, gateway_topic: str = ""
) -> Observable[OutgoingRecord]:
    """Counts a command that is carried out and returns a stream of its reply.

    The stream is empty if the command has no reply topic or id; so for `refusal_stream`.
    """
    metrics.count_result(reply_to.command, Result.OK)
    return _stream(reply_to, reply(reply_to, key, 0, message, gateway_topic=gateway_topic))


def _stream(reply_to: ReplyTo, outgoing: OutgoingRecord) -> Observable[OutgoingRecord]:
    return reactivex.of(outgoing) if reply_to.complete else reactivex.empty()


def refusal_stream(
    metrics: Metrics, reply_to: ReplyTo, key: str, error: int, message: str | None = None
) -> Observable[OutgoingRecord]:
    """Counts a refused command and returns a stream of its negative reply."""
    metrics.refused += 1
    metrics.count_result(reply_to.command, Result.REFUSED)
    return _stream(reply_to, reply(reply_to, key, error, message))
