"""Token ids to pieces of text, one token at a time.

The pieces, put together, are the text of all the tokens. To get the spaces right a token is decoded together with those
before it, and to deliver only whole characters tokens are held back while the text ends in an incomplete one:

    ids:    ... | context (delivered)      | held (not yet) |
    text:       | before                   | piece          |

`tokenizers.decoders.DecodeStream` does the same, but raises on byte-fallback vocabularies when a byte that completes no
character follows one that did, keeps what is held back to itself at the end, and repeats a prefix that ends within a
character; so the window is kept here, on the library's plain decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_CONTEXT = 8
"""Tokens of a prefix that are looked at: enough to hold a character and some text before it."""
_UNDECIDED = 3
"""Most tokens whose character may still be incomplete: it has at most 4 bytes in UTF-8, a token at least one."""


class TextStream:
    """Decodes one answer. Every piece is valid Unicode text; a character that spans tokens comes with its last one."""

    def __init__(
        self, decode: Callable[[list[int]], str], special: AbstractSet[int], prefix_ids: Sequence[int] = ()
    ) -> None:
        """`special`: ids that have no text. `prefix_ids`: what comes before; its text is not repeated."""
        self._decode = decode
        self._special = special
        self._held: list[int] = []
        self._context = [token_id for token_id in prefix_ids[-4 * _CONTEXT :] if token_id not in special][-_CONTEXT:]
        self._before = decode(self._context)

    def push(self, token_id: int) -> str:
        """The text that this token completes; often "" while a character is incomplete, and for special tokens."""
        if token_id in self._special:
            return ""
        self._held.append(token_id)
        if not self._decode(self._context + self._held).endswith(_REPLACEMENT):
            return self._deliver(len(self._held))
        if len(self._held) > _UNDECIDED:
            return self._deliver(len(self._held) - _UNDECIDED)
        return ""

    def finish(self) -> str:
        """What is still held back, with U+FFFD for a character that was never completed. Ends the stream."""
        return self._deliver(len(self._held))

    def _deliver(self, count: int) -> str:
        """The text of the first `count` tokens held back; they become the context of the next ones."""
        taken, self._held = self._held[:count], self._held[count:]
        text = self._decode(self._context + taken)
        piece = self._continuation(text, taken)
        self._context = taken if piece else self._context + taken
        self._before = self._decode(self._context)
        return piece

    def _continuation(self, text: str, taken: list[int]) -> str:
        """What `text` has beyond the text before it."""
        if text.startswith(self._before):
            return text[len(self._before) :]
        complete = self._before.rstrip(_REPLACEMENT)  # a character left incomplete by the prefix is complete now
        if text.startswith(complete):
            return text[len(complete) :]
        return self._decode(taken)
