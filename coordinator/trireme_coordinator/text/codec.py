"""Text to token ids and back, with the model's own tokenizer.json (Hugging Face `tokenizers`).

Owns what a user's text may turn into: special tokens typed by a user stay ordinary text, and only the begin-of-text
token is added, here. Calls may take a second for a few MiB: the caller keeps them off the event loop. Never logs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, models

from trireme_coordinator.text.stream import TextStream
from trireme_proto.errors import InvalidRequest, PackCorrupt, PromptTooLong
from trireme_proto.limits import LIMITS


class TextCodec:
    """The tokenizer of one pack. Safe to use from several threads."""

    def __init__(self, tokenizer: Tokenizer, bos_token_id: int | None, vocabulary: int) -> None:
        """Takes the tokenizer over. PackCorrupt where it has ids outside of [0, vocabulary)."""
        ids = tokenizer.get_vocab(with_added_tokens=True).values()
        if max(ids, default=-1) >= vocabulary or (bos_token_id is not None and not 0 <= bos_token_id < vocabulary):
            raise PackCorrupt("The pack's tokenizer has token ids outside of the model's vocabulary.")
        tokenizer.encode_special_tokens = True
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._bos = bos_token_id
        self._vocabulary = vocabulary
        self._special = frozenset(id_ for id_, token in tokenizer.get_added_tokens_decoder().items() if token.special)
        self._characters_a_token = _characters_a_token(tokenizer)

    @classmethod
    def open(cls, tokenizer_json: Path, bos_token_id: int | None, vocabulary: int) -> TextCodec:
        """Reads a tokenizer.json. `bos_token_id`: the begin-of-text token, where the model wants one. PackCorrupt."""
        try:
            tokenizer = Tokenizer.from_file(str(tokenizer_json))
        except Exception:  # noqa: BLE001  the library raises nothing more precise
            raise PackCorrupt("The pack's tokenizer.json is missing or is no tokenizer.") from None
        return cls(tokenizer, bos_token_id, vocabulary)

    def encode(self, text: str, add_bos: bool, most_tokens: int | None = None) -> list[int]:
        """Token ids of a text, the begin-of-text token in front where `add_bos` and the model has one.

        PromptTooLong beyond LIMITS.prompt_bytes, and beyond `most_tokens` (room in the context window) where given; a
        text that cannot fit is refused before it is tokenized. InvalidRequest for a text that is not valid Unicode.
        """
        self._check_text(text, most_tokens)
        start = [self._bos] if add_bos and self._bos is not None else []
        ids = start + self._tokenizer.encode(text, add_special_tokens=False).ids
        if most_tokens is not None and len(ids) > most_tokens:
            raise PromptTooLong(f"The prompt has {len(ids)} tokens; there is room for {max(most_tokens, 0)}.")
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids, special tokens left out, always valid Unicode. InvalidRequest as `check_ids`."""
        self.check_ids(token_ids)
        return self._decode(list(token_ids))

    def check_ids(self, token_ids: Sequence[int]) -> None:
        """InvalidRequest where there are more than LIMITS.request_tokens ids, or one is outside of [0, vocabulary)."""
        if len(token_ids) > LIMITS.request_tokens:
            raise InvalidRequest(f"token_ids: at most {LIMITS.request_tokens} are accepted.")
        for token_id in token_ids:
            if not 0 <= token_id < self._vocabulary:
                raise InvalidRequest(f"token_ids: {token_id} is outside of the vocabulary, [0, {self._vocabulary}).")

    def stream(self, prefix_ids: Sequence[int] = ()) -> TextStream:
        """Decodes what follows `prefix_ids`, token by token.

        Of those only the last few matter, so that spaces at the seam come out right; their own text is not repeated.
        """
        return TextStream(self._decode, self._special, prefix_ids)

    def _decode(self, token_ids: list[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=True)

    def _check_text(self, text: str, most_tokens: int | None) -> None:
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise InvalidRequest("The prompt is not valid Unicode text.") from None
        if size > LIMITS.prompt_bytes:
            raise PromptTooLong(f"The prompt has {size} bytes; at most {LIMITS.prompt_bytes} are accepted.")
        if self._characters_a_token is None or most_tokens is None:
            return
        if len(text) > max(most_tokens, 0) * self._characters_a_token:
            raise PromptTooLong(f"The prompt has more tokens than there is room for ({max(most_tokens, 0)}).")


def _characters_a_token(tokenizer: Tokenizer) -> int | None:
    """The most characters of a text that one token can stand for; None where that cannot be known.

    Holds for BPE without a normaliser (which may shorten a text) and without an unknown token (which may swallow any
    number of characters); the tokens of a byte-level vocabulary are written with one character for each byte.
    """
    model = tokenizer.model
    if tokenizer.normalizer is not None or not isinstance(model, models.BPE) or model.unk_token is not None:
        return None
    return max((len(token) for token in tokenizer.get_vocab(with_added_tokens=True)), default=None)
