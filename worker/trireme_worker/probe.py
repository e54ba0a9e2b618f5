"""What this machine can do, measured in under two seconds: numbers for placement, which is done by what nodes can do.

Owns the amounts of work and the medians. The kernels compile (or come from the cache) before the clock starts.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from trireme_kernels.large_pages import large_empty
from trireme_worker.peaks import MACS_PER_STEP, OUT, STRIPE, dot_inputs, dot_products, read_lines
from trireme_worker.team import Team

READ_BYTES = 1 << 29
"""Far more than the last-level cache; a quarter of the free memory where that is less."""
DOT_STEPS = 300_000
"""Some 10 ms."""
_ROUNDS = 5
_FILLED_AT_ONCE = 1 << 20
"""Elements, so that other threads of the process get their turn in between."""
_CGROUP = Path("/sys/fs/cgroup")
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Measured:
    """What one machine can do. A GB is 10**9 bytes."""

    ram_gb: float
    """Free memory, within the limit of the container where there is one."""
    read_gb_s: float
    """Plain read of all threads together."""
    int8_gmac_s: float
    """Dot products of all threads together, 10**9 multiply-adds a second."""
    cores: int
    """CPUs that this process may use, and threads that were measured."""


def measure(threads: int = 0, *, now: Clock = time.perf_counter) -> Measured:
    """Measures on `threads` threads; 0: one for each CPU. Takes no other memory than while it runs."""
    free, count = free_memory(), threads or cpus()
    team = Team(count)
    try:
        return Measured(free / 1e9, _read_rate(team, free, now) / 1e9, _dot_rate(team, now) / 1e9, count)
    finally:
        team.close()


def read_rate(threads: int, most_bytes: int = READ_BYTES // 2, *, now: Clock = time.perf_counter) -> float:
    """Bytes a second of a plain read of memory by so many threads; takes `most_bytes` of memory and a quarter of a
    second, and no more than an eighth of what is free.
    """
    team = Team(threads)
    try:
        return _read_rate(team, min(free_memory() // 2, 4 * most_bytes), now)
    finally:
        team.close()


def cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory(cgroup: Path = _CGROUP) -> int:
    """Bytes that are free on the machine, or up to the limit of this process's container."""
    free = psutil.virtual_memory().available
    try:
        limit, used = (int((cgroup / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no such file; "max"
        return free
    return max(0, min(free, limit - used))


def _read_rate(team: Team, free: int, now: Clock) -> float:
    """Bytes a second."""
    stripes = max(team.threads, min(READ_BYTES, free // 4) // 4 // STRIPE)
    data = large_empty(stripes * STRIPE * 4).view(np.int32)
    for begin in range(0, len(data), _FILLED_AT_ONCE):  # written, so that there is memory behind it
        data[begin : begin + _FILLED_AT_ONCE] = 1
    out = np.zeros((team.threads, OUT), np.int32)

    def share(begin: int, end: int) -> None:
        read_lines(data, begin * STRIPE, end * STRIPE, out[begin * team.threads // stripes])

    return data.nbytes / _median_s(lambda: team.run(stripes, share), now)


def _dot_rate(team: Team, now: Clock) -> float:
    """Multiply-adds a second."""
    w, x = dot_inputs()
    out = np.zeros((team.threads, OUT), np.int32)

    def share(begin: int, end: int) -> None:
        for i in range(begin, end):
            dot_products(w, x, DOT_STEPS, out[i])

    return team.threads * DOT_STEPS * MACS_PER_STEP / _median_s(lambda: team.run(team.threads, share), now)


def _median_s(work: Callable[[], object], now: Clock) -> float:
    work()  # compiles
    seconds = []
    for _ in range(_ROUNDS):
        began = now()
        work()
        seconds.append(now() - began)
    return statistics.median(seconds)
