"""Where threads run and where their weights lie: decided from what the system says, and no bit depends on it."""

import os
from contextlib import nullcontext

import numpy as np
import pytest

import trireme_kernels as k
from trireme_kernels import local_weights
from trireme_kernels.local_weights import local_copies
from trireme_kernels.threads import share
from trireme_kernels.threads.cpus import memory_nodes, thread_cpus

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no CPU affinity")


@pytest.mark.parametrize(("allowed", "threads", "wanted"), [({4, 2}, 2, [2, 4]), ({1}, 2, []), ({1, 2, 3}, 2, [])])
def test_threads_have_cpus_where_there_is_one_for_each(monkeypatch, allowed, threads, wanted):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: allowed)
    assert thread_cpus(threads) == wanted


def test_nodes_are_counted_by_their_folders(tmp_path):
    assert memory_nodes(tmp_path / "missing") == 1
    assert memory_nodes(tmp_path) == 1
    for name in ("node0", "node1", "node12", "nodes", "possible", "node"):
        (tmp_path / name).mkdir()
    assert memory_nodes(tmp_path) == 3


@pytest.mark.parametrize("threads", [1, 2, 3, 40])
@pytest.mark.parametrize("layout", ["2bit", "1.6bit"])
def test_copies_are_equal_and_made_by_a_thread_on_each_cpu(monkeypatch, threads, layout):
    rng = np.random.default_rng(0)
    shapes = (70, 40), (32, 20), (1000, 333)
    old = [
        k.PackedMatrix(k.pack(w, layout), np.ones(-(-rows // 32) * 2, np.float32), rows, cols, layout)
        for rows, cols in shapes
        for w in [rng.integers(-1, 2, (rows, cols)).astype(np.int8)]
    ]
    pinned = []
    monkeypatch.setattr(local_weights, "usable_cpus", lambda: range(200))
    monkeypatch.setattr(local_weights, "pinned", lambda cpus: nullcontext(pinned.extend(cpus)))
    new = local_copies(old, range(100, 100 + threads))
    assert sorted(pinned) == list(range(100, 100 + threads))
    for a, b in zip(old, new, strict=True):
        assert (a.data == b.data).all()
        assert not np.shares_memory(a.data, b.data)
        assert (b.rows, b.cols, b.layout, b.scales.tolist()) == (a.rows, a.cols, a.layout, a.scales.tolist())


@pytest.mark.parametrize("threads", [1, 2, 3, 40])
def test_a_thread_writes_the_tiles_that_it_will_read(threads):
    matrix = k.PackedMatrix(k.pack(np.ones((1000, 32), np.int8)), np.ones(64, np.float32), 1000, 32)
    for rank in range(threads):
        new = np.zeros(matrix.data.size, np.uint8)
        local_weights._copy_part(matrix, new, rank, threads)
        written = np.flatnonzero(new.reshape(matrix.tiles, -1).any(axis=1))
        assert written.tolist() == list(range(*share(matrix.tiles, rank, threads)))


def test_the_calling_thread_stays_where_it_was():
    before = os.sched_getaffinity(0)
    matrix = k.PackedMatrix(k.pack(np.ones((32, 16), np.int8)), np.ones(2, np.float32), 32, 16)
    local_copies([matrix], [min(before)])
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("cpus", [[], [-1], [9999], ["a"], [1 << 70], [0.5]])
def test_cpus_that_are_not_ours_are_an_error(cpus):
    matrix = k.PackedMatrix(k.pack(np.ones((32, 16), np.int8)), np.ones(2, np.float32), 32, 16)
    with pytest.raises(k.KernelInputError, match=r"^cpus"):
        local_copies([matrix], cpus)


def test_no_matrix_is_an_error():
    with pytest.raises(k.KernelInputError, match=r"^matrices"):
        local_copies([], [0])
