"""Which CPU each thread runs on, and how many memory nodes there are: questions to the system, no kernel.

Threads are pinned where a process has exactly one CPU for each of them: it was given these CPUs for them.  Where it has
more, or fewer, other processes are meant to have their share, and the system moves the threads better than we could.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_NODES = Path("/sys/devices/system/node")


def thread_cpus(threads: int) -> list[int]:
    """A CPU for each of `threads` threads, the calling one first; empty where they should not be pinned."""
    allowed = usable_cpus()
    return allowed if len(allowed) == threads else []


def usable_cpus() -> list[int]:
    """The CPUs that this process may use, ascending; none where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def pin(cpus: Sequence[int]) -> None:
    """Let the calling thread run on these CPUs alone from now on; nothing happens where there is none."""
    if cpus:
        os.sched_setaffinity(0, cpus)


@contextmanager
def pinned(cpus: Sequence[int]) -> Iterator[None]:
    """`pin` for a while."""
    if not cpus:
        yield
        return
    before = os.sched_getaffinity(0)
    pin(cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def memory_nodes(folder: Path = _NODES) -> int:
    """NUMA nodes of this machine: memory of the node that a CPU belongs to is the nearest to it.  1 where unknown."""
    try:
        return max(1, sum(1 for entry in folder.iterdir() if re.fullmatch(r"node\d+", entry.name)))
    except OSError:
        return 1
