"""Atomic int32 words, a spin hint, and sleeping on a word, as operations inside kernels.

Atomics are LLVM's and run on every CPU.  Sleeping is Linux's futex; elsewhere a waiter yields its time slice instead.
Words are elements of int32 arrays; those that different threads write should be 16 apart, a cache line each.
"""

# mypy: disable-error-code="empty-body"
import platform
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from trireme_kernels.arrays import I32
from trireme_kernels.jit import inner
from trireme_kernels.simd.emit import I32_IR, Emitter, op

_SYSCALLS = {"x86_64": 202, "aarch64": 98, "arm64": 98}
FUTEX = _SYSCALLS.get(platform.machine(), 0) if sys.platform == "linux" else 0
"""Number of the system call, or 0 where there is none."""
_WAIT, _WAKE = 128, 129  # FUTEX_WAIT and FUTEX_WAKE, private to the process
_syscall = types.ExternalFunction("syscall", types.int64(*[types.int64] * 7))
_sched_yield = types.ExternalFunction("sched_yield", types.int32())


def _add(e: Emitter, array: Any, i: Any, value: Any) -> Any:
    before = e.b.atomic_rmw("add", e.pointer(array, i, I32_IR), e.b.trunc(value, I32_IR), "seq_cst")
    return e.b.sext(before, value.type)


@op(_add)
def atomic_add(array: I32, i: int, value: int) -> int:
    """Add to array[i]; its value before."""


@op(lambda e, array, i: e.b.sext(e.b.load_atomic(e.pointer(array, i, I32_IR), "seq_cst", 4), i.type))
def atomic_load(array: I32, i: int) -> int:
    """array[i]; nothing after it moves before it."""


def _store(e: Emitter, array: Any, i: Any, value: Any) -> None:
    e.b.store_atomic(e.b.trunc(value, I32_IR), e.pointer(array, i, I32_IR), "seq_cst", 4)


@op(_store)
def atomic_store(array: I32, i: int, value: int) -> None:
    """array[i] = value; nothing before it moves after it."""


@op(lambda e, array, i: e.b.ptrtoint(e.pointer(array, i, I32_IR), ir.IntType(64)))
def address(array: I32, i: int) -> int:
    """Address of array[i]."""


def _pause(e: Emitter) -> None:
    if platform.machine() == "x86_64":
        e.call("llvm.x86.sse2.pause", ir.VoidType())
    elif platform.machine() in {"aarch64", "arm64"}:
        e.call("llvm.aarch64.hint", ir.VoidType(), I32_IR(1))  # yield


@op(_pause)
def pause() -> None:
    """Tell the CPU that this is a loop that waits."""


def _no_futex(_sync: I32, _word: int, _value: int) -> None:
    """Without futex: let others run."""
    _sched_yield()


def _futex_sleep(sync: I32, word: int, value: int) -> None:
    _syscall(FUTEX, address(sync, word), _WAIT, np.int64(value) & 0xFFFFFFFF, 0, 0, 0)


def _futex_wake(sync: I32, word: int, _value: int) -> None:
    _syscall(FUTEX, address(sync, word), _WAKE, 1 << 30, 0, 0, 0)


sleep_on: Callable[[I32, int, int], None] = inner(_futex_sleep if FUTEX else _no_futex)
"""Sleep while sync[word] is `value`, until it is woken; may return early."""
wake_all: Callable[[I32, int, int], None] = inner(_futex_wake if FUTEX else _no_futex)
"""Wake every thread that sleeps on sync[word]; the last argument is not used."""


def _cycles(e: Emitter) -> Any:
    """Of the time stamp counter; elsewhere reading one may be forbidden to programs."""
    if platform.machine() == "x86_64":
        return e.call("llvm.readcyclecounter", ir.IntType(64))
    return ir.IntType(64)(0)


@op(_cycles)
def cycles() -> int:
    """A counter of this CPU that grows evenly; always 0 where there is none. About 20 of its ticks to read."""
