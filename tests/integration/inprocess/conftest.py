"""The bundled model, opened once."""

from __future__ import annotations

import pytest

from trireme_worker.pack import Pack, default_pack


@pytest.fixture(scope="session")
def pack() -> Pack:
    return Pack.open(default_pack(), verify=False)
