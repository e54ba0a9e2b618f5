"""Into a Ray cluster and out of it: one that runs already, or one of our own that ends with us.

Knows how Ray is started and what it says when it cannot be; knows no stages.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

from trireme_coordinator.config import split_address
from trireme_coordinator.ray_access import check_token
from trireme_proto.errors import ConfigurationError, StartupError, TriremeError

log = logging.getLogger(__name__)
NAMESPACE = "trireme"
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # by default Ray lets its workers step back behind everything else on the machine
    "AUTOSCALER_METRIC_PORT": "-1",  # else its monitor listens on all interfaces, where prometheus_client is installed
    # Notice a silent node after two seconds instead of fifteen.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "2",
}
_OBJECT_STORE_BYTES = 80 << 20  # the least that Ray allows: weights are mapped from files, frames go over gRPC
_STARTS = 3
"""Of a cluster of our own: Ray gives a node 30 s to come up, whatever else the machine does."""
_LONGEST_WORDS = 300


class RayConnection:
    """To the Ray cluster at `address`, or, where that is empty, to one of our own."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._starting = threading.Lock()
        self._folder = ""

    def open(self) -> None:
        """Connects or starts; blocks. ConfigurationError when the cluster at the address cannot be joined;
        StartupError when our own does not come up, of which nothing is left behind then.
        """
        if self._address:
            check_token(self._address, os.environ)
            _probe(self._address)
        else:  # nobody else may join a cluster of our own
            os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if self._address:
            self._connect(address=self._address)
        else:
            self._start_own()

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """Leaves after the block, and ends the cluster where it is our own. A start that is under way cannot be broken
        off, only waited for.
        """
        import ray  # noqa: PLC0415

        with self._starting:
            yield
            ray.shutdown()
            if self._folder:
                shutil.rmtree(self._folder, ignore_errors=True)  # Ray would leave its logs and sockets behind

    def _start_own(self) -> None:
        for left in reversed(range(_STARTS)):
            self._folder = tempfile.mkdtemp(prefix="trireme-ray-")
            own = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES, "_temp_dir": self._folder}
            try:
                self._connect(address="local", **own)
            except StartupError as error:
                if not left:
                    raise
                log.warning("%s Trying again.", error)
            else:
                return

    def _connect(self, **options: Any) -> None:
        import ray  # noqa: PLC0415  (reads the environment when it is imported)

        others = ray.is_initialized()  # then what runs is not ours to stop
        try:
            with self._starting:
                ray.init(namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR", **options)
        except Exception as error:  # Ray raises bare Exceptions too, such as that its node timed out
            if not others:
                with self.closing():
                    pass
            raise _not_connected(self._address, error) from error


def _not_connected(address: str, error: Exception) -> TriremeError:
    """With Ray's own words on a cluster that is there: another version, a wrong token, something that is not Ray."""
    if address:
        words = " ".join((str(error.__cause__ or "") or str(error)).split())[:_LONGEST_WORDS] or "nothing."
        return ConfigurationError(f"The Ray cluster at '{address}' could not be joined; Ray says: {words}")
    return StartupError(
        "Ray did not start on this machine: it may be overloaded, or short of memory, /dev/shm or disk."
    )


def _probe(address: str) -> None:
    """Ray itself tries for minutes to reach an address where nothing is."""
    try:
        with socket.create_connection(split_address(address), timeout=5):
            pass
    except OSError as error:
        raise ConfigurationError(f"No Ray cluster answers at '{address}'.") from error
