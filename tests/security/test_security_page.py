"""Every test that SECURITY.md names is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`((?:tests/[\w/]+/?)?(?:test_\w+\.py)?)`", (ROOT / "SECURITY.md").read_text())
    names = [name for name in named if name]
    assert len(names) > 20
    for name in names:
        places = [ROOT / name, *(ROOT / folder / name for folder in ("tests/security", "tests/worker/pack"))]
        assert any(place.exists() for place in places), name
