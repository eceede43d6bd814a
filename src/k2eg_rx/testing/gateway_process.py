"""A gateway's core as a process that comes and goes, on a clock in place of its thread.

In: records of the command topics. Out: replies and events, to the broker. Everything belongs to the thread that drives
the clock. It is `k2eg_rx.gateway` itself but for its thread, its Kafka and its EPICS: what it says is what that says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

from reactivex import Observable, abc

from k2eg_rx.gateway import (
    CommandHandler,
    CommandSource,
    GatewayContext,
    GatewayOptions,
    Metrics,
    OutgoingRecord,
    Provider,
    Publisher,
    handle_each,
)
from k2eg_rx.pv import Protocol
from k2eg_rx.testing.virtual_clock import VirtualClock
from k2eg_rx.transport import Record, Transport

Answering = Callable[[Record, Callable[[Record], Observable[OutgoingRecord]]], Observable[OutgoingRecord]]
"""Returns what is said to a record, given what the gateway itself would say."""


class GatewayProcess:
    """A running gateway.

    Args:
        transport: The way to the broker; closed with the process.
        providers: EPICS, by protocol.
        options: How it behaves.
        clock: Its thread and its time.
        answering: What stands between the commands and their answers.
        latency: Returns the seconds from what is said to its arrival in Kafka.
    """

    def __init__(
        self,
        transport: Transport,
        providers: Mapping[Protocol, Provider],
        options: GatewayOptions,
        *,
        clock: VirtualClock,
        answering: Answering,
        latency: Callable[[], float],
    ) -> None:
        self.metrics = Metrics()
        self._transport = transport
        context = GatewayContext(clock, self.metrics, options, clock.time)
        self._commands = CommandSource(clock, self._capacity)
        self._handler = CommandHandler(providers, context, None, self._commands.capacity_available)
        self._options = options
        self._publisher = Publisher(transport.sink(), context)
        self._clock = clock
        self._latency = latency
        self._arrival = clock.now  # of what was said last: nothing overtakes

        def answer(record: Record) -> Observable[OutgoingRecord]:
            return answering(record, self._handler.handle)

        def failed(record: Record, error: Exception) -> None:
            self._handler.on_failure(record, error, self._say)

        self._subscription = self._commands.records().pipe(handle_each(answer, failed)).subscribe(self._say)
        self._source = transport.events(self._commands, options.group)
        self._commands.wake = self._source.wake

    def listen(self, command_topic: str) -> None:
        """Takes commands from a topic, from where its group left off."""
        self._source.read(command_topic)

    def close(self) -> None:
        """Ends it as a signal does that cannot be caught: what is under way is never answered. To be called once."""
        self._source.close(0.0)
        self._subscription.dispose()
        self._publisher.close(0.0)
        self._transport.close(0.0)

    def _say(self, said: OutgoingRecord) -> None:
        self._arrival = max(self._arrival, self._clock.now + timedelta(seconds=self._latency()))
        if self._arrival <= self._clock.now:
            self._publisher.send(said)
            return

        def arrive(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            self._publisher.send(said)

        self._clock.schedule_absolute(self._arrival, arrive)

    def _capacity(self) -> int:
        return self._options.max_pending - self._handler.get_put.pending
