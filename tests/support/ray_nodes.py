"""A Ray cluster of several nodes on this machine, each under an address of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_TRIES = 3


@contextmanager
def ray_nodes(count: int, first: int) -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster`; its nodes are at 127.0.0.`first` and on. All of them end with the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("AUTOSCALER_METRIC_PORT", "-1")  # no HTTP server of Ray's monitor
    from ray.cluster_utils import Cluster

    options: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 << 20}
    cluster = Cluster()
    try:
        for i in range(count):
            head = {"include_dashboard": False} if i == 0 else {}
            _add_node(cluster, node_ip_address=f"127.0.0.{first + i}", **options, **head)
        yield cluster
    finally:
        cluster.shutdown()


def _add_node(cluster: Any, **options: Any) -> None:
    """Once more where the node was not up within Ray's 30 s: about one raylet in a hundred ends as it starts."""
    for left in reversed(range(_TRIES)):
        try:
            cluster.add_node(**options)
        except Exception as error:  # Ray raises a plain one
            if "timed out" not in str(error).lower() or not left:
                raise
        else:
            return
