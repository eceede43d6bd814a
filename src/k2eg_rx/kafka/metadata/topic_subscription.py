"""A subscribed topic, and the interfaces of its reader and of its creation.

Thread safety: `TopicSubscription` belongs to the thread of `OffsetResolver`, except ``ready`` and ``released``, which
any thread may set once.
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
from k2eg_rx.transport import Span

FIRST_DELAY = 0.02  # seconds: a gateway creates a monitor's topic some 10 ms after the command
_FIRST_DELAY_OF_OURS = 0.005  # seconds: a topic created by this client exists at once or after some 100 ms


class Phase(Enum):
    """Progress of a subscription."""

    PENDING = "pending"
    MISSING = "missing"
    ACTIVE = "active"


class Target(Protocol):
    """Reads subscribed topics. Called on the thread of `OffsetResolver`; must not block."""

    def begin(self, starts: Sequence[tuple[TopicSubscription, PartitionOffsets]]) -> None:
        """Reads partitions from the given offsets. Without offsets, reading continues: the topic was not deleted."""
        ...

    def halt(self, subscription: TopicSubscription) -> None:
        """Stops reading a topic that was deleted."""
        ...

    def relocate(self, subscription: TopicSubscription, partition: int, held: Span) -> None:
        """Continues a partition whose position was lost, given the offsets that its log holds."""
        ...


class Creation(Protocol):
    """Creates a missing topic, step by step."""

    def step(self) -> TransportError | None:
        """Takes the next step; returns an error once it is certain that the topic cannot be created."""
        ...

    def finish(self) -> None:
        """Resets the creation, since the topic exists now."""
        ...


@dataclass(slots=True, eq=False)
class TopicSubscription:
    """A topic that one target reads.

    Attributes:
        topic: The topic.
        target: Reads the topic.
        creation: Creates the topic if it is missing; None if the gateway does.
        ready: Done when the initial offsets are known.
        released: Whether the topic is no longer to be read.
        phase: The progress.
        partitions: Number of partitions that are read.
        due: When to look up the topic next, by the resolver's clock.
        delay: Seconds until the look-up after that.
        seen_missing: Whether the topic was found missing, and therefore has to be read from its beginning.
        cluster_id: The cluster in which the topic was found.
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
    cluster_id: str | None = None

    def __post_init__(self) -> None:
        self.ready.set_running_or_notify_cancel()  # shared by all callers of `read`: none may cancel it
        if self.creation is not None:
            self.delay = _FIRST_DELAY_OF_OURS

    def set_ready(self) -> None:
        """Completes ``ready``: the initial offsets are known."""
        with contextlib.suppress(InvalidStateError):  # done already, or failed by closing
            self.ready.set_result(None)

    def fail(self, error: TransportError) -> None:
        """Fails ``ready``; no effect if it is done."""
        with contextlib.suppress(InvalidStateError):
            self.ready.set_exception(error)
