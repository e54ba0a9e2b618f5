"""CVE-2025-62164, CVE-2025-32434, CVE-2024-42477 to -42479: damaged frames between stages, no crash; also under
`python -O`, where a check by `assert` would be gone. Always the same ones.

TRIREME_FUZZ_FRAMES=100000 feeds 10^5, which takes a minute or two of CPU; `timeout` grows with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FRAMES = int(os.environ.get("TRIREME_FUZZ_FRAMES", "20000"))


@pytest.mark.timeout(120 + FRAMES // 100)
@pytest.mark.parametrize("optimised", [True, False], ids=["python -O", "python"])
def test_damaged_frames_do_not_crash_a_stage(optimised: bool) -> None:
    frames = FRAMES if optimised else FRAMES // 10
    flags = ["-O"] if optimised else []
    command = [sys.executable, *flags, "-m", "tests.security.fuzz_frames", str(frames), "26"]
    folders = [str(ROOT), *(str(ROOT / name) for name in ("proto", "kernels", "worker", "coordinator", "clients"))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    counts = {name: int(count) for name, count in (part.split("=") for part in done.stdout.split())}
    assert sum(counts.values()) >= frames - 3
    assert min(counts.values()) > frames // 50, counts
