"""Every path that this CPU can execute gives the bits of the twins; others at least compile to their instruction."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest
from llvmlite import ir

import trireme_kernels as k
from trireme_kernels import isa
from trireme_kernels.simd.dot import emit_dot
from trireme_kernels.simd.emit import Emitter
from trireme_kernels.simd.types import i8x64, i32x16, u8x64

HOST = isa.present_features()
OLD = {
    "cmov",
    "cx8",
    "cx16",
    "fxsr",
    "mmx",
    "sse",
    "sse2",
    "sse3",
    "ssse3",
    "sse4.1",
    "sse4.2",
    "popcnt",
    "avx",
    "f16c",
}


def without(*prefixes: str) -> frozenset[str]:
    return frozenset(feature for feature in HOST if not feature.startswith(prefixes))


# path, features that the compiler may use, TRIREME_ISA
PATHS = {
    "avx512_vbmi": (HOST, ""),
    "avx512_vnni": (without("avx512vbmi"), ""),
    "avx512": (without("avx512vbmi", "avx512vnni", "avxvnni"), ""),
    "avx_vnni": (HOST, "avx_vnni"),
    "avx2": (without("avx512", "avxvnni", "vaes", "vpclmul"), ""),
    "portable": (HOST & OLD if platform.machine() == "x86_64" else without("dotprod"), ""),
    "neon_dot": (HOST, ""),
}


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.timeout(300)
def test_path_gives_the_bits_of_the_twins(name: str) -> None:
    features, wanted = PATHS[name]
    path = next(each for each in isa.ISAS if each.name == name)
    if missing := path.missing(platform.machine(), features):
        pytest.skip(f"this CPU lacks {', '.join(missing)}")
    overrides = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ",".join(f"+{f}" for f in sorted(features))}
    kernels = Path(k.__file__).parents[1]
    environment = {**os.environ, **overrides, "TRIREME_ISA": wanted, "PYTHONPATH": str(kernels)}
    command = [sys.executable, str(Path(__file__).parent / "paths.py")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == name


def assembly(triple: str, features: str, kind: str) -> str:
    """The dot product of one vector, compiled for another CPU."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = ir.Module()
    vectors = [i32x16.llvm, u8x64.llvm, i8x64.llvm]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [t.as_pointer() for t in vectors]), "product")
    builder = ir.IRBuilder(function.append_basic_block())
    values = [builder.load(pointer, align=1) for pointer in function.args]
    total = emit_dot(Emitter(None, builder, None), *values, kind=kind)
    builder.store(total, function.args[0], align=1)
    builder.ret_void()
    target = llvm.Target.from_triple(triple).create_target_machine(features=features, opt=3)
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    text: str = target.emit_assembly(parsed)
    return text


@pytest.mark.parametrize(
    ("triple", "features", "kind", "instruction", "times"),
    [
        ("aarch64-unknown-linux-gnu", "+neon,+dotprod", "sdot", "sdot\tv", 4),
        ("aarch64-unknown-linux-gnu", "+neon", "generic", "mla\tv", 16),
        ("x86_64-unknown-linux-gnu", "+avx2,+avxvnni", "vnni256", "vpdpbusd", 2),
        ("x86_64-unknown-linux-gnu", "+avx2", "madd256", "vpmaddubsw", 2),
        ("x86_64-unknown-linux-gnu", "+avx512f,+avx512bw", "madd512", "vpmaddubsw", 1),
        ("x86_64-unknown-linux-gnu", "+avx512f,+avx512bw,+avx512vnni", "vnni512", "vpdpbusd", 1),
    ],
)
def test_the_dot_product_is_the_instruction(
    triple: str, features: str, kind: str, instruction: str, times: int
) -> None:
    assert assembly(triple, features, kind).count(instruction) == times


def test_the_best_path_is_chosen() -> None:
    for machine, features, name in (
        ("x86_64", "f16c avx2 avx512f avx512bw avx512vl avx512vnni avx512vbmi", "avx512_vbmi"),
        ("x86_64", "f16c avx2 avx512f avx512bw avx512vl avx512vnni", "avx512_vnni"),
        ("x86_64", "f16c avx2 avx512f avx512bw avx512vl avxvnni", "avx512"),
        ("x86_64", "f16c avx2 avx512f", "avx2"),
        ("x86_64", "f16c avx2 avxvnni", "avx_vnni"),
        ("x86_64", "f16c avx", "portable"),
        ("aarch64", "neon dotprod", "neon_dot"),
        ("aarch64", "neon", "portable"),
        ("riscv64", "", "portable"),
    ):
        assert isa.choose(machine, frozenset(features.split()))[0].name == name


def test_the_reason_names_what_a_better_path_lacks() -> None:
    _, reason = isa.choose("x86_64", frozenset(["avx2"]))
    assert reason == "the CPU lacks avxvnni|avx512vnni, avxvnni|avx512vl for avx_vnni"
    assert isa.choose("x86_64", frozenset(["avx2"]), "portable")[1] == "TRIREME_ISA asks for it"


def test_a_path_that_cannot_run_is_refused() -> None:
    with pytest.raises(k.UnsupportedCpuError, match=r"^TRIREME_ISA is avx512_vnni, which needs avx512vnni: "):
        isa.choose("x86_64", frozenset(["avx512f", "avx512bw", "avx512vl"]), "avx512_vnni")
    with pytest.raises(k.UnsupportedCpuError, match="which needs aarch64 or arm64"):
        isa.choose("x86_64", frozenset(), "neon_dot")
    with pytest.raises(k.UnsupportedCpuError, match="'mmx', not one of avx512_vbmi, "):
        isa.choose("x86_64", frozenset(), "mmx")


def test_the_table_names_the_chosen_path_once() -> None:
    rows = isa.isa_table()
    assert [row.name for row in rows[:-1]] == [each.name for each in isa.ISAS]
    assert [row.name for row in rows if row.chosen] == [k.ISA.name]
    assert all(row.reason for row in rows)
