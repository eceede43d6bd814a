"""The objects that all parts of a gateway share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from reactivex import abc

from k2eg_rx.gateway.runtime.metrics import Metrics
from k2eg_rx.gateway.runtime.options import GatewayOptions


@dataclass(slots=True)
class Announcement:
    """Where the gateway publishes its start, for the clients of each of its command topics.

    Attributes:
        topics: The topics that are known to exist, by command topic. Any thread.
    """

    topics: dict[str, str] = field(default_factory=dict[str, str])

    def topic_for(self, command_topic: str) -> str:
        """Returns the topic that the clients of a command topic may read; ``""`` if it is not known to exist."""
        return self.topics.get(command_topic, "")


@dataclass(frozen=True, slots=True)
class GatewayContext:
    """Scheduler, metrics, options and clock of one gateway.

    Attributes:
        scheduler: Runs everything on the event loop thread; virtual time in tests.
        metrics: The gateway's counts.
        options: The gateway's options.
        clock: Returns Unix time in seconds, for command ages and snapshot timestamps.
        command_topic: The topic of the commands, which the gateway never publishes to.
        announcement: Where the gateway publishes its start; replies to activations tell clients.
        update_pace: Between deliveries of EPICS updates to the event loop; 0: each one at once, as in virtual time.
    """

    scheduler: abc.SchedulerBase
    metrics: Metrics = field(default_factory=Metrics)
    options: GatewayOptions = field(default_factory=GatewayOptions)
    clock: Callable[[], float] = time.time
    command_topic: str = ""
    announcement: Announcement = field(default_factory=Announcement)
    update_pace: timedelta = timedelta()

    @property
    def command_topics(self) -> tuple[str, ...]:
        """All topics of commands, that of the environment first."""
        return tuple(dict.fromkeys((self.command_topic, *self.options.principals)))
