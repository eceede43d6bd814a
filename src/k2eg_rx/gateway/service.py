"""Runs a gateway as a process, from the settings of an environment until SIGTERM or SIGINT."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from k2eg_rx.errors import K2EGError
from k2eg_rx.gateway.epics.ca_provider import ChannelAccessProvider
from k2eg_rx.gateway.epics.provider import Provider
from k2eg_rx.gateway.epics.pva_provider import PVAccessProvider
from k2eg_rx.gateway.gateway import Gateway
from k2eg_rx.gateway.runtime.options import GatewayOptions
from k2eg_rx.kafka import KafkaTopicAdmin, KafkaTransport
from k2eg_rx.pv import Protocol
from k2eg_rx.settings import Settings

_log = logging.getLogger(__name__)

_START_TIMEOUT = 30.0  # seconds; less than one if the broker is up
_CLOSE_TIMEOUT = 2.0  # seconds for each part

# librdkafka defaults of a gateway; the [kafka] section overrides them.
_KAFKA_DEFAULTS = {
    # Events exist nowhere else, so they outlast a broker restart in a queue bounded by number and bytes. A client's
    # commands, in contrast, expire after seconds, because a late command is unwanted.
    "message.timeout.ms": "300000",
    # The remaining gateways take over the commands of one that was killed, or lost its session while the broker was
    # away, when that session expires. 6 s is the least that brokers allow; the default is 45 s.
    "session.timeout.ms": "6000",
    # Commands that were received but not committed are carried out again if this gateway is killed.
    "auto.commit.interval.ms": "200",
}


def with_gateway_defaults(settings: Settings) -> Settings:
    """Returns settings with the gateway's defaults for Kafka; values in `settings.kafka` take precedence."""
    return replace(settings, kafka={**_KAFKA_DEFAULTS, **settings.kafka})


@contextmanager
def gateway(settings: Settings) -> Generator[Gateway]:
    """Starts the gateway of an environment with its providers and Kafka connection; closes them all at the end.

    Yields:
        The running gateway.

    Raises:
        ValueError: The `[gateway]` section is invalid.
        TransportError: Kafka cannot be reached.
    """
    options = GatewayOptions.from_section(settings.section("gateway"))
    settings = with_gateway_defaults(settings)
    with ExitStack() as stack:
        transport = KafkaTransport(settings)
        stack.callback(transport.close, _CLOSE_TIMEOUT)
        admin = KafkaTopicAdmin(settings) if options.create_topics or options.monitor_expiration else None
        pva, ca = PVAccessProvider(), ChannelAccessProvider()
        providers: dict[Protocol, Provider] = {"pva": pva, "ca": ca}
        stack.callback(pva.close)
        stack.callback(ca.close)
        running = Gateway(transport, providers, options, settings.command_topic, admin)
        stack.callback(running.close, _CLOSE_TIMEOUT)
        running.start(_START_TIMEOUT)
        yield running


def run_gateway(
    settings: Settings, stop: threading.Event | None = None, ready: Callable[[], None] | None = None
) -> int:
    """Runs a gateway until SIGTERM or SIGINT; returns the exit code of the process.

    Thread safety: blocks the calling thread. Signals are handled only if it is the main thread.

    Args:
        settings: The environment.
        stop: Setting this event also ends the gateway.
        ready: Called when the gateway accepts commands.
    """
    stop = stop or threading.Event()
    try:
        with _stop_on_signals(stop), gateway(settings) as running:
            if ready is not None:
                ready()
            # with a timeout, because an unbounded wait is not interrupted by signals on all platforms
            while not stop.wait(1.0):
                pass
            _log.info("gateway stopping: metrics=%s", running.metrics.as_dict())
    except (ValueError, K2EGError) as error:
        _log.error("gateway cannot run: %s", error)
        return 1
    return 0


@contextmanager
def _stop_on_signals(stop: threading.Event) -> Generator[None]:
    """Makes SIGTERM and SIGINT set an event; does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, _frame: object) -> None:
        _log.info("signal received: signal=%s", signal.Signals(number).name)
        stop.set()

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
