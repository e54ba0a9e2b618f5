"""Numba's cache is pickle: a folder that others could have written to is refused, and nothing in it is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.security.bomb import bomb

from trireme_kernels import cache

ROOT = Path(__file__).parents[2]
CODE = "from trireme_kernels import cache; cache.cache_folder()"


def start(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """A process that looks for its compiled kernels there."""
    environment = os.environ | {"TRIREME_CACHE_DIR": str(folder), "PYTHONPATH": str(ROOT / "kernels")}
    command = [sys.executable, *flags, "-c", CODE]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("flags", [(), ("-O",)], ids=["python", "python -O"])
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777, 0o702])
def test_numba_cache_that_others_can_write_to_is_refused(tmp_path: Path, mode: int, flags: tuple[str, ...]) -> None:
    folder, mark = tmp_path / "cache", tmp_path / "went-off"
    kernels = folder / f"kernels-{cache._key()}"
    kernels.mkdir(parents=True, mode=0o700)
    for kind in ("nbi", "nbc"):
        (kernels / f"norm.rms_norm-1.py311.{kind}").write_bytes(bomb(mark))
    folder.chmod(mode)
    done = start(folder, *flags)
    assert done.returncode != 0
    assert "KernelCacheError" in done.stderr
    assert "chmod go-w" in done.stderr
    assert not mark.exists()


def test_numba_cache_of_ours_is_made_0700(tmp_path: Path) -> None:
    done = start(tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    for folder in (tmp_path / "cache", *(tmp_path / "cache").iterdir()):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_numba_itself_is_told_of_no_other_folder() -> None:
    """Every compiled function keeps its code where `cache_folder` says: NUMBA_CACHE_DIR is not heeded."""
    from numba.core.dispatcher import Dispatcher

    from trireme_kernels import norm

    found = [value for value in vars(norm).values() if isinstance(value, Dispatcher)]
    paths = {Path(each.stats.cache_path) for each in found if each.stats.cache_path}
    assert paths
    assert all(path.is_relative_to(cache.cache_folder()) for path in paths)
