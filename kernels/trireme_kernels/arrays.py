"""What every kernel's Python wrapper asks of its arguments before compiled code sees them.

Compiled kernels have no bounds checks: a wrong shape or index there reads foreign memory. Each check here raises
`KernelInputError` with the argument's name first.

Numba compiles once per *type*, and "read-only" is part of an array's type. Weights are read-only memory maps in
production and plain arrays in tests, so every array that a kernel only reads is handed over as a read-only view
(`frozen`): one compilation serves both.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from trireme_kernels.errors import KernelInputError

F32: TypeAlias = npt.NDArray[np.float32]
I8: TypeAlias = npt.NDArray[np.int8]
U8: TypeAlias = npt.NDArray[np.uint8]
U16: TypeAlias = npt.NDArray[np.uint16]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]
U64: TypeAlias = npt.NDArray[np.uint64]

ANY = -1
"""Stands in a shape for a dimension of any length."""


def round_up(n: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is >= n."""
    return -(-n // multiple) * multiple


def require(name: str, condition: bool, rule: str) -> None:
    """Raise `KernelInputError` "<name> <rule>" unless `condition` holds."""
    if not condition:
        raise KernelInputError(f"{name} {rule}")


def require_array(name: str, array: object, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    """Check type, dtype, shape (`ANY` matches every length), C order and alignment of an array argument."""
    if not isinstance(array, np.ndarray):
        raise KernelInputError(f"{name} must be a numpy array, not {type(array).__name__}")
    if array.dtype != dtype:
        raise KernelInputError(f"{name} must have dtype {np.dtype(dtype)}, not {array.dtype}")
    if array.ndim != len(shape) or any(want not in (ANY, have) for want, have in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("any" if n == ANY else str(n) for n in shape)
        raise KernelInputError(f"{name} must have shape ({wanted}), not {array.shape}")
    if not (array.flags.c_contiguous and array.flags.aligned):
        raise KernelInputError(f"{name} must be C-contiguous and aligned")


def require_output(name: str, array: object, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    """`require_array` for an array that the kernel writes."""
    require_array(name, array, dtype, shape)
    if not array.flags.writeable:  # type: ignore[attr-defined]  # an ndarray since the line above
        raise KernelInputError(f"{name} must be writeable")


def require_indices(name: str, indices: I32, limit: int) -> None:
    """Check that every entry of an index array lies in 0..limit-1."""
    if indices.size and (int(indices.min()) < 0 or int(indices.max()) >= limit):
        raise KernelInputError(f"{name} must lie in 0..{limit - 1}")


def work_range(begin: int, end: int | None, count: int) -> tuple[int, int]:
    """The range of work items begin..end-1 out of `count`; end None means all of them."""
    stop = count if end is None else int(end)
    start = int(begin)
    require("begin", 0 <= start <= count, f"must lie in 0..{count}")
    require("end", start <= stop <= count, f"must lie in {start}..{count}")
    return start, stop


def frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A plain read-only view of an array (no copy): one Numba type for arrays and memory maps alike."""
    view = array.view(np.ndarray)
    view.flags.writeable = False
    return view
