"""The example of `kernels/README.md`, done as it says on a copy of the package: it works, and it is short."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trireme_kernels import cache

README = cache._PACKAGE.parent / "README.md"

CHECK = """
import copy, sys
import numpy as np
from trireme_kernels.registry import REGISTRY

checked = []
for row in REGISTRY:
    for case in row.cases(np.random.default_rng(5)) if row.name in {"gated_product", "run_layers"} else ():
        shape, kv = case.get("shape"), case.get("kv")
        if "gelu" in (case.get("activation"), shape and shape.activation) and (kv is None or kv.dtype == "float32"):
            fast, twin = copy.deepcopy(case), copy.deepcopy(case)
            row.fast(**fast)
            row.twin(**twin)
            name = "out" if "out" in case else "hidden"
            assert fast[name].tobytes() == twin[name].tobytes(), row.name
            checked.append(row.name)
            if name == "out" and fast["out"].size:
                pairs = case["gate_up"].reshape(-1, 2, 16).astype(np.float64)
                gate, up = pairs[:, 0], pairs[:, 1]
                exact = gate * up / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
                assert np.allclose(fast["out"].reshape(exact.shape), exact, rtol=1e-4, atol=1e-5)
print(*sorted(set(checked)))
"""


def blocks() -> list[str]:
    section = README.read_text().partition("## Add an activation")[2].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def appended(package: Path) -> None:
    """A copy of the package with both functions."""
    shutil.copytree(cache._PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in zip(("gates.py", "naive/gates.py"), blocks(), strict=True):
        with (package / name).open("a") as file:
            file.write("\n\n" + text)


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(folder), "TRIREME_CACHE_DIR": str(folder / "cache")}
    return subprocess.run([sys.executable, "-c", CHECK], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.timeout(300)
def test_the_activation_equals_its_twin_alone_and_in_a_layer(tmp_path: Path) -> None:
    appended(tmp_path / "trireme_kernels")
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["gated_product", "run_layers"]


def test_it_takes_few_lines() -> None:
    assert 0 < sum(len(text.splitlines()) for text in blocks()) < 40
