"""How kernels are compiled: one decorator for compiled functions, one for functions that emit LLVM IR.

Rules that results depend on:
- no fastmath: sums keep the order that the source gives them, multiply and add round separately (no FMA),
  NaN and infinity behave as in IEEE 754;
- `error_model="numpy"`: a float division by zero gives infinity instead of an exception, as in the NumPy twins.

`nogil` lets threads run kernels side by side.  Nothing else in the process is disturbed: Numba picks the cache folder
when a compiled function is *created*, so its setting is ours only for that moment.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast

import numba
from numba.extending import intrinsic as _numba_intrinsic
from numba.extending import overload

from trireme_kernels.cache import cache_folder
from trireme_kernels.cpu import check_cpu

INNER = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
"""How compiled functions that others call are compiled."""
P = ParamSpec("P")
R = TypeVar("R")

check_cpu()
_CACHE = str(cache_folder())
_setting = threading.Lock()
_kernels: list[Any] = []


class Counts(NamedTuple):
    """How kernels came into this process so far, one for each combination of argument types."""

    compiled: int
    cached: int
    """Found in the cache on disk."""


def counts() -> Counts:
    """What has been compiled and what was found so far."""
    stats = [each.stats for each in _kernels]
    found = (sum(sum(s.cache_misses.values()) for s in stats), sum(sum(s.cache_hits.values()) for s in stats))
    return Counts(*found)


@contextmanager
def _our_cache() -> Iterator[None]:
    with _setting:
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = _CACHE
        try:
            yield
        finally:
            numba.config.CACHE_DIR = before


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function at its first call and keep the machine code on disk.  Its arguments are not checked."""
    with _our_cache():
        jitted = numba.njit(nogil=True, error_model="numpy", boundscheck=False, fastmath=False, cache=True)(function)
    _kernels.append(jitted)
    return cast("Callable[P, R]", jitted)


def inner(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function as part of the kernels that call it: it has no file in the cache of its own."""
    jitted = numba.njit(**INNER)(function)
    return cast("Callable[P, R]", jitted)


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Like `inner`, but its text is put into its callers before they compile.

    For functions between a kernel and its large inner ones: each level of `inner` compiles everything below it again.
    """
    jitted = numba.njit(nogil=True, error_model="numpy", inline="always")(function)
    return cast("Callable[P, R]", jitted)


def by_type(choose: Callable[..., Callable[P, R]]) -> Callable[P, R]:
    """A function for kernels whose text depends on types: `choose` gets those of its arguments and returns the text.

    Both have the same argument names.  Only the text that is chosen is compiled.
    """

    def function(*_arguments: Any) -> Any:
        raise NotImplementedError("only compiled code can call this")

    choose.__annotations__ = {}  # Numba compares signatures with those of the text
    overload(function, jit_options=INNER)(choose)
    return cast("Callable[P, R]", function)


def intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """`numba.extending.intrinsic`, typed: a function that kernels call and that is lowered to LLVM IR by hand."""
    return cast("Callable[..., Any]", _numba_intrinsic(function))
