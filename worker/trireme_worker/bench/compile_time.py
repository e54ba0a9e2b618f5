# ruff: noqa: PLC0415  # imports are part of what is timed
"""How long the kernels take to compile, and to start once they are in the cache: in processes of their own.

A process counts from the first import of a kernel to the end of `warmup.compile_kernels` for what a worker runs by
default; NumPy and Numba themselves were imported before.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

from trireme_proto.errors import ConfigurationError
from trireme_worker.bench.interleave import Report


def cold_and_cached(rounds: int, report: Report) -> tuple[float, float]:
    """Median seconds with an empty cache, and with a full one."""
    cold, cached = [], []
    for i in range(rounds):
        with tempfile.TemporaryDirectory(prefix="trireme-bench-") as folder:
            report(2 * i, 2 * rounds, "compiling with an empty cache")
            cold.append(_start(folder))
            report(2 * i + 1, 2 * rounds, "starting from the cache")
            cached.append(_start(folder))
    return statistics.median(cold), statistics.median(cached)


def _start(cache: str) -> float:
    """Seconds that a new process took."""
    command = [sys.executable, "-m", "trireme_worker.bench.compile_time"]
    settings = os.environ | {"TRIREME_CACHE_DIR": cache, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)  # noqa: S603  # our own module
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise ConfigurationError(f"the kernels do not start in a process of their own: {last[0]}")
    return float(done.stdout)


def _run_everything() -> None:
    """What a worker of default settings compiles before it is ready."""
    from trireme_worker.warmup import HEADS, compile_kernels, kernel_groups

    compile_kernels(kernel_groups(("float32",), HEADS[:1]))


def main() -> None:
    """Prints the seconds that everything took."""
    import numba  # noqa: F401  # a library's own start is not the kernels'
    import numpy  # noqa: ICN001, F401

    began = time.perf_counter()
    _run_everything()
    print(time.perf_counter() - began)  # noqa: T201  # read by the process that started this one


if __name__ == "__main__":
    main()
