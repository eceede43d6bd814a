"""Readings as metrics of prometheus_client, and as the text that Prometheus reads. Needs the extra ``metrics``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from k2eg_rx.metrics.families import Buckets, Reading
from k2eg_rx.metrics.server import Page

Read = Callable[[], Iterable[Reading]]

_TEXT = "text/plain; version=0.0.4; charset=utf-8"  # the form that every version of Prometheus reads
_TYPES = {"untyped": "unknown"}  # where prometheus_client has another word


class ReadingCollector(Collector):
    """Reads when it is asked; between scrapes it costs nothing.

    Args:
        read: Returns the present values. Called on the thread of the scrape.
    """

    def __init__(self, read: Read) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics with their present values."""
        return map(_metric, self._read())


def _metric(reading: Reading) -> Metric:
    family, values = reading
    series = values if isinstance(values, Mapping) else {(): values}
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(family.name, family.meaning, labels=family.labels)
        for labels, value in series.items():
            if isinstance(value, Buckets):
                histogram.add_metric(labels, _cumulated(value), value.total)
        return histogram
    # prometheus_client adds the ending of a counter's name to the lines that describe it
    name = family.name.removesuffix("_total") if family.kind == "counter" else family.name
    metric = Metric(name, family.meaning, _TYPES.get(family.kind, family.kind))
    for labels, value in series.items():
        if not isinstance(value, Buckets):
            named = zip(family.labels, labels, strict=False)
            metric.add_sample(family.name, {name: text for name, text in named if text}, value)  # as Prometheus has it
    return metric


def _cumulated(values: Buckets) -> list[tuple[str, float]]:
    bounds = [*(f"{bound:g}" for bound in values.bounds), "+Inf"]
    return list(zip(bounds, map(float, accumulate(values.counts)), strict=True))


def metrics_page(read: Read) -> Callable[[], Page]:
    """Returns a function that renders the present values."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ReadingCollector(read))
    return lambda: Page(200, _TEXT, generate_latest(registry))
