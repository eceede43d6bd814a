"""Runs a gateway as a process, from the settings of an environment until a signal ends it."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager

from k2eg_rx.concurrency import TerminationSignals
from k2eg_rx.errors import K2EGError
from k2eg_rx.gateway.endpoint import serve_gateway
from k2eg_rx.gateway.epics.ca_provider import ChannelAccessProvider
from k2eg_rx.gateway.epics.provider import Provider
from k2eg_rx.gateway.epics.pva_provider import PVAccessProvider
from k2eg_rx.gateway.fleet.state_log import KafkaStateLog
from k2eg_rx.gateway.gateway import Gateway
from k2eg_rx.gateway.runtime.kafka_defaults import with_gateway_defaults
from k2eg_rx.gateway.runtime.options import GatewayOptions
from k2eg_rx.gateway.runtime.service_manager import ServiceManager
from k2eg_rx.kafka import KafkaTopicAdmin, KafkaTransport
from k2eg_rx.pv import Protocol
from k2eg_rx.settings import Settings
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

_CLOSE_TIMEOUT = 2.0  # seconds for each part
# Seconds that a thread may keep Python's interpreter lock while others wait for it; by default 5 ms. p4p takes the lock
# for each update and librdkafka for each report. With 5 ms each, beside a busy event loop, confirmations of Kafka were
# read so slowly that 5,000 records were always in flight, and those of a fast snapshot waited in the publisher.
_SWITCH_INTERVAL = 0.001
# New objects between passes of the garbage collector; by default 700. A gateway has a dozen of them for each value that
# waits for Kafka, and looked through all of them several times a second. Each get leaves some 90 that
# only the collector can free.
_COLLECTED_OBJECTS = 10_000
_STOP_CHECK = 1.0  # seconds between checks of the event that a caller may set; signals need none


@contextmanager
def interpreter_of_a_gateway() -> Generator[None]:
    """Sets up Python for a process that is a gateway: threads take turns within 1 ms, garbage is collected seldom."""
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(min(interval, _SWITCH_INTERVAL))
    gc.set_threshold(_COLLECTED_OBJECTS, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(interval)


@contextmanager
def gateway(
    settings: Settings, stop: threading.Event | None = None, created: Callable[[Gateway], object] | None = None
) -> Generator[Gateway]:
    """Starts the gateway of an environment with its providers and Kafka connection; closes them all at the end.

    Waits for Kafka for as long as `start_timeout` in `[gateway]` allows, or until `stop` is set.

    Args:
        settings: The environment.
        stop: See above.
        created: Called with the gateway before it waits; then the HTTP endpoint is the caller's.

    Yields:
        The running gateway.

    Raises:
        ValueError: The `[gateway]` section is invalid, or `metrics_port` is in use.
        TransportError: Kafka refuses the connection, or was not reached in time.
    """
    options = GatewayOptions.from_section(settings.section("gateway"))
    options.warn()
    settings = with_gateway_defaults(settings)
    with ExitStack() as stack:
        transport = KafkaTransport(settings, options.principals)
        stack.callback(transport.close, _CLOSE_TIMEOUT)
        admin = (
            KafkaTopicAdmin(settings, options.ignored_groups, options.principals)
            if options.create_topics or options.monitor_expiration
            else None
        )
        pva, ca = PVAccessProvider(), ChannelAccessProvider()
        providers: dict[Protocol, Provider] = {"pva": pva, "ca": ca}
        stack.callback(pva.close)
        stack.callback(ca.close)
        state_log = KafkaStateLog.of(transport, admin, options) if admin else None
        running = Gateway(transport, providers, options, settings.command_topic, admin, state_log=state_log)
        stack.callback(running.close, _CLOSE_TIMEOUT)
        if created is not None:
            created(running)
        elif options.metrics_port:
            stack.enter_context(serve_gateway(running.metrics, options, running.state))
        running.start(options.start_timeout or None, stop)
        yield running


def run_gateway(
    settings: Settings,
    stop: threading.Event | None = None,
    ready: Callable[[], None] | None = None,
    created: Callable[[Gateway], object] | None = None,
) -> int:
    """Runs a gateway until SIGTERM, SIGINT or SIGHUP; returns the exit code of the process.

    A signal ends it with code 0, also while it starts and while Kafka is away; closing takes a few seconds at most.

    Thread safety: blocks the calling thread. Signals are handled only if it is the main thread.

    Args:
        settings: The environment.
        stop: Setting this event also ends the gateway.
        ready: Called when the gateway accepts commands.
        created: See `gateway`.
    """
    stop = stop or threading.Event()
    running: Gateway | None = None
    before: Mapping[str, int] = {}
    manager = ServiceManager()
    manager.starting("waiting for Kafka")
    with TerminationSignals() as signals, interpreter_of_a_gateway():
        try:
            with gateway(settings, stop, created) as running:
                signals.defer()
                if ready is not None:
                    ready()
                manager.ready(f"carries out the commands of {settings.command_topic}")
                # with a timeout, because an unbounded wait is not interrupted by signals on all platforms
                while not stop.is_set() and not signals.wait(min(_STOP_CHECK, manager.watchdog_period or _STOP_CHECK)):
                    if manager.watchdog_period is not None:
                        running.run_soon(manager.alive)
                manager.stopping()
                before = running.metrics.losses()
                _log.info("gateway stopping: reason=%s metrics=%s", _reason(signals), running.metrics.as_dict())
        except KeyboardInterrupt:
            _log.info("gateway stopped while it was starting: reason=%s", _reason(signals))
        except (ValueError, K2EGError) as error:
            if stop.is_set():
                _log.info("gateway stopped while it was starting: reason=%s", _reason(signals))
                return 0
            _log.error("gateway cannot run: %s", error)
            return 1
    if running is not None:
        _log_end(running.metrics.losses(), before)
    return 0


def _reason(signals: TerminationSignals) -> str:
    return signals.received.name if signals.received else "stop requested"


def _log_end(losses: Mapping[str, int], before: Mapping[str, int]) -> None:
    """Logs in one line what was not delivered because the gateway ended."""
    lost = [f"{name}={count - before[name]}" for name, count in losses.items() if count > before[name]]
    if lost:
        _log.warning("gateway stopped: not delivered: %s", " ".join(lost))
    else:
        _log.info("gateway stopped: everything was delivered")
