"""Small checkpoints and packs, made once and copied for tests that damage them."""

import json
import shutil
from pathlib import Path

import pytest
from tests.reference_checkpoints import KINDS, random_checkpoint

from trireme_worker.convert import convert


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """kind, head, layout -> (checkpoint, pack), shared: not to be changed."""
    folder, found = tmp_path_factory.mktemp("made"), {}

    def make(kind: str, head: str = "bf16", layout: str = "2bit") -> tuple[Path, Path]:
        checkpoint, pack = folder / kind, folder / f"{kind}.{head}.{layout}.pack"
        if not checkpoint.exists():
            random_checkpoint(checkpoint, KINDS[kind], seed=3)
        if pack not in found:
            convert(checkpoint, pack, name="small", head=head, layout=layout)
            found[pack] = checkpoint, pack
        return found[pack]

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
