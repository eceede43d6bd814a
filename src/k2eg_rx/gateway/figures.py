"""The metrics of a gateway: the deployed gateway's names where the meaning is the same, and those of this one.

No metric has a series per PV, topic or application, so their number does not grow with the laboratory.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from k2eg_rx.gateway.runtime.metrics import LATENCY_BOUNDS, UNREADABLE, FleetState, GatewayState, Metrics, Result
from k2eg_rx.gateway.runtime.options import GatewayOptions
from k2eg_rx.metrics import Buckets, Family, Reading
from k2eg_rx.transport import ConnectionState

Values = float | Mapping[tuple[str, ...], float] | Buckets

_RATE_PERIOD = 5.0  # seconds, as in the deployed gateway
_STARTED = time.monotonic()
_VERSION = version("k2eg")


class Figures:
    """The present figures of a gateway, from which its metrics are read.

    Thread safety: `read` is called by one thread at a time.

    Args:
        metrics: The gateway's counts.
        options: Its options.
        state: Returns its state.

    Attributes:
        metrics: See above.
        options: See above.
        state: The state at the time of the scrape.
        process: The figures of the process, by their names in ``/proc``.
        rate: Updates per second.
    """

    def __init__(self, metrics: Metrics, options: GatewayOptions, state: Callable[[], GatewayState]) -> None:
        self.metrics = metrics
        self.options = options
        self._read_state = state
        self.state = state()
        self.process: Mapping[str, float] = {}
        self.rate = 0.0
        self._updates = 0
        self._since = time.monotonic()

    def read(self) -> Iterator[Reading]:
        """Yields the metrics with their present values."""
        self.state = self._read_state()
        self.process = _process()
        now, updates = time.monotonic(), self.updates()
        if now - self._since >= _RATE_PERIOD:
            self.rate = (updates - self._updates) / (now - self._since)
            self._since, self._updates = now, updates
        for family, values in _METRICS.items():
            yield Reading(family, values(self))

    def updates(self) -> int:
        """Returns the number of EPICS updates so far."""
        return sum(counter.count for counter in tuple(self.metrics.events.values()))


def _process() -> Mapping[str, float]:
    """Returns the figures of this process; an empty map where the system has no ``/proc``."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        descriptors = len(os.listdir("/proc/self/fd"))
    except OSError:
        return {}
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    figures = {name: float(fields[name].split()[0]) for name in ("VmRSS", "VmSize", "Threads") if name in fields}
    return {**figures, "open_fds": descriptors, "max_fds": resource.getrlimit(resource.RLIMIT_NOFILE)[0]}


def _of_process(name: str) -> Callable[[Figures], Values]:
    return lambda figures: {(): figures.process[name]} if name in figures.process else {}


def _of_fleet(value: Callable[[FleetState], float]) -> Callable[[Figures], Values]:
    """Returns the reading of a figure that a gateway without a fleet does not have."""
    return lambda figures: {} if figures.state.fleet is None else {(): value(figures.state.fleet)}


def _operations(figures: Figures) -> Values:
    results = figures.metrics.results
    return {
        ("get", ""): results.get(("get", Result.OK.value), 0),
        ("put", ""): results.get(("put", Result.OK.value), 0),
        ("monitor", "data"): figures.updates(),
        ("monitor", "disconnect"): figures.metrics.disconnections,
    }


def _dropped(figures: Figures) -> Values:
    metrics = figures.metrics
    return {
        ("update_queue",): metrics.dropped_updates,
        ("snapshot_buffer",): metrics.dropped_samples,
        ("outgoing_queue",): metrics.dropped_records,
        ("unconfirmed",): metrics.undelivered,
        ("too_large",): metrics.oversized,
        ("not_encodable",): metrics.unencodable,
        ("unreadable",): metrics.unreadable,
    }


def _pvs(figures: Figures) -> Values:
    metrics = figures.metrics
    return {
        ("connected",): metrics.pvs_connected,
        ("disconnected",): metrics.pvs_disconnected,
        ("never_connected",): metrics.pvs_never_connected,
    }


def _counter(name: str, meaning: str, *labels: str, deployed: str = "") -> Family:
    return Family(f"k2eg_gateway_{name}_total", "counter", meaning, labels, deployed)


def _gauge(name: str, meaning: str, *labels: str, deployed: str = "") -> Family:
    return Family(f"k2eg_gateway_{name}", "gauge", meaning, labels, deployed)


def _deployed(name: str, meaning: str, *labels: str) -> Family:
    """Returns a metric of the deployed gateway; its counters have names that Prometheus does not give to counters."""
    return Family(name, "untyped", meaning, labels, "the same")


def _system(name: str, meaning: str) -> Family:
    return Family(f"k2eg_system_{name}", "gauge", meaning, (), "the same")


