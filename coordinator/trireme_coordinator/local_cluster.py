"""Ray and Redis on this machine without a coordinator, so that several coordinators can share them: for benchmarks and
tests of one taking over from another. `python -m trireme_coordinator.local_cluster` runs until a signal comes.

Prints what the coordinators need, one NAME=VALUE a line (redis_url, ray_address, and variables in capitals: all of them
secrets), and then that it is ready.
"""

from __future__ import annotations

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
            told = {"redis_url": redis.url, "ray_address": cluster.address}
            told |= {name: os.environ[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
            sys.stdout.writelines(f"{name}={value}\n" for name, value in told.items())
            sys.stdout.write(f"Trireme is ready on {cluster.address}\n")
            sys.stdout.flush()
            signal.sigwait(wanted)
        finally:
            cluster.stop()


if __name__ == "__main__":
    main()
