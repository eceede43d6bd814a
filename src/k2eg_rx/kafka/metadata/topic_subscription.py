"""A topic that is being read, and those who have to do with it.

In: nothing. Out: `Reading`, whose fields belong to the thread of `OffsetResolver`, but for
`released`, which anybody may set once, and `fixed`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from k2eg_rx.errors import TransportError
from k2eg_rx.kafka.metadata.cluster import PartitionOffsets

FIRST_DELAY = 0.02  # seconds: a gateway creates a monitor's topic some 10 ms after the command
_FIRST_DELAY_OF_OURS = 0.005  # what we asked to be created ourselves is there at once or after some 100 ms


class Phase(Enum):
    """How far a reading is."""

    PENDING = "asked"
    MISSING = "absent"
    ACTIVE = "read"


class Target(Protocol):
    """What reads. Called on the thread of `OffsetResolver`; must not block."""

    def begin(self, starts: Sequence[tuple[TopicSubscription, PartitionOffsets]]) -> None:
        """Reads partitions, from the offsets given. With none given, reads on: the topic is there after all."""
        ...

    def halt(self, subscription: TopicSubscription) -> None:
        """Stops reading a topic that is not there any more."""
        ...


class Creation(Protocol):
    """Brings a missing topic about."""

    def step(self) -> TransportError | None:
        """Does what is next; returns why the topic cannot be had, once that is certain."""
        ...

    def finish(self) -> None:
        """Takes note that the topic is there. Should it go missing, all starts again."""
        ...


@dataclass(slots=True, eq=False)
class TopicSubscription:
    """One topic, read by one target.

    Attributes:
        topic: Its name.
        target: What reads it.
        creation: What creates it if it is missing; None if that is the gateway's business.
        fixed: Done when the position is fixed.
        released: Whether it is not to be read any more.
        phase: How far it is.
        partitions: How many of its partitions are read.
        due: When it has to be looked up; a clock's seconds.
        delay: The seconds until the look-up after that.
        missed: Whether it was seen to be missing, so that its beginning is where it has to be read from.
    """

    topic: str
    target: Target
    creation: Creation | None = None
    ready: Future[None] = field(default_factory=Future[None])
    released: bool = False
    phase: Phase = Phase.PENDING
    partitions: int = 0
    due: float = 0.0
    delay: float = FIRST_DELAY
    seen_missing: bool = False

    def __post_init__(self) -> None:
        self.ready.set_running_or_notify_cancel()  # nobody who waits may cancel it for the others
        if self.creation is not None:
            self.delay = _FIRST_DELAY_OF_OURS

    def set_ready(self) -> None:
        """Tells who waits that the position is fixed."""
        with contextlib.suppress(InvalidStateError):  # it is already, or closing was faster
            self.ready.set_result(None)

    def fail(self, error: TransportError) -> None:
        """Tells who waits that there will be no position."""
        with contextlib.suppress(InvalidStateError):
            self.ready.set_exception(error)
