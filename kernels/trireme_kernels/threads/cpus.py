"""Which CPU each thread runs on, and how many memory nodes there are: questions to the system, no kernel.

Threads are pinned where a process has exactly one CPU for each of them: it was given these CPUs for them.  Where it has
more, or fewer, other processes are meant to have their share, and the system moves the threads better than we could.
"""

import os
import re
from pathlib import Path

_NODES = Path("/sys/devices/system/node")


def thread_cpus(threads: int) -> list[int]:
    """A CPU for each of `threads` threads, the calling one first; empty where they should not be pinned."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return allowed if len(allowed) == threads else []


def pin(cpu: int) -> None:
    """Let the calling thread run on this CPU alone."""
    os.sched_setaffinity(0, {cpu})


def memory_nodes(folder: Path = _NODES) -> int:
    """NUMA nodes of this machine: memory of the node that a CPU belongs to is the nearest to it.  1 where unknown."""
    try:
        return max(1, sum(1 for entry in folder.iterdir() if re.fullmatch(r"node\d+", entry.name)))
    except OSError:
        return 1
