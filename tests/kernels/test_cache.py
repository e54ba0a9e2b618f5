"""Compiled code on disk: only in a folder that is ours alone, found again, and never stale."""

import shutil
import subprocess
import sys
from pathlib import Path

import numba
import pytest

import trireme_kernels as k
from trireme_kernels import cache, cpu, jit, norm


@pytest.fixture
def base(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TRIREME_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_created_for_us_alone(base: Path) -> None:
    folder = cache.cache_folder()
    assert folder.parent == base
    assert base.stat().st_mode & 0o777 == 0o700
    assert folder.stat().st_mode & 0o777 == 0o700
    assert cache.cache_folder() == folder


def test_places(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("TRIREME_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache._base_folder() == tmp_path / "xdg" / "trireme"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache._base_folder() == tmp_path / ".cache" / "trireme"


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_writable_by_others_is_refused(base: Path, mode: int) -> None:
    base.mkdir()
    base.chmod(mode)
    with pytest.raises(k.KernelCacheError, match=r"chmod go-w"):
        cache.cache_folder()
    base.chmod(0o700)
    cache.cache_folder().chmod(mode)
    with pytest.raises(k.KernelCacheError, match=r"chmod go-w"):
        cache.cache_folder()


def test_of_another_user_is_refused(base: Path, monkeypatch) -> None:
    base.mkdir(mode=0o700)
    monkeypatch.setattr(cache.os, "geteuid", lambda: base.stat().st_uid + 1)
    with pytest.raises(k.KernelCacheError, match="belongs to another user"):
        cache.cache_folder()


def test_not_a_folder_is_refused(base: Path) -> None:
    base.write_text("a file")
    with pytest.raises(k.KernelCacheError, match="TRIREME_CACHE_DIR"):
        cache.cache_folder()


def test_key_follows_sources_and_cpu(tmp_path, monkeypatch) -> None:
    package = tmp_path / "package"
    shutil.copytree(cache._PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    first = cache._key()
    monkeypatch.setattr(cache, "_PACKAGE", package)
    assert cache._key() == first
    monkeypatch.setattr(numba.config, "CPU_FEATURES", "+avx2")
    assert cache._key() != first
    monkeypatch.undo()
    with (package / "naive" / "layers.py").open("a") as file:
        file.write("\n")
    monkeypatch.setattr(cache, "_PACKAGE", package)
    assert cache._key() != first


def test_other_users_of_numba_are_left_alone() -> None:
    before = numba.config.CACHE_DIR
    with jit._our_cache():
        assert numba.config.CACHE_DIR == jit._CACHE
    assert before == numba.config.CACHE_DIR != jit._CACHE
    assert norm._add._cache.cache_path.startswith(jit._CACHE)


SCRIPT = """
import numpy as np, trireme_kernels as k, trireme_kernels.norm as norm
x = np.ones((1, 16), np.float32)
k.add_rows(x, x.copy())
print(float(x[0, 0]), sum(norm._add.stats.cache_hits.values()), sum(norm._add.stats.cache_misses.values()))
"""


def test_a_second_process_finds_the_machine_code(base: Path) -> None:
    environment = {"TRIREME_CACHE_DIR": str(base), "PYTHONPATH": str(cache._PACKAGE.parent), "PATH": "/usr/bin"}
    runs = [
        subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert [run.stdout.split() for run in runs] == [["2.0", "0", "1"], ["2.0", "1", "0"]]


def test_a_cpu_without_the_instructions_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(cpu.platform, "machine", lambda: "x86_64")
    for features in ("+avx2,+f16c", "+sse2,+f16c,+avx"):
        monkeypatch.setattr(numba.config, "CPU_FEATURES", features)
        cpu.check_cpu()
    for features, lacking in (("+avx,-f16c", "f16c"), ("+avx2", "f16c"), ("", "f16c")):
        monkeypatch.setattr(numba.config, "CPU_FEATURES", features)
        with pytest.raises(k.UnsupportedCpuError, match=f"lacks {lacking},"):
            cpu.check_cpu()
    monkeypatch.setattr(cpu.platform, "machine", lambda: "riscv64")
    with pytest.raises(k.UnsupportedCpuError, match="no kernels for riscv64"):
        cpu.check_cpu()