_OWN: Mapping[Family, Callable[[Figures], Values]] = {
    _gauge("info", "1; the label tells the version of the gateway", "version"): lambda _: {(_VERSION,): 1},
    _counter(
        "commands",
        "Commands read, by name; unreadable ones have no valid JSON or no reply topic",
        "command",
        deployed='`k2eg_command_controller{op="received"}`',
    ): lambda figures: {(name,): count for name, count in tuple(figures.metrics.received.items())},
    _counter(
        "command_results",
        "Commands that have ended, or were accepted: ok, refused, timeout, failed, handed_over to another gateway",
        "command",
        "result",
        deployed="`k2eg_epics_ioc_operation` for gets and puts that are ok",
    ): lambda figures: dict(tuple(figures.metrics.results.items())),
    _counter(
        "denied",
        "PVs that commands asked for and must not read or write, by the option that denies them",
        "option",
    ): lambda figures: {(option,): count for option, count in tuple(figures.metrics.denied.items())},
    _counter("unaudited_puts", "Puts that were carried out and are not in the audit topic"): (
        lambda figures: figures.metrics.unaudited
    ),
    _gauge("pending_operations", "Gets and puts that wait or run"): lambda figures: figures.state.operations,
    _counter("failures", "Unexpected exceptions, each of which is in the log"): lambda figures: (
        figures.metrics.failures
    ),
    _counter(
        "updates",
        "EPICS updates of subscribed PVs, by protocol and kind: scalar, text, enum, array, table, image, structure",
        "protocol",
        "kind",
        deployed='`k2eg_epics_ioc_operation{op="monitor",evt_type="data"}`',
    ): lambda figures: {key: counter.count for key, counter in tuple(figures.metrics.events.items())},
    _counter("published_records", "Records passed to the Kafka producer: replies, events and snapshots"): (
        lambda figures: figures.metrics.published
    ),
    _counter("dropped", "What was not published, by reason; 0 in a gateway that keeps up", "reason"): _dropped,
    _counter("merged", "Dropped updates and records that a newer value of the same PV has replaced", "queue"): (
        lambda figures: {
            ("update_queue",): figures.metrics.dropped_updates,
            ("outgoing_queue",): figures.metrics.merged_records,
        }
    ),
    Family(
        "k2eg_gateway_latency_seconds",
        "histogram",
        "Time from an EPICS update to Kafka's confirmation of its record, of one update at a time",
    ): lambda figures: Buckets(LATENCY_BOUNDS, tuple(figures.metrics.latency.counts), figures.metrics.latency.total),
    _gauge("latency_age_seconds", "For how long the update has waited that is measured now; grows in an outage"): (
        lambda figures: figures.metrics.latency.age()
    ),
    _gauge(
        "update_queue_updates",
        "EPICS updates that wait for the event loop",
        deployed="`k2eg_epics_pv_backlog_total`",
    ): lambda figures: figures.state.updates_waiting,
    _gauge("update_queue_bytes", "Their approximate memory"): lambda figures: figures.state.update_bytes,
    _gauge("update_queue_limit_bytes", "The option update_buffer"): lambda figures: figures.options.update_buffer,
    _gauge("outgoing_queue_records", "Records that wait because Kafka does not accept them"): (
        lambda figures: figures.state.records_waiting
    ),
    _gauge("outgoing_queue_bytes", "Their approximate memory"): lambda figures: figures.state.record_bytes,
    _gauge("outgoing_queue_limit_records", "The option outgoing_buffer"): lambda figures: (
        figures.options.outgoing_buffer
    ),
    _gauge("outgoing_queue_limit_bytes", "The option outgoing_buffer_bytes"): lambda figures: (
        figures.options.outgoing_buffer_bytes
    ),
    _gauge("kafka_queue_records", "Records in the Kafka producer that are not confirmed yet"): (
        lambda figures: figures.state.records_in_flight
    ),
    _gauge("kafka_connected", "1 while the gateway is connected to Kafka, else 0"): lambda figures: float(
        figures.state.connection is ConnectionState.UP
    ),
    _gauge("command_partitions", "Partitions of the command topic that this gateway reads"): lambda figures: (
        figures.state.partitions or 0
    ),
    _counter("rebalances", "How often the consumer group has assigned partitions to this gateway; the start is one"): (
        lambda figures: figures.state.rebalances
    ),
    _gauge("pvs", "Subscribed PVs, by state", "state", deployed="`k2eg_epics_ioc_pv_gauge`"): _pvs,
    _counter(
        "disconnections",
        "Losses of a connection to a subscribed PV",
        deployed='`k2eg_epics_ioc_operation{op="monitor",evt_type="disconnect"}`',
    ): lambda figures: figures.metrics.disconnections,
    _gauge("monitors", "Active monitors"): lambda figures: figures.state.monitors,
    _gauge("recurring_snapshots", "Running recurring snapshots"): lambda figures: figures.state.snapshots,
    _counter("snapshot_iterations", "Iterations of recurring snapshots that were published"): (
        lambda figures: figures.metrics.iterations
    ),
    _counter(
        "snapshot_values",
        "Values published by recurring snapshots",
        deployed="`k2eg_node_controller_snapshot_event_counter`",
    ): lambda figures: figures.metrics.snapshot_values,
    _gauge("fleet_members", "Gateways of the group that own partitions of the state topic"): _of_fleet(
        lambda fleet: fleet.members
    ),
    _gauge(
        "fleet_partitions",
        "Partitions of the state topic: live ones are published, others are being taken over, stopping ones given up",
        "stage",
    ): lambda figures: (
        {} if figures.state.fleet is None else {(name,): n for name, n in figures.state.fleet.partitions.items()}
    ),
    _gauge("fleet_epoch_seconds", "The newest epoch of these partitions: the Unix time of a takeover"): _of_fleet(
        lambda fleet: fleet.epoch / 1000
    ),
    _counter("fleet_takeovers", "Partitions of the state topic that this gateway has begun to publish"): _of_fleet(
        lambda fleet: fleet.taken_over
    ),
    _counter("fleet_handovers", "Those that it has given up, to another gateway or at its end"): _of_fleet(
        lambda fleet: fleet.handed_over
    ),
    _gauge("fleet_lag_entries", "Entries of the state topic to read until the gateway knows what is wanted"): _of_fleet(
        lambda fleet: fleet.lag
    ),
    _counter("fleet_fenced_records", "Dropped records of PVs and snapshots that another gateway had taken over"): (
        lambda figures: figures.metrics.fenced_records
    ),
    _gauge("heartbeat_age_seconds", "Time since the event loop's last heartbeat, of which there is one a second"): (
        lambda figures: figures.state.heartbeat_age
    ),
}

