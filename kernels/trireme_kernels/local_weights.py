"""Copies of weights in the memory that is nearest to the threads which read them, for machines with several nodes.

Linux puts a page where the thread runs that writes to it first.  So each thread, pinned to its CPU, copies the tiles of
its own part of every matrix: the same part that `layer_steps.py` gives it in every step.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from trireme_kernels.arrays import U8, require
from trireme_kernels.large_pages import large_empty
from trireme_kernels.matrix import PackedMatrix
from trireme_kernels.threads import share
from trireme_kernels.threads.cpus import pinned, usable_cpus


def local_copies(matrices: Sequence[PackedMatrix], cpus: Sequence[int]) -> list[PackedMatrix]:
    """The same matrices, copied by one thread on each of `cpus`: thread i of `LayerProgram` runs on cpus[i].

    Raises `KernelInputError` when there is no matrix, or a CPU that this process may not use.
    """
    allowed = usable_cpus()
    require("matrices", len(matrices) > 0, "must not be empty")
    require("cpus", len(cpus) > 0 and all(cpu in allowed for cpu in cpus), "must be CPUs that this process may use")
    sizes = [matrix.data.size for matrix in matrices]
    copies = np.split(large_empty(sum(sizes)), np.cumsum(sizes[:-1]))

    def copy(rank: int) -> None:
        with pinned(cpus[rank : rank + 1]):
            for matrix, new in zip(matrices, copies, strict=True):
                _copy_part(matrix, new, rank, len(cpus))

    workers = [ThreadPoolExecutor(1) for _ in cpus]  # one thread each: a pool might give two parts to one thread
    try:
        for done in [worker.submit(copy, rank) for rank, worker in enumerate(workers)]:
            done.result()
    finally:
        for worker in workers:
            worker.shutdown()
    return [PackedMatrix(new, m.scales, m.rows, m.cols, m.layout) for m, new in zip(matrices, copies, strict=True)]


def _copy_part(matrix: PackedMatrix, new: U8, rank: int, threads: int) -> None:
    begin, end = share(matrix.tiles, rank, threads)
    tile = matrix.data.size // matrix.tiles
    new[begin * tile : end * tile] = matrix.data[begin * tile : end * tile]
