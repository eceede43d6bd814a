"""The HTTP endpoint of a gateway: metrics for Prometheus, and health for whatever restarts or routes to gateways."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from k2eg_rx.errors import require_extra
from k2eg_rx.gateway.figures import Figures
from k2eg_rx.gateway.runtime.metrics import GatewayState, Metrics
from k2eg_rx.gateway.runtime.options import GatewayOptions
from k2eg_rx.metrics import MetricsServer, Page, Reading, health_page
from k2eg_rx.transport import ConnectionState

_HEARTBEAT = 10.0  # seconds without a heartbeat after which the event loop counts as stuck; its longest turn is 50 ms


def alive(state: GatewayState) -> dict[str, str]:
    """Returns what is wrong that a restart of the process may cure, by part; empty texts if nothing is."""
    age = state.heartbeat_age
    return {"event_loop": f"no heartbeat of the event loop for {age:.0f} s" if age > _HEARTBEAT else ""}


def ready(state: GatewayState) -> dict[str, str]:
    """Returns why the gateway cannot carry commands out, by part; empty texts if it can."""
    kafka = topic = ""
    if state.connection is not ConnectionState.UP:
        kafka = state.reason or f"the connection is {state.connection.value}"
    if state.partitions is None:
        topic = "the command topic is not read: the connection is new, or the consumer group assigns its partitions"
    fleet = {} if state.fleet is None else {"fleet": state.fleet.problem}
    return {**alive(state), "kafka": kafka, "command_topic": topic, **fleet, **state.providers}


def serve_gateway(metrics: Metrics, options: GatewayOptions, state: Callable[[], GatewayState]) -> MetricsServer:
    """Serves ``/metrics``, ``/healthz`` (the process is alive) and ``/readyz`` (it carries commands out).

    Args:
        metrics: The gateway's counts.
        options: The gateway's options, which name the port and the address.
        state: Returns the gateway's state. Called on the server's thread.

    Raises:
        ModuleNotFoundError: The extra ``metrics`` is not installed.
        ValueError: The port is in use, or the address is none of this machine.
    """
    figures = Figures(metrics, options, state)
    return serve_pages(figures.read, lambda: health_page(alive(state())), lambda: health_page(ready(state())), options)


def serve_pages(
    read: Callable[[], Iterable[Reading]],
    health: Callable[[], Page],
    readiness: Callable[[], Page],
    options: GatewayOptions,
) -> MetricsServer:
    """Serves the pages of one gateway or several; arguments and errors as those of `serve_gateway`."""
    require_extra("metrics", ("prometheus_client",), "[gateway] metrics_port")
    from k2eg_rx.metrics.exposition import metrics_page  # noqa: PLC0415 - an extra

    pages = {"/metrics": metrics_page(read), "/healthz": health, "/readyz": readiness}
    try:
        return MetricsServer(pages, options.metrics_port, options.metrics_host)
    except OSError as error:
        raise ValueError(f"[gateway] metrics_port and metrics_host: {error.strerror}") from error
