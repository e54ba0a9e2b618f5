"""Small checkpoints and packs, made once and copied for tests that damage them."""

import json
import shutil
from pathlib import Path

import pytest
from tests.reference_checkpoints import KINDS, random_checkpoint

from trireme_worker.convert import convert


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """kind -> (checkpoint, pack), shared: not to be changed."""
    folder, found = tmp_path_factory.mktemp("made"), {}

    def make(kind: str) -> tuple[Path, Path]:
        if kind not in found:
            checkpoint = random_checkpoint(folder / kind, KINDS[kind], seed=3)
            convert(checkpoint, folder / f"{kind}.pack", name="small")
            found[kind] = checkpoint, folder / f"{kind}.pack"
        return found[kind]

    return make


@pytest.fixture
def pack_folder(made, tmp_path):
    """A pack of this test's own, of the kind with most files: llama, with a head."""
    return Path(shutil.copytree(made("llama-bitlinear")[1], tmp_path / "a-pack"))


@pytest.fixture
def checkpoint(made, tmp_path):
    """A packed BitNet checkpoint of this test's own."""
    return Path(shutil.copytree(made("packed")[0], tmp_path / "a-checkpoint"))


@pytest.fixture
def edit():
    """Changes a JSON file in place: edit(path, lambda value: ...)."""

    def change(path: Path, how) -> None:
        value = json.loads(path.read_text())
        how(value)
        path.write_text(json.dumps(value))

    return change
