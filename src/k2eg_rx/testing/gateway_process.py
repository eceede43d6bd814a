"""A simulated gateway process: the code of `k2eg_rx.gateway` on a virtual clock, in-memory Kafka and scripted PVs.

Thread safety: the thread that runs the clock.
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
    ReceivedCommand,
    StartPublisher,
    handle_each,
)
from k2eg_rx.pv import Protocol
from k2eg_rx.testing.virtual_clock import VirtualClock
from k2eg_rx.transport import Record, Transport

CommandFilter = Callable[[Record, Callable[[Record], Observable[OutgoingRecord]]], Observable[OutgoingRecord]]
"""Returns the records to send for a command, given the function that executes it."""


class GatewayProcess:
    """A gateway that runs from construction to `close`.

    Args:
        transport: The connection to the broker; closed with the process.
        providers: EPICS, by protocol.
        options: The gateway's options.
        clock: Runs the gateway.
        command_filter: Wraps the execution of each command.
        latency: Returns the delay of sent records, in seconds.
    """

    def __init__(
        self,
        transport: Transport,
        providers: Mapping[Protocol, Provider],
        options: GatewayOptions,
        *,
        clock: VirtualClock,
        command_filter: CommandFilter,
        latency: Callable[[], float],
    ) -> None:
        self.metrics = Metrics()
        self._transport = transport
        context = GatewayContext(clock, self.metrics, options, clock.time)
        self._commands = CommandSource(clock, self._capacity, clock.time)
        self._handler = CommandHandler(providers, context, None, self._commands.capacity_available)
        self._options = options
        self._publisher = Publisher(transport.sink(), context, on_lost=self._handler.monitors.republish)
        self._context = context
        self._clock = clock
        self._latency = latency
        self._arrival = clock.now  # of the last record, so that records stay in order

        def handle(received: ReceivedCommand) -> Observable[OutgoingRecord]:
            return command_filter(
                received.record, lambda record: self._handler.handle(received._replace(record=record))
            )

        def failed(received: ReceivedCommand, error: Exception) -> None:
            self._handler.on_failure(received, error, self._send)

        self._subscription = self._commands.commands().pipe(handle_each(handle, failed)).subscribe(self._send)
        self._source = transport.events(self._commands, options.group)
        self._commands.attach(self._source)

    def listen(self, command_topic: str) -> None:
        """Reads commands from a topic, from the position of its consumer group."""
        self._source.read(command_topic)
        StartPublisher(self._transport.sink, self._handler.topics, self._context, command_topic).publish()

    def close(self) -> None:
        """Ends the process like SIGKILL: commands in progress get no reply. Call once."""
        self._source.close(0.0)
        self._subscription.dispose()
        self._publisher.stop()
        self._publisher.close(0.0)
        self._transport.close(0.0)

    def _send(self, record: OutgoingRecord) -> None:
        self._arrival = max(self._arrival, self._clock.now + timedelta(seconds=self._latency()))
        if self._arrival <= self._clock.now:
            self._publisher.send(record)
            return

        def arrive(_scheduler: abc.SchedulerBase, _state: object = None) -> None:
            self._publisher.send(record)

        self._clock.schedule_absolute(self._arrival, arrive)

    def _capacity(self) -> int:
        return 1000  # commands that wait for the gateway; gets and puts under way do not count
