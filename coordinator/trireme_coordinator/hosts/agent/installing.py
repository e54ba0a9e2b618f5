"""Which Python a host runs, what is installed in it, and how Trireme gets there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from trireme_coordinator.hosts.agent.files import keep_only, read, write
from trireme_coordinator.hosts.agent.words import PROGRESS_SECONDS, Json, Refused, say

_VERSIONS = "import importlib.metadata as m; print(m.version('trireme-inference'), m.version('ray'))"


def resolved(name: str) -> str:
    """Its path, where there is one."""
    path = os.path.expanduser(name)  # noqa: PTH111  a bare name must stay one
    return shutil.which(path) or path


def installed(root: Path, what: str = "python") -> str:
    """The Python of the last installation, or its digest; empty where there is none."""
    return str(read(root / "installed.json").get(what, ""))


def versions(python: str, env: dict[str, str]) -> list[str]:
    """Versions of Trireme and Ray; empty where they are not installed."""
    try:
        done = subprocess.run(  # noqa: S603
            [python, "-c", _VERSIONS],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    except FileNotFoundError:
        return []
    return done.stdout.split()


def install(root: Path, requirement: str, step: Json) -> str:
    """A virtual environment with Trireme in it, beside the last one and those that something runs in; others go."""
    folder = root / f"venv-{step['digest'][:12]}"
    python = folder / "bin" / "python"
    find = ["--no-index", "--find-links", str(root / "wheels")] if step["offline"] else []
    wanted = str(root / "wheels" / requirement) if step["is_file"] else requirement
    for old in {folder, *root.glob("venv-*")} - _in_use(root):
        shutil.rmtree(old, ignore_errors=True)
    keep_only(root / "wheels", step["wheels"])
    pip = [str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check", *find]
    try:
        _run("python -m venv", [step["python"], "-m", "venv", str(folder)], step["env"])
        _run("pip", [*pip, f"{wanted}[server]" if step["is_file"] else wanted], step["env"])
    except Refused:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    write(root / "installed.json", json.dumps({"python": str(python), "digest": step["digest"]}).encode())
    return str(python)


def _in_use(root: Path) -> set[Path]:
    """Environments: the last one, and those of what was started."""
    records = map(read, (root / "run").glob("*.json"))
    pythons = [installed(root), *(each.get("spec", {}).get("argv", [""])[0] for each in records)]
    return {Path(python).parent.parent for python in pythons}


def _run(name: str, command: list[str], env: dict[str, str]) -> None:
    process = subprocess.Popen(  # noqa: S603
        command, env={**os.environ, **env}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    line = "it said nothing."
    told = time.monotonic()
    for each in process.stdout or ():
        line = each.strip() or line
        if time.monotonic() - told > PROGRESS_SECONDS:
            told = time.monotonic()
            say({"progress": f"{name}: {line[:100]}"})
    if process.wait():
        raise Refused(f"{name} failed: {line}")
