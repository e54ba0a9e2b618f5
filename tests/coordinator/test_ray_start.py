"""What a caller is told when Ray does not start or does not answer, and that nothing is left behind then."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import ray

from trireme_coordinator.ray_cluster import RayCluster
from trireme_proto.errors import ConfigurationError, StartupError


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "")  # `start` sets them; they are put back
    monkeypatch.setattr("trireme_coordinator.ray_connection.ENVIRONMENT", {})
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
    assert [len(there) for there in seen] == [1, 1, 1]  # a folder each time, and three tries
    assert not list(folders.iterdir())


def test_a_ray_that_starts_late_is_started_again(monkeypatch: pytest.MonkeyPatch, folders: Path) -> None:
    tries: list[str] = []

    def init(**options: Any) -> None:
        tries.append(options["_temp_dir"])
        if len(tries) < 3:
            raise Exception("The current node timed out during startup.")  # noqa: TRY002  (as Ray does)

    monkeypatch.setattr(ray, "init", init)
    cluster = RayCluster("", "test")
    cluster.start()
    assert [str(there) for there in folders.iterdir()] == [tries[2]]
    cluster.stop()
    assert not list(folders.iterdir())


def test_a_cluster_that_does_not_take_us_is_told_in_its_words(monkeypatch: pytest.MonkeyPatch, folders: Path) -> None:
    def init(**_options: Any) -> None:
        why = RuntimeError(
            "Version mismatch: The cluster was started with:\n    Ray: 2.1.0\n    Python: 3.9.1\n" + "." * 999
        )
        raise ConnectionError("Failed to connect to Ray cluster at somewhere") from why

    monkeypatch.setattr(ray, "init", init)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(ConfigurationError) as caught:
            RayCluster(address, "test").start()
    said = (
        f"The Ray cluster at '{address}' could not be joined; Ray says: Version mismatch: The cluster was started with:"
    )
    assert caught.value.message.startswith(f"{said} Ray: 2.1.0 Python: 3.9.1")
    assert len(caught.value.message) < 400
    assert not list(folders.iterdir())


def test_a_ray_that_is_somebody_elses_goes_on(monkeypatch: pytest.MonkeyPatch, folders: Path) -> None:
    def init(**_options: Any) -> None:
        raise RuntimeError("Maybe you called ray.init twice by accident?")

    def shutdown() -> None:
        pytest.fail("it was shut down")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "shutdown", shutdown)
    with pytest.raises(StartupError):
        RayCluster("", "test").start()
