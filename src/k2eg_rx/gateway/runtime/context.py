"""What all parts of a gateway share.

In: nothing. Out: the thread that owns them, the numbers, the options and the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from reactivex import abc

from k2eg_rx.gateway.runtime.metrics import Metrics
from k2eg_rx.gateway.runtime.options import GatewayOptions


@dataclass(frozen=True, slots=True)
class Context:
    """The surroundings of a gateway's parts.

    Attributes:
        scheduler: The gateway's thread; in tests, virtual time.
        counters: Its numbers.
        options: Its options.
        clock: Unix time: to compare with Kafka's, and for the messages of snapshots.
    """

    scheduler: abc.SchedulerBase
    counters: Metrics = field(default_factory=Metrics)
    options: GatewayOptions = field(default_factory=GatewayOptions)
    clock: Callable[[], float] = time.time
