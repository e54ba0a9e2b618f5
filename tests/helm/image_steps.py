"""The RUN steps of the Dockerfile's first stage, run in a clean folder; then a demo out of it, as the image's user.

    python -m tests.helm.image_steps [FOLDER]    downloads all libraries: some minutes (also: make image-check)

Run by root, the folder is root's and the demo runs as user 10001, who can write to nothing of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dockerfile_parse import DockerfileParser
from tests.helm.rendering import ROOT

_IGNORED = shutil.ignore_patterns("__pycache__", "*.egg-info")
_USER = 10001
_SYSTEM_PYTHON = "/usr/bin/python3"


def main() -> int:
    """0 where every step succeeded."""
    with _folder(sys.argv[1:]) as folder, tempfile.TemporaryDirectory(prefix="ti-") as home:
        steps(folder)
        return demo(folder / "opt" / "trireme", Path(home))


def steps(folder: Path) -> None:
    """COPY and RUN of the first stage, with / being `folder`. CalledProcessError where one fails."""

    def here(text: str) -> str:
        return text.replace("/opt/trireme", f"{folder}/opt/trireme").replace("/src", f"{folder}/src")

    for part in DockerfileParser(str(ROOT / "Dockerfile")).structure:
        instruction, value = part["instruction"], part["value"]
        if instruction == "COPY" and value.startswith("--from"):
            return
        if instruction == "COPY":
            *sources, target = value.split()
            for source in sources:
                copy(ROOT / source, Path(here(target)), into=target.endswith("/"))
        elif instruction == "RUN":
            sys.stderr.write(f"RUN {value[:100]}\n")
            command = here(value).replace("python -m venv", f"{python()} -m venv")
            subprocess.run(["/bin/sh", "-c", f"WARMUP=false; {command}"], check=True, env=_environment(folder))


def demo(tree: Path, home: Path) -> int:
    """Exit code of the entry point with `trireme demo`, over a tree that its user cannot write to."""
    other = ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups"] if os.geteuid() == 0 else []
    if other:
        os.chown(home, _USER, _USER)
    environment = {"PATH": f"{tree}/bin:{os.defpath}", "HOME": str(home), "TMPDIR": str(home)}
    environment |= {"TRIREME_CACHE_DIR": str(home / "cache" / "kernels")}
    command = [*other, "trireme-entrypoint", "trireme", "demo", "--max-tokens", "8"]
    return subprocess.run(command, env=environment, cwd=home, check=False).returncode


def python() -> str:
    """An interpreter that another user can run too: root's own may lie in root's home."""
    return _SYSTEM_PYTHON if os.geteuid() == 0 and Path(_SYSTEM_PYTHON).exists() else sys.executable


def copy(source: Path, target: Path, *, into: bool) -> None:
    """As COPY does."""
    target = target / source.name if into else target
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=_IGNORED, dirs_exist_ok=True)
    else:
        shutil.copy(source, target)


def _environment(folder: Path) -> dict[str, str]:
    """pip's own settings stay; nothing leads to this project's sources."""
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    return kept | {"PWD": str(folder)}


@contextmanager
def _folder(given: list[str]) -> Iterator[Path]:
    """The folder given, or one of our own that goes afterwards."""
    folder = Path(given[0]) if given else Path(tempfile.mkdtemp(prefix="trireme-image-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        if not given:
            shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