_DEPLOYED: Mapping[Family, Callable[[Figures], Values]] = {
    _deployed("k2eg_command_controller", "Commands: received; bad_command, not answerable; fault_processed", "op"): (
        lambda figures: {
            ("received",): figures.metrics.commands,
            ("bad_command",): figures.metrics.poison,
            ("fault_processed",): figures.metrics.failures,
        }
    ),
    _deployed("k2eg_node_controller_submitted_command_counter", "Commands passed on to be carried out"): (
        lambda figures: sum(count for name, count in tuple(figures.metrics.received.items()) if name != UNREADABLE)
    ),
    _deployed("k2eg_epics_ioc_operation", "Successful gets and puts, and events of monitors", "op", "evt_type"): (
        _operations
    ),
    Family(
        "k2eg_epics_ioc_operation_rate",
        "gauge",
        "EPICS updates per second, over at least 5 s between two scrapes",
        ("op", "evt_type"),
        "the same",
    ): lambda figures: {("monitor", "data"): figures.rate},
    Family(
        "k2eg_epics_ioc_pv_gauge",
        "gauge",
        "Subscribed PVs: total, and active, which are connected",
        ("type",),
        "the same",
    ): lambda figures: {
        ("total",): figures.metrics.pvs_connected
        + figures.metrics.pvs_disconnected
        + figures.metrics.pvs_never_connected,
        ("active",): figures.metrics.pvs_connected,
    },
    _deployed("k2eg_epics_pv_backlog_total", "EPICS updates that wait for the event loop, now"): lambda figures: (
        figures.state.updates_waiting
    ),
    _deployed("k2eg_node_controller_snapshot_event_counter", "Values published by recurring snapshots"): (
        lambda figures: figures.metrics.snapshot_values
    ),
    Family("k2eg_system_cpu_seconds_total", "counter", "CPU time of the process, user and system", (), "the same"): (
        lambda _: time.process_time()
    ),
    _system("vmrss_kb", "Memory of the process that is in RAM"): _of_process("VmRSS"),
    _system("vmsize_kb", "Virtual memory of the process"): _of_process("VmSize"),
    _system("threads", "Threads of the process"): _of_process("Threads"),
    _system("open_fds", "Open file descriptors"): _of_process("open_fds"),
    _system("max_fds", "The limit of open file descriptors"): _of_process("max_fds"),
    _system("uptime_seconds", "Time since the start of the gateway"): lambda _: time.monotonic() - _STARTED,
}

_METRICS: Mapping[Family, Callable[[Figures], Values]] = {**_OWN, **_DEPLOYED}
GATEWAY_FAMILIES = tuple(_METRICS)
