"""The Dockerfile, its entry point and its lock, as far as they can be tested without a container engine.

`make image-check` also runs the install steps in a clean folder (tests/helm/image_steps.py).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from dockerfile_parse import DockerfileParser
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from tests.helm.rendering import ROOT, pods, render

ENTRYPOINT = ROOT / "docker" / "entrypoint.sh"


@pytest.fixture(scope="module")
def dockerfile() -> DockerfileParser:
    return DockerfileParser(str(ROOT / "Dockerfile"))


def values(dockerfile: DockerfileParser, instruction: str) -> list[str]:
    return [part["value"] for part in dockerfile.structure if part["instruction"] == instruction]


def test_two_stages_on_a_base_of_one_version(dockerfile: DockerfileParser) -> None:
    assert len(values(dockerfile, "FROM")) == 2
    assert set(value.split()[0] for value in values(dockerfile, "FROM")) == {"${PYTHON_IMAGE}"}  # noqa: C401
    base = dockerfile.args["PYTHON_IMAGE"] if "PYTHON_IMAGE" in dockerfile.args else values(dockerfile, "ARG")[0]
    assert re.fullmatch(r"(PYTHON_IMAGE=)?python:\d+\.\d+\.\d+-slim-bookworm", base)


def last_stage(dockerfile: DockerfileParser) -> list[dict[str, Any]]:
    start = max(i for i, part in enumerate(dockerfile.structure) if part["instruction"] == "FROM")
    return dockerfile.structure[start:]


def test_the_last_stage_runs_nothing_and_is_not_root(dockerfile: DockerfileParser) -> None:
    stage = last_stage(dockerfile)
    assert "RUN" not in {part["instruction"] for part in stage}  # no shell, no compiler, no package is added
    (user,) = (part["value"] for part in stage if part["instruction"] == "USER")
    security = pods(render())[0].spec["securityContext"]
    assert user == f"{security['runAsUser']}:{security['runAsGroup']}"


def test_labels_and_entry_point(dockerfile: DockerfileParser) -> None:
    assert {"title", "description", "licenses", "version", "revision"} == {
        name.removeprefix("org.opencontainers.image.") for name in dockerfile.labels
    }
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert dockerfile.labels["org.opencontainers.image.version"] in {version, "${VERSION}"}
    assert f"VERSION={version}" in values(dockerfile, "ARG")
    assert values(dockerfile, "ENTRYPOINT") == ['["trireme-entrypoint"]']
    assert values(dockerfile, "CMD") == ['["coordinator"]']


def test_what_is_copied_is_there_and_let_through(dockerfile: DockerfileParser) -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        name for value in values(dockerfile, "COPY") if not value.startswith("--from") for name in value.split()[:-1]
    }
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)


def test_every_requirement_is_locked_by_version_and_hash() -> None:
    lock = (ROOT / "docker" / "requirements.txt").read_text()
    locked = {name: Version(version) for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", lock, re.MULTILINE)}
    assert lock.count("==") >= len(locked)
    entries = re.split(r"\n(?=\S)", lock.strip())
    assert all("--hash=sha256:" in entry for entry in entries)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in [*project["dependencies"], *project["optional-dependencies"]["server"]]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), (
            f"{text}: run make image-lock"
        )


def test_the_bill_of_materials_is_that_of_the_lock() -> None:
    lock = (ROOT / "docker" / "requirements.txt").read_text()
    locked = {
        re.split("==| ", entry)[0]: (re.split("==| ", entry)[1], set(re.findall(r"sha256:([0-9a-f]{64})", entry)))
        for entry in re.split(r"\n(?=\S)", lock.strip())
    }
    bill = json.loads((ROOT / "docker" / "sbom.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    found = {
        part["name"]: (part["version"], {h["content"] for r in part["externalReferences"] for h in r["hashes"]})
        for part in bill["components"]
    }
    assert found == locked, "run: make image-sbom"
    assert all(part["purl"].startswith(f"pkg:pypi/{part['name']}@") for part in bill["components"])


def run(tmp_path: Path, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The entry point, with stand-ins for `trireme` and `ray` that say how they were called."""
    programs = tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    for name in ("trireme", "ray"):
        (programs / name).write_text('#!/bin/sh\necho "$(basename "$0") $* mode=${RAY_AUTH_MODE:-none}"\n')
        (programs / name).chmod(0o755)
    return subprocess.run(
        [ENTRYPOINT, *args],
        env={"PATH": f"{programs}:{os.defpath}"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_entry_point_serves_by_default(tmp_path: Path) -> None:
    assert run(tmp_path).stdout == "trireme serve mode=none\n"
    assert run(tmp_path, "coordinator", "--stages", "2").stdout == "trireme serve --stages 2 mode=none\n"
    assert run(tmp_path, "trireme", "status").stdout == "trireme status mode=none\n"


def test_a_worker_joins_with_a_token_and_never_without(tmp_path: Path) -> None:
    open_ray = run(tmp_path, "worker", "--address=h:6379")
    assert (open_ray.returncode, open_ray.stdout) == (1, "")
    assert "give the cluster's token" in open_ray.stderr
    closed = run(tmp_path, "worker", "--address=h:6379", RAY_AUTH_TOKEN_PATH="/t")  # noqa: S106
    assert closed.stdout.startswith("ray start --block --num-cpus=1")
    assert closed.stdout.endswith("--address=h:6379 mode=token\n")


def test_the_worker_of_the_entry_point_passes_options_of_ray(tmp_path: Path) -> None:
    from ray.scripts.scripts import cli

    line = run(tmp_path, "worker", "--address=h:6379", RAY_AUTH_TOKEN="t").stdout.split()  # noqa: S106
    cli.commands["start"].make_context("start", line[2:-1])


def test_compiled_kernels_become_the_users_own(tmp_path: Path) -> None:
    compiled, cache = tmp_path / "compiled", tmp_path / "cache" / "kernels"
    (compiled / "kernels-1").mkdir(parents=True)
    (compiled / "kernels-1" / "a.nbc").write_text("code")
    os.utime(compiled / "kernels-1" / "a.nbc", (1, 1))
    given = {"TRIREME_COMPILED_KERNELS": str(compiled), "TRIREME_CACHE_DIR": str(cache)}
    run(tmp_path, "true", **given)
    copy = cache / "kernels-1" / "a.nbc"
    assert (copy.read_text(), int(copy.stat().st_mtime)) == ("code", 1)
    assert [folder.stat().st_mode & 0o777 for folder in (cache, cache / "kernels-1")] == [0o700, 0o700]
    copy.write_text("newer")
    run(tmp_path, "true", **given)
    assert copy.read_text() == "newer"  # what is there is kept


@pytest.mark.skipif(shutil.which("setpriv") is None or os.geteuid() != 0, reason="needs root to become somebody else")
def test_the_entry_point_runs_as_a_user_without_rights(tmp_path: Path) -> None:
    cache = Path("/tmp") / f"trireme-{os.getpid()}"  # noqa: S108  pytest's own folder is closed to others
    shutil.rmtree(cache, ignore_errors=True)
    copied = Path("/tmp") / f"trireme-entry-{os.getpid()}.sh"  # noqa: S108
    shutil.copy(ENTRYPOINT, copied)
    try:
        done = subprocess.run(
            ["setpriv", "--reuid=10001", "--regid=10001", "--clear-groups", copied, "id", "-u"],
            env={"PATH": os.defpath, "TRIREME_CACHE_DIR": str(cache)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.strip() == "10001", done.stderr
    finally:
        copied.unlink()
        shutil.rmtree(cache, ignore_errors=True)


def test_the_command_line_of_exec_forms_is_json(dockerfile: DockerfileParser) -> None:
    for instruction in ("ENTRYPOINT", "CMD"):
        assert all(json.loads(value) for value in values(dockerfile, instruction))
