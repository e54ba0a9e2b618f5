"""Readings as text for Prometheus, by its own library's writer: names, escapes and formats are its business."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from trireme_coordinator.metrics.catalogue import Family
from trireme_coordinator.metrics.values import Histogram, Reading, Readings

_LONGEST_ACCEPT = 1024


def exposition(readings: Readings, accept: str = "") -> tuple[bytes, str]:
    """The text, and its content type; `accept`: the HTTP header of who asks."""
    encode, content_type = choose_encoder(accept[:_LONGEST_ACCEPT])
    return encode(_Now(readings)), content_type


class _Now(Collector):
    """The readings, for the library."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings

    def collect(self) -> Iterable[Metric]:
        for family, values in self._readings.families():
            yield _metric(family, values)


def _metric(family: Family, values: Sequence[Reading]) -> Metric:
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(family.name, family.meaning, labels=family.labels)
        for each in values:
            if isinstance(each.value, Histogram):
                histogram.add_metric(each.labels, _buckets(each.value), each.value.total)
        return histogram
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(family.name, family.meaning, labels=family.labels)
    for each in values:
        if not isinstance(each.value, Histogram):
            metric.add_metric(each.labels, each.value)
    return metric


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    bounds = [*map(repr, histogram.bounds), "+Inf"]
    return list(zip(bounds, accumulate(histogram.counts), strict=True))
