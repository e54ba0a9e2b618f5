"""A mix of lengths: `128`, `32-128` (each length as likely), `32-128@0.7,1024@0.3` (parts with weights).

Owns the notation and the drawing. Knows nothing of what the lengths are of.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from trireme_proto.errors import ConfigurationError
from trireme_proto.limits import LIMITS

_PART = re.compile(r"(?P<low>[0-9]{1,9})(-(?P<high>[0-9]{1,9}))?(@(?P<weight>[0-9]{0,6}\.?[0-9]{1,6}))?")


@dataclass(frozen=True, slots=True)
class Part:
    """Lengths from `low` to `high`, both included, drawn in proportion to `weight`."""

    low: int
    high: int
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Mix:
    """Parts to draw lengths from; see the module for the notation."""

    parts: tuple[Part, ...]
    text: str
    """As it was written."""

    @classmethod
    def parse(cls, text: str, what: str) -> Mix:
        """The mix in a text. ConfigurationError, which names `what`, where it is none."""
        return cls(tuple(_part(part.strip(), what) for part in text.split(",")), text)

    @property
    def longest(self) -> int:
        """The greatest length that can be drawn."""
        return max(part.high for part in self.parts)

    @property
    def mean(self) -> float:
        """The mean length."""
        weight = sum(part.weight for part in self.parts)
        return sum(part.weight * (part.low + part.high) / 2 for part in self.parts) / weight

    def draw(self, random: Random) -> int:
        """A length."""
        part = random.choices(self.parts, [part.weight for part in self.parts])[0]
        return random.randint(part.low, part.high)


def _part(text: str, what: str) -> Part:
    found = _PART.fullmatch(text)
    if found is None:
        raise ConfigurationError(f"{what} is '{text[:40]}'; write 128, 32-128, or 32-128@0.7,1024@0.3.")
    low = int(found["low"])
    part = Part(low, int(found["high"] or low), float(found["weight"] or 1))
    if not 1 <= part.low <= part.high <= LIMITS.request_tokens:
        raise ConfigurationError(
            f"{what} is '{text}'; lengths go from 1 to {LIMITS.request_tokens}, the shorter first."
        )
    if part.weight <= 0:
        raise ConfigurationError(f"{what} is '{text}'; a weight must be above 0.")
    return part
