"""Numbers the messages of a recurring snapshot's iterations, at the time at which they are passed to Kafka.

A message that is dropped before that leaves no gap: released clients wait for a missing number for ever, and
hand over none of the later iterations either. The tail says how many are missing.

Thread safety: belongs to the event loop thread.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

from k2eg_rx.protocol import Serialization, with_fields


class Part(Enum):
    """The kind of a message of an iteration."""

    HEADER = "header"
    DATA = "data"
    TAIL = "tail"


class IterationNumbers:
    """The numbers of one iteration.

    Args:
        shown: Whether its messages show them: early clients drop data messages that have fields they do not know.

    Attributes:
        shown: See above.
        sent: The number of its messages that were passed to Kafka; 0 until the header was.
        missing: The number of its data messages that were dropped.
    """

    __slots__ = ("missing", "sent", "shown")

    def __init__(self, *, shown: bool = True) -> None:
        self.shown = shown
        self.sent = 0
        self.missing = 0


class Place(NamedTuple):
    """A message's place in its iteration.

    Attributes:
        iteration: The numbers of the iteration.
        part: The kind of the message.
        push: The number of its partial push; 0 without partial pushes.
        is_last: Whether it is the last one of its partial push.
    """

    iteration: IterationNumbers
    part: Part
    push: int = 0
    is_last: bool = False

    def numbered(self, serialization: Serialization, body: bytes) -> bytes | None:
        """Returns a message's body with its number; None if its header was dropped: clients would skip it."""
        iteration = self.iteration
        number = iteration.sent + 1
        if (self.part is Part.HEADER) != (number == 1):
            return None
        if not iteration.shown:
            return body
        fields: dict[str, Any] = {}
        if self.push:
            fields["submission_seq"] = self.push
            if self.is_last:
                fields["last_submission_data"] = True
        fields["msg_seq"] = number
        if self.part is Part.TAIL:
            fields["total_messages"] = number
            if iteration.missing:
                fields["missing_messages"] = iteration.missing
        return with_fields(serialization, body, fields)

    def passed_on(self) -> None:
        """Uses up the number of the last call of `numbered`."""
        self.iteration.sent += 1

    def taken_back(self) -> None:
        """Frees the number: Kafka has refused the message, and none after it was passed on."""
        self.iteration.sent -= 1
        self.dropped()

    def dropped(self) -> None:
        """Counts a message that was not passed on."""
        if self.part is Part.DATA:
            self.iteration.missing += 1

    @property
    def is_owed(self) -> bool:
        """Whether it is a tail without which clients wait for ever, even if others of its iteration were dropped."""
        return self.part is Part.TAIL and self.iteration.sent > 0
