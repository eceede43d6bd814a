"""Metrics for Prometheus: those of clients, and the HTTP server that shows metrics and health.

`collector` adds the metrics of a process's clients to any registry of prometheus_client; `serve` serves them over HTTP
if the process has no server of its own. A gateway has its own, with the option `metrics_port`. Needs the extra
``metrics``; docs/metrics.md lists every metric.
"""

from k2eg_rx.metrics.clients import collector, serve
from k2eg_rx.metrics.families import Buckets, Family, Reading
from k2eg_rx.metrics.health import Check, health_page
from k2eg_rx.metrics.server import MetricsServer, Page

__all__ = [
    "Buckets",
    "Check",
    "Family",
    "MetricsServer",
    "Page",
    "Reading",
    "collector",
    "health_page",
    "serve",
]
