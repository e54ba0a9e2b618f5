"""Readings in Prometheus' text format: https://prometheus.io/docs/instrumenting/exposition_formats/, version 0.0.4.

Written here, and read by prometheus_client in tests alone: where that can be imported, the head of a Ray cluster opens
an HTTP port of its own on all interfaces (ray/autoscaler/_private/monitor.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from trireme_coordinator.metrics.catalogue import Family
from trireme_coordinator.metrics.values import Histogram, Reading, Readings

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_HELP = str.maketrans({"\\": "\\\\", "\n": "\\n"})
_LABEL = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})


def exposition(readings: Readings) -> bytes:
    """The text, to be sent as `CONTENT_TYPE`."""
    lines = (line for family, values in readings.families() for line in _family(family, values))
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")


def _family(family: Family, values: Sequence[Reading]) -> Iterator[str]:
    yield f"# HELP {family.name} {family.meaning.translate(_HELP)}"
    yield f"# TYPE {family.name} {family.kind}"
    for each in values:
        labels = [f'{name}="{text.translate(_LABEL)}"' for name, text in zip(family.labels, each.labels, strict=True)]
        if isinstance(each.value, Histogram):
            yield from _histogram(family.name, labels, each.value)
        else:
            yield f"{family.name}{_braced(labels)} {each.value!r}"


def _histogram(name: str, labels: Sequence[str], value: Histogram) -> Iterator[str]:
    """Each bucket counts those below it, too."""
    bounds = (*map(repr, value.bounds), "+Inf")
    for bound, count in zip(bounds, accumulate(value.counts), strict=True):
        le = f'le="{bound}"'
        yield f"{name}_bucket{_braced([*labels, le])} {count}"
    yield f"{name}_sum{_braced(labels)} {value.total!r}"
    yield f"{name}_count{_braced(labels)} {value.count}"


def _braced(labels: Sequence[str]) -> str:
    return f"{{{','.join(labels)}}}" if labels else ""
