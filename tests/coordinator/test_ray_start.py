"""What a caller is told when Ray does not start or does not answer, and that nothing is left behind then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray

from trireme_coordinator.ray_cluster import RayCluster
from trireme_proto.errors import StartupError


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "")  # `start` sets them; they are put back
    monkeypatch.setattr("trireme_coordinator.ray_cluster._ENVIRONMENT", {})
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("kind", [Exception, OSError, RuntimeError, ray.exceptions.RaySystemError])
def test_a_ray_that_does_not_start_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, folders: Path, kind: type[Exception]
) -> None:
    seen: list[list[Path]] = []

    def init(**_options: Any) -> None:
        seen.append(list(folders.iterdir()))
        raise kind("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(StartupError, match=r"^Ray did not start on this machine: [^.]*\.$"):
        RayCluster("", "test").start()
    assert len(seen[0]) == 1  # the folder was there
    assert not list(folders.iterdir())
