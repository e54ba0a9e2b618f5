"""The CPU that code is generated for, and whether it is one that the kernels run on.

x86-64 needs F16C (servers since about 2013); 64-bit ARM has what is needed.  Which of a CPU's instructions are used is
the business of `isa.py`.  Without F16C a conversion of
halves becomes a call to a function that is not there, which ends the process; so it is refused before it compiles.
"""

import platform

import llvmlite.binding as llvm
import numba

from trireme_kernels.errors import UnsupportedCpuError

_NEEDED = {"x86_64": ("f16c",), "aarch64": ("neon",)}


def cpu_name() -> str:
    """LLVM's name of the CPU; `NUMBA_CPU_NAME` overrides it."""
    name: str = numba.config.CPU_NAME or llvm.get_host_cpu_name()
    return name


def cpu_features() -> str:
    """Features as LLVM writes them ("+avx2,-sse4a,..."); `NUMBA_CPU_FEATURES` overrides them."""
    features: str | None = numba.config.CPU_FEATURES
    return llvm.get_host_cpu_features().flatten() if features is None else features


def check_cpu() -> None:
    """Raise `UnsupportedCpuError` on a CPU that lacks what every kernel needs."""
    needed = _NEEDED.get(platform.machine())
    if needed is None:
        raise UnsupportedCpuError(f"no kernels for {platform.machine()}: an x86-64 or a 64-bit ARM CPU is needed")
    present = cpu_features().split(",")
    if missing := [feature for feature in needed if f"+{feature}" not in present]:
        raise UnsupportedCpuError(f"this CPU ({cpu_name()}) lacks {', '.join(missing)}, which the kernels need")
