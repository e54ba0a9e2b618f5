"""Which instructions the kernels use on this CPU: decided once, while importing, and by nothing else.

    name           needs (LLVM's feature names)       dot product of bytes              tile     1.6-bit decoding
    avx512_vbmi    avx512 f bw vl vnni vbmi           vpdpbusd, 512 bits                6 tokens vpermi2b
    avx512_vnni    avx512 f bw vl vnni                vpdpbusd, 512 bits                6 tokens arithmetic
    avx512         avx512 f bw vl                     vpmaddubsw + vpmaddwd, 512 bits   6 tokens arithmetic
    avx_vnni       avx2, avxvnni (or 512 vl vnni)     vpdpbusd, 256 bits                2 tokens arithmetic
    avx2           avx2                               vpmaddubsw + vpmaddwd, 256 bits   2 tokens arithmetic
    neon_dot       dotprod                            sdot, 128 bits                    2 tokens arithmetic
    portable       -                                  shifts and multiplications        2 tokens arithmetic

The first of the table whose features are all there is taken; every one gives the same bits.  `TRIREME_ISA` names
another that this CPU has, for tests and comparisons.  No SIMD and no kernel here: only names, features and reasons.
"""

import os
import platform
from dataclasses import dataclass

from trireme_kernels.cpu import cpu_features, cpu_name
from trireme_kernels.errors import UnsupportedCpuError

_AVX512 = ("avx512f", "avx512bw", "avx512vl")


@dataclass(frozen=True, slots=True)
class Isa:
    """One way to compute.

    name       as in the table above and in `TRIREME_ISA`
    machines   `platform.machine()` values on which it exists; empty: all
    features   what the CPU must have; each entry is one feature or alternatives joined by "|"
    dot        which dot product `simd.dot` emits: "vnni512", "madd512", "vnni256", "madd256", "sdot" or "generic"
    tokens     most tokens of a register tile, as many as the registers hold
    any_bytes  whether `simd.dot` is exact for weights above 127
    look_up    whether the CPU looks up 64 bytes in a table of 128 at once
    """

    name: str
    machines: tuple[str, ...]
    features: tuple[str, ...]
    dot: str
    tokens: int = 2
    any_bytes: bool = False
    look_up: bool = False

    def missing(self, machine: str, features: frozenset[str]) -> tuple[str, ...]:
        """What a CPU lacks for this path; empty where it can run."""
        if self.machines and machine not in self.machines:
            return (" or ".join(self.machines),)
        return tuple(need for need in self.features if features.isdisjoint(need.split("|")))


ISAS = (
    Isa("avx512_vbmi", ("x86_64",), (*_AVX512, "avx512vnni", "avx512vbmi"), "vnni512", 6, any_bytes=True, look_up=True),
    Isa("avx512_vnni", ("x86_64",), (*_AVX512, "avx512vnni"), "vnni512", 6, any_bytes=True),
    Isa("avx512", ("x86_64",), _AVX512, "madd512", 6),
    Isa("avx_vnni", ("x86_64",), ("avx2", "avxvnni|avx512vnni", "avxvnni|avx512vl"), "vnni256", any_bytes=True),
    Isa("avx2", ("x86_64",), ("avx2",), "madd256"),
    Isa("neon_dot", ("aarch64", "arm64"), ("dotprod",), "sdot"),
    Isa("portable", (), (), "generic", any_bytes=True),
)
"""Every path, the best first."""


def present_features() -> frozenset[str]:
    """Features of the CPU that code is generated for."""
    return frozenset(f[1:] for f in cpu_features().split(",") if f.startswith("+"))


def choose(machine: str, features: frozenset[str], wanted: str = "") -> tuple[Isa, str]:
    """The path for a CPU and why it is that one.  `UnsupportedCpuError` when `wanted` is unknown or cannot run."""
    if wanted:
        named = next((isa for isa in ISAS if isa.name == wanted), None)
        if named is None:
            raise UnsupportedCpuError(f"TRIREME_ISA is {wanted!r}, not one of {', '.join(i.name for i in ISAS)}")
        if missing := named.missing(machine, features):
            raise UnsupportedCpuError(f"TRIREME_ISA is {wanted}, which needs {', '.join(missing)}: this CPU lacks it")
        return named, "TRIREME_ISA asks for it"
    for isa, better in zip(ISAS, (None, *ISAS), strict=False):
        if not isa.missing(machine, features):
            lacks = better and better.missing(machine, features)
            return (
                isa,
                f"the CPU lacks {', '.join(lacks)} for {better.name}" if better and lacks else "the CPU has it all",
            )
    raise UnsupportedCpuError(f"no kernels for {machine}")  # not reached: the last path needs nothing


ISA, REASON = choose(platform.machine(), present_features(), os.environ.get("TRIREME_ISA", ""))


@dataclass(frozen=True, slots=True)
class Choice:
    """A line of the table that tells users what was chosen: path, whether it is the chosen one, and why (not)."""

    name: str
    chosen: bool
    reason: str


def isa_table() -> list[Choice]:
    """Every path with what keeps it from running here, for `trireme bench kernels`."""
    machine, features = platform.machine(), present_features()
    rows = []
    for isa in ISAS:
        lacks = isa.missing(machine, features)
        reason = REASON if isa is ISA else f"lacks {', '.join(lacks)}" if lacks else "a better one was chosen"
        rows.append(Choice(isa.name, isa is ISA, reason))
    return [*rows, Choice(cpu_name(), chosen=False, reason="LLVM's name of this CPU")]
