"""Guesses at a sequence's next tokens, from its own tokens: what followed the last time that its end occurred.

Prompt lookup decoding (Saxena, 2023): texts repeat names, quotations and code. A guess costs part of a step when the
stages are compute-bound, and next to nothing when they wait for memory; so a guess is made only where the chance that
it is right, as this sequence's earlier guesses say, is worth its price.
"""

from __future__ import annotations

from collections.abc import Sequence

_LENGTHS = (3, 2)
"""Tokens at the end that must have occurred before; the longer match is tried first."""
_BEGIN = 0.5
_LEARN, _FORGET = 0.15, 0.01
_RECENT = 1 / 16
_AGAIN = 16
"""Steps after which guesses get another chance."""


class Drafts:
    """The guesses of one sequence. `chance`: how often a guess is right, lately; drifts back while none are made."""

    def __init__(self) -> None:
        self.chance = _BEGIN
        self._gain = 0.0
        self._stood_back = 0
        self._after: dict[tuple[int, ...], int] = {}  # tokens -> where what followed them last begins
        self._seen = 0

    def pays(self, price: float) -> bool:
        """Whether one guess would pay. Asked before each decode step; where it does not, chances drift back."""
        if self.chance > price:
            return True
        self.chance += _FORGET * (_BEGIN - self.chance)
        return False

    def stands_back(self, gain: float) -> bool:
        """Whether a step should rather be sent before the token that a guess would continue is known. `gain`: what that
        saves, in steps. Now and then it should not, or guesses could never show again that they are worth more.
        """
        if self._gain > gain or self._stood_back >= _AGAIN:
            self._stood_back = 0
            return False
        self._stood_back += 1
        return True

    def gained(self, right: int) -> None:
        """A decode step that could have carried guesses gave so many tokens more than one."""
        self._gain += _RECENT * (right - self._gain)

    def guess(self, tokens: Sequence[int], most: int, price: float) -> tuple[int, ...]:
        """At most `most` tokens that may follow. `price`: what computing one costs, against what a right one is
        worth.
        """
        worth = self._worth(most, price)
        if not worth:
            return ()
        self._look(tokens)
        for length in _LENGTHS:
            begin = self._after.get(tuple(tokens[-length:]))
            if begin is not None:
                period = len(tokens) - begin  # a text that repeats itself goes on doing so
                return tuple(tokens[begin + i % period] for i in range(worth))
        return ()

    def learn(self, guessed: int, right: int) -> None:
        """Of `guessed` guesses the first `right` were right."""
        for was_right in [True] * right + [False] * (right < guessed):
            self.chance += _LEARN * (was_right - self.chance)

    def _worth(self, most: int, price: float) -> int:
        """How many guesses pay: the last one is right only if all before it are."""
        worth, chance = 0, self.chance
        while worth < most and chance > price:
            worth, chance = worth + 1, chance * self.chance
        return worth

    def _look(self, tokens: Sequence[int]) -> None:
        """Notes what followed, up to the last token but one."""
        for end in range(max(self._seen, min(_LENGTHS)), len(tokens)):
            for length in _LENGTHS:
                if end >= length:
                    self._after[tuple(tokens[end - length : end])] = end
        self._seen = max(self._seen, len(tokens))
