"""The RUN steps of the Dockerfile's first stage, run in a clean folder; then `trireme` out of it as another user would.

python -m tests.helm.image_steps [FOLDER]    downloads all libraries: some minutes (also: make image-check)
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from dockerfile_parse import DockerfileParser
from tests.helm.rendering import ROOT

_IGNORED = shutil.ignore_patterns("__pycache__", "*.egg-info")


def main() -> int:
    """0 where every step succeeded."""
    given = sys.argv[1:]
    folder = Path(given[0]) if given else Path(tempfile.mkdtemp(prefix="trireme-image-"))
    try:
        steps(folder)
        return subprocess.run(
            [folder / "opt" / "trireme" / "bin" / "trireme", "serve", "--help"], check=False
        ).returncode
    finally:
        if not given:
            shutil.rmtree(folder)


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
            command = here(value).replace("python -m venv", f"{sys.executable} -m venv")
            subprocess.run(["/bin/sh", "-c", f"WARMUP=false; {command}"], check=True)


def copy(source: Path, target: Path, *, into: bool) -> None:
    """As COPY does."""
    target = target / source.name if into else target
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=_IGNORED, dirs_exist_ok=True)
    else:
        shutil.copy(source, target)


if __name__ == "__main__":
    sys.exit(main())
