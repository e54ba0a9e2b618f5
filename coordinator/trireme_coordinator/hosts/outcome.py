"""What came of `up` and `down` on each host; as lines while it happens, and as one object in the end."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class Outcome:
    """One host."""

    name: str
    changes: list[str] = field(default_factory=list)
    error: str | None = None
    processes: dict[str, Any] = field(default_factory=dict)


class Report:
    """Says everything at once on standard error, and keeps it."""

    def __init__(self, names: list[str]) -> None:
        self.outcomes = {name: Outcome(name) for name in names}
        self._said: dict[str, str] = {}

    def progress(self, name: str, text: str) -> None:
        """What goes on; a thing that is repeated is said once."""
        if self._said.get(name) != text:
            self._said[name] = text
            self._say(name, text)

    def changed(self, name: str, notes: list[str]) -> None:
        """What is about to change on a host."""
        self.outcomes[name].changes += notes
        for note in notes:
            self._say(name, note)

    def failed(self, name: str, error: str) -> None:
        """The first thing that went wrong on a host."""
        if self.outcomes[name].error is None:
            self.outcomes[name].error = error
            self._say(name, f"failed: {error}")

    @property
    def failures(self) -> dict[str, str]:
        """Sentences by host."""
        return {each.name: each.error for each in self.outcomes.values() if each.error is not None}

    def json(self) -> dict[str, Any]:
        """All of it, for machines."""
        return {"ok": not self.failures, "hosts": [asdict(each) for each in self.outcomes.values()]}

    def summary(self) -> list[str]:
        """A line on the whole, and one for each host that failed."""
        changed = [each.name for each in self.outcomes.values() if each.changes and each.error is None]
        unchanged = [each.name for each in self.outcomes.values() if not each.changes and each.error is None]
        counts = [(changed, "changed"), (unchanged, "unchanged"), (list(self.failures), "failed")]
        parts = [f"{len(names)} {word}: {', '.join(names)}" for names, word in counts if names]
        return ["; ".join(parts), *(f"{name}: {error}" for name, error in self.failures.items())]

    @staticmethod
    def _say(name: str, text: str) -> None:
        print(f"{name}: {text}", file=sys.stderr, flush=True)  # noqa: T201  progress for a person
