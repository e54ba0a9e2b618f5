"""Ray and Redis on this machine without a coordinator, so that several coordinators can share them: for benchmarks and
tests of one taking over from another. `python -m trireme_coordinator.local_cluster` runs until a signal comes.

Prints one JSON line with what the coordinators need (redis_url, ray_address, environment: all secrets), and then that
it is ready.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from trireme_coordinator.embedded_redis import EmbeddedRedis
from trireme_coordinator.ray_cluster import RayCluster


def main() -> None:
    """Starts, tells, waits, stops."""
    wanted = {signal.SIGINT, signal.SIGTERM}
    cluster = RayCluster("", "local-cluster")
    with EmbeddedRedis() as redis:
        cluster.start()
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, wanted)  # not before: Ray's processes would inherit it
            environment = {name: os.environ[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
            told = {"redis_url": redis.url, "ray_address": cluster.address, "environment": environment}
            sys.stdout.write(f"{json.dumps(told)}\nTrireme is ready on {cluster.address}\n")
            sys.stdout.flush()
            signal.sigwait(wanted)
        finally:
            cluster.stop()


if __name__ == "__main__":
    main()
