"""A pickle that makes a file when it is loaded: what attackers send."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any


class Bomb:
    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._mark,)


def bomb(mark: Path) -> bytes:
    """Makes `mark` when somebody unpickles it; checked, so that its tests can fail."""
    made = pickle.dumps(Bomb(mark))
    pickle.loads(made)  # noqa: S301  the one place that does
    assert mark.exists()
    mark.unlink()
    return made
