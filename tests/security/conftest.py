from __future__ import annotations

import pytest
from tests.support.packs import bundled

from trireme_worker.pack import Pack


@pytest.fixture(scope="session")
def pack() -> Pack:
    return bundled()
