"""What the agent says: lines of JSON with a mark, and one clear sentence for what it cannot do."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

MARK = "trireme-agent "
"""Begins every line that is ours: a login shell may print others."""
PROGRESS_SECONDS = 2.0
_TAIL_BYTES = 8192
_LONGEST_LINE = 300
_BAD_WORDS = ("error", "exception", "unable", "failed", "refused", "timed out")

Json = dict[str, Any]


class Refused(Exception):
    """The host cannot do what it is asked for; the message is one clear sentence."""


def say(value: Json) -> None:
    """One line to the caller. OSError where nobody listens any more."""
    sys.stdout.write(f"{MARK}{json.dumps(value)}\n")
    sys.stdout.flush()


def last_words(log: Path, silent: str = "nothing.", *, bad: bool = False) -> str:
    """The last line of a log; with `bad` the last that speaks of a fault, where one does."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    faults = [line for line in lines if bad and any(word in line.lower() for word in _BAD_WORDS)]
    return ((faults or lines)[-1] if lines else silent)[:_LONGEST_LINE]
