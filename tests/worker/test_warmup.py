"""Kernels compiled ahead: nothing is left for the first request, and processes that start together compile once."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import trireme_kernels
from trireme_kernels.compile_once import CompileOnce
from trireme_worker.warmup import Group, compile_kernels, kernel_groups

REQUESTS = """
import numpy as np
from numba.core import event
import trireme_kernels as k
from trireme_kernels.jit import counts
from trireme_worker.batch import Batch, Row, SamplingParams
from trireme_worker.pack import Pack, default_pack
from trireme_worker.probe import read_rate
from trireme_worker.stage import StageModel
from trireme_worker.warmup import compile_kernels, kernel_groups

LEFT_OUT = {left_out!r}
compile_kernels([group for group in kernel_groups() if group.name not in LEFT_OUT])
before = counts()
pack = Pack.open(default_pack())
with event.install_recorder("numba:compile") as compilations:
    for kv_dtype, layout in (("float32", None), ("float16", "2bit"), ("int8", "1.6bit")):
        model = StageModel(pack, range(pack.config.layers), threads=2, kv_dtype=kv_dtype, layout=layout)
        position = 0
        for count, how in (
            *((n, (0.0, 0, 1.0)) for n in (*range(1, 9), 13, 70)),
            *((1, how) for how in ((0.0, 0, 1.0), (1.0, 0, 1.0), (0.7, 5, 1.0), (0.7, 0, 0.9), (0.7, 5, 0.9))),
        ):
            batch = Batch((Row(0, position, count, SamplingParams(*how, 7)), Row(1, position, count, None)))
            model.reserve(batch)
            model.sample(batch, model.forward(batch, model.embed(np.arange(2 * count, dtype=np.int32))))
            position += count
        model.close()
    for kind in k.HEAD_KINDS:
        head = k.quantise_head(np.ones((100, 64), np.uint16) << 7, kind)
        for tokens in (1, 3):
            x, out = k.quantise_for_head(np.ones((tokens, 64), np.float32), head), np.empty((tokens, 100), np.float32)
            k.int8_head_logits(x, head, out, 1, 2)
            if head.codes is not None:
                k.largest_logits(x, head, 5, out)
    read_rate(2, 1 << 20)
compiled, cached = (now - then for now, then in zip(counts(), before))
print(compiled, cached, sum(e.is_start for _, e in compilations.buffer))
"""


def python(program: str, **environment: str) -> subprocess.Popen[str]:
    settings = os.environ | environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen([sys.executable, "-c", program], env=settings, stdout=subprocess.PIPE, text=True)


def output(process: subprocess.Popen[str]) -> str:
    found, _ = process.communicate()
    assert process.returncode == 0
    return found


def test_nothing_is_compiled_or_loaded_after_it() -> None:
    assert output(python(REQUESTS.format(left_out=[]))).split() == ["0", "0", "0"]


@pytest.mark.parametrize("name", [group.name for group in kernel_groups()])
def test_every_group_is_needed(name: str) -> None:
    """So the test above can fail.  One kind of head is part of the next: left out together."""
    left_out = [group.name for group in kernel_groups() if group.name.startswith(name)]
    compiled, cached, _ = output(python(REQUESTS.format(left_out=left_out))).split()
    assert int(compiled) + int(cached) > 0


EMBEDDING = """
import sys
from trireme_worker.warmup import compile_kernels, kernel_groups

first = kernel_groups()[0]
print(compile_kernels([first], say=lambda line: print(line.split()[0])).compiled)
"""


def test_processes_that_start_together_compile_once(tmp_path: Path) -> None:
    together = [python(EMBEDDING, TRIREME_CACHE_DIR=str(tmp_path / "cache")) for _ in range(3)]
    found = [output(process).split() for process in together]
    assert sorted(int(each[-1]) > 0 for each in found) == [False, False, True]
    assert sum("Compiling" in each for each in found) == 1


class Machine:
    """Groups whose runs are counted, on a cache folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs, self.said = folder, list[str](), list[str]()

    def start(self, *names: str, run=lambda: None) -> None:
        groups = [Group(name, lambda name=name: (self.runs.append(name), run())) for name in names]
        compile_kernels(groups, once=CompileOnce(self.folder), say=self.said.append)


def test_what_is_there_is_not_waited_for(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.start("a", "b")
    assert [line.split()[0] for line in machine.said] == ["Compiling"]
    with CompileOnce(tmp_path).alone():  # as somebody else does who compiles "c"
        machine.start("b", "a")
    assert machine.runs == ["a", "b", "b", "a"]
    assert len(machine.said) == 1


def test_the_second_waits_for_the_first_and_says_so(tmp_path: Path) -> None:
    machine, waiting = Machine(tmp_path), threading.Event()
    once = CompileOnce(tmp_path)

    def second() -> None:
        with once.alone(waiting.set):
            machine.runs.append(f"second, without {once.missing(['a'])}")

    def first() -> None:
        thread.start()
        assert waiting.wait(60)

    thread = threading.Thread(target=second)
    machine.start("a", run=first)
    thread.join()
    assert machine.runs == ["a", "second, without []"]


def test_one_that_dies_holds_up_nobody(tmp_path: Path) -> None:
    program = "import sys; from pathlib import Path; from trireme_kernels.compile_once import CompileOnce\n"
    program += f"with CompileOnce(Path({str(tmp_path)!r})).alone(): print('held', flush=True); sys.stdin.read()"
    settings = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, env=settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()
    machine = Machine(tmp_path)
    machine.start("a")
    assert machine.runs == ["a"]
    assert len(machine.said) == 1


def test_a_group_that_failed_is_tried_again(tmp_path: Path) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    machine = Machine(tmp_path)
    with pytest.raises(ZeroDivisionError):
        machine.start("a", run=fail)
    assert CompileOnce(tmp_path).missing(["a"]) == ["a"]
    machine.start("a")
    assert CompileOnce(tmp_path).missing(["a"]) == []


def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "compiled").mkdir()
    with pytest.raises(trireme_kernels.KernelCacheError, match="cannot read"):
        Machine(tmp_path).start("a")
    with pytest.raises(trireme_kernels.KernelCacheError, match="cannot write"), CompileOnce(tmp_path).alone():
        pass


def test_a_note_that_is_no_text_means_that_nothing_is_compiled(tmp_path: Path) -> None:
    (tmp_path / "compiled").write_bytes(b"\xff\xfe\n")
    assert CompileOnce(tmp_path).missing(["a"]) == ["a"]


def test_a_full_disk_is_named_with_its_folder(tmp_path: Path) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(trireme_kernels.KernelCacheError, match=f"cannot write to {tmp_path}: No space left"):
        compile_kernels([Group("a", fail)], once=CompileOnce(tmp_path))
