"""The model of the fake server: bytes for tokens, and words drawn by a formula for answers.

    token id   0..255        256             257
    meaning    a UTF-8 byte  begin of text   end of text

What follows a context depends on the context and the seed alone, as with the real thing.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

_WORDS = ("oar", "sail", "rowed", "the", "sea", "harbour", "and", "ταχύς", "naïve", "三段櫂船", "ternary", "wave")
_ANSWER_WORDS = 24
"""The model ends its text after so many words."""


@dataclass(frozen=True, slots=True)
class FakeModel:
    """Deterministic stand-in for a language model."""

    name: str = "fake"
    context: int = 4096
    """Tokens that a sequence can hold."""
    vocabulary: int = 258
    bos: int = 256
    eos: int = 257
    pack_sha256: str = "0" * 64
    """What tells its sessions from those of other models."""

    def tokenize(self, text: str, *, add_bos: bool) -> list[int]:
        """One token a byte."""
        return [self.bos] * add_bos + list(text.encode())

    def detokenize(self, ids: Sequence[int]) -> str:
        """Special tokens are left out; what is no UTF-8 becomes the replacement character."""
        return bytes(number for number in ids if number < self.bos).decode(errors="replace")

    def continuation(self, tokens: Sequence[int], seed: int | None) -> Iterator[int]:
        """Endless: what follows the tokens; end of text comes up now and then. seed None: greedy."""
        state = zlib.crc32(repr((list(tokens), seed)).encode())
        for words in count(1):
            state = (state * 1664525 + 1013904223) % (1 << 32)  # Numerical Recipes' generator
            yield from (" " + _WORDS[(state >> 16) % len(_WORDS)]).encode()
            if words % _ANSWER_WORDS == 0:
                yield self.eos
