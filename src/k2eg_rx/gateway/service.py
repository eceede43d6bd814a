"""A gateway as a process: from an environment's settings to a clean stop.

In: settings, and SIGTERM or SIGINT. Out: a running gateway, lines in the log, an exit code. Everything here happens on
the thread that calls `run_gateway`, the main one if signals are to be heard.
"""

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

_START_TIMEOUT = 30.0  # seconds; with a broker that is up it takes less than one
_CLOSE_TIMEOUT = 2.0  # seconds for each part: who stops a gateway waits for it

# What a gateway tells librdkafka by itself; [kafka] of the environment wins.
_PATIENT = {
    # Events have no other copy: they wait while a broker is restarted, in a queue that is bounded by number and bytes.
    # A client's commands wait for seconds only, for nobody wants a late one.
    "message.timeout.ms": "300000",
    # The next gateway gets the commands of one that was killed when that one's session is over, and so does one that
    # lost its own session while the broker was away: the least that brokers allow (45 s by default).
    "session.timeout.ms": "6000",
    # What was received and not committed, the next gateway carries out once more if this one is killed.
    "auto.commit.interval.ms": "200",
}


def with_gateway_defaults(settings: Settings) -> Settings:
    """Returns the settings for a gateway's own way to Kafka: its events outlast an outage, its death is noticed soon.

    Args:
        settings: The environment's.
    """
    return replace(settings, kafka={**_PATIENT, **settings.kafka})


@contextmanager
def gateway(settings: Settings) -> Generator[Gateway]:
    """Gives a running gateway of an environment, with its providers and its way to Kafka, and closes them all.

    Raises:
        ValueError: The `[gateway]` section is wrong.
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
    """Runs a gateway until SIGTERM or SIGINT; returns the process's exit code.

    Args:
        settings: The environment.
        stop: Ends it too when set.
        ready: Called when commands are taken.
    """
    stop = stop or threading.Event()
    try:
        with _signals(stop), gateway(settings) as running:
            if ready is not None:
                ready()
            # a wait without end does not hear signals on all platforms
            while not stop.wait(1.0):
                pass
            _log.info("the gateway stops; it has done %s", running.metrics.as_dict())
    except (ValueError, K2EGError) as error:
        _log.error("the gateway cannot run: %s", error)
        return 1
    return 0


@contextmanager
def _signals(stop: threading.Event) -> Generator[None]:
    """Has SIGTERM and SIGINT set an event, where the calling thread may decide that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def heard(number: int, _frame: object) -> None:
        _log.info("%s: the gateway stops", signal.Signals(number).name)
        stop.set()

    previous = {number: signal.signal(number, heard) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
