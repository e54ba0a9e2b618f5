"""Finds stop texts in a text that arrives in pieces. Pure.

    held back:   "...and then EN"      with the stop text "END": "EN" may begin it
    delivered:   "...and then "

What is found does not depend on how the text was cut into pieces: of several matches the one that is complete first
counts, and of those that are complete at the same place the longest.
"""

from __future__ import annotations

from collections.abc import Sequence

from trireme_proto.errors import InvalidRequest
from trireme_proto.limits import LIMITS


class StopMatcher:
    """Watches one answer for its stop texts. Without any, text passes through."""

    def __init__(self, stops: Sequence[str] = ()) -> None:
        """InvalidRequest for more than LIMITS.stop_texts texts, an empty one, or one beyond LIMITS.stop_bytes."""
        if len(stops) > LIMITS.stop_texts:
            raise InvalidRequest(f"stop: at most {LIMITS.stop_texts} texts are accepted.")
        if any(not 1 <= len(stop.encode(errors="surrogatepass")) <= LIMITS.stop_bytes for stop in stops):
            raise InvalidRequest(f"stop: each text must have 1 to {LIMITS.stop_bytes} bytes.")
        self._stops = tuple(stops)
        self._longest = max((len(stop) for stop in stops), default=0)
        self._held = ""
        self._matched = False

    def push(self, text: str) -> tuple[str, bool]:
        """(text to deliver, whether a stop text came up). After a match nothing is delivered any more."""
        if self._matched:
            return "", True
        text = self._held + text
        start = self._find(text)
        if start is not None:
            self._matched, self._held = True, ""
            return text[:start], True
        keep = self._may_begin(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def flush(self) -> str:
        """What was held back, at the end of an answer in which no stop text came up."""
        held, self._held = self._held, ""
        return held

    def _find(self, text: str) -> int | None:
        """Where the first match begins."""
        found = ((text.find(stop), len(stop)) for stop in self._stops)
        matches = [(start + length, start) for start, length in found if start >= 0]
        return min(matches)[1] if matches else None

    def _may_begin(self, text: str) -> int:
        """Length of the longest end of `text` that begins one of the stop texts without being all of it."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0
