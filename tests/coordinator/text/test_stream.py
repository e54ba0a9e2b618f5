"""Pieces of text, put together, are the text of all tokens: on the bundled kind of vocabulary and on byte fallback."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from trireme_coordinator.text import TextCodec

UNKNOWN = "<unk>"
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def byte_level() -> TextCodec:
    """A byte-level BPE: 0 and 1 special, then the 256 bytes, then a few merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, "</s>": 1} | {letter: 2 + index for index, letter in enumerate(alphabet)}
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "w"), ("Ã", "©"), ("â", "Ĥ"), ("Ġ", "hello")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return TextCodec(tokenizer, 0, len(vocabulary))


def byte_fallback() -> TextCodec:
    """A SentencePiece-like BPE: words carry their space, rare characters fall back to bytes, the first space is cut."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for name in [f"<0x{byte:02X}>" for byte in range(256)] + ["▁", "h", "i", "hi", "▁hi", "é", "▁é", "!"]:
        vocabulary[name] = len(vocabulary)
    merges = [("h", "i"), ("▁", "hi"), ("▁", "é")]
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token=UNKNOWN, byte_fallback=True, fuse_unk=True)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return TextCodec(tokenizer, 1, len(vocabulary))


LEVEL, FALLBACK = byte_level(), byte_fallback()
ids_of_level = st.lists(st.integers(0, 2 + 256 + 7), max_size=40)
ids_of_fallback = st.lists(st.integers(0, 3 + 256 + 7), max_size=40)


def pieces(codec: TextCodec, token_ids: list[int], prefix: list[int] | None = None) -> list[str]:
    stream = codec.stream(prefix or [])
    return [*(stream.push(token_id) for token_id in token_ids), stream.finish()]


@given(ids_of_level)
def test_pieces_of_any_tokens_make_the_whole(token_ids):
    assert "".join(pieces(LEVEL, token_ids)) == LEVEL.decode(token_ids)


@given(ids_of_level, st.integers(0, 40))
def test_pieces_after_a_prefix_make_the_rest(token_ids, cut):
    prefix, rest = token_ids[:cut], token_ids[cut:]
    before, whole = LEVEL.decode(prefix), LEVEL.decode(token_ids)
    expected = whole[len(before) :] if whole.startswith(before) else whole[len(before.rstrip(REPLACEMENT)) :]
    if not before.endswith(REPLACEMENT):
        assert "".join(pieces(LEVEL, rest, prefix)) == expected
    else:
        assert before.rstrip(REPLACEMENT) + "".join(pieces(LEVEL, rest, prefix)).lstrip(REPLACEMENT) == (
            before.rstrip(REPLACEMENT) + expected.lstrip(REPLACEMENT)
        )


@given(st.text(max_size=40))
@pytest.mark.parametrize("codec", [LEVEL, FALLBACK], ids=["byte level", "byte fallback"])
def test_pieces_of_a_text_make_the_text(codec, text):
    token_ids = codec.encode(text, add_bos=True)
    assert "".join(pieces(codec, token_ids)) == codec.decode(token_ids)


@given(ids_of_fallback, ids_of_fallback)
def test_byte_fallback_never_fails_and_never_loses_a_whole_word(prefix, token_ids):
    text = "".join(pieces(FALLBACK, token_ids, prefix))
    exclamation = FALLBACK.encode("!", add_bos=False)[-1]
    assert text.count("!") == token_ids.count(exclamation) + token_ids.count(3 + ord("!")) or REPLACEMENT in text


@pytest.mark.parametrize("codec", [LEVEL, FALLBACK], ids=["byte level", "byte fallback"])
def test_a_character_comes_whole_with_its_last_token(codec):
    euro = codec.encode("hi€", add_bos=False)
    got = pieces(codec, euro)
    assert got[-2] == "€"
    assert all(piece in {"", "h", "i", "hi"} for piece in got[:-2])


def test_the_space_at_the_seam_of_a_session_is_kept():
    prompt, answer = FALLBACK.encode("hi", add_bos=True), FALLBACK.encode("hi", add_bos=False)
    assert "".join(pieces(FALLBACK, answer, prompt)) == " hi"
    assert "".join(pieces(FALLBACK, answer)) == "hi"


def test_a_character_cut_by_the_seam_is_delivered_whole_with_the_answer():
    euro = LEVEL.encode("€", add_bos=False)
    assert len(euro) >= 2
    assert "".join(pieces(LEVEL, euro[1:], LEVEL.encode("x", add_bos=False) + euro[:1])) == "€"
    assert "".join(pieces(LEVEL, LEVEL.encode("y", add_bos=False), euro[:1])) == "y"


def test_an_unfinished_character_ends_as_a_replacement():
    euro = LEVEL.encode("€", add_bos=False)
    assert pieces(LEVEL, euro[:1]) == ["", REPLACEMENT]


def test_special_tokens_have_no_text_and_do_not_cut_a_character():
    euro = LEVEL.encode("€", add_bos=False)
    assert "".join(pieces(LEVEL, [0, euro[0], 1, *euro[1:], 1])) == "€"
    assert "".join(pieces(LEVEL, [euro[0], 1, 1, 1, 1, 1, *euro[1:]])) == "€"


def test_a_character_begun_again_and_again_is_one_replacement_each_time():
    begun = LEVEL.encode("\N{GRINNING FACE}", add_bos=False)[:3]
    whole = [*begun, *begun, *begun, *LEVEL.encode("x", add_bos=False)]
    assert "".join(pieces(LEVEL, whole)) == LEVEL.decode(whole) == 3 * REPLACEMENT + "x"


def test_a_byte_that_spoils_a_delivered_character_does_not_repeat_it():
    lead = FALLBACK.encode("\N{CYRILLIC SMALL LETTER ZHE}", add_bos=False)
    word = FALLBACK.encode("!", add_bos=False)[-1]
    zhe, spoilt = lead[-2:], [lead[-2], word]
    assert FALLBACK.decode([*zhe, *spoilt]).startswith(REPLACEMENT)  # the library takes the bytes together
    assert "".join(pieces(FALLBACK, [*zhe, *spoilt])) == "\N{CYRILLIC SMALL LETTER ZHE}" + REPLACEMENT + "!"


def test_bytes_that_never_become_a_character_are_not_held_back_for_ever():
    lead = LEVEL.encode("€", add_bos=False)[:1]
    stream = LEVEL.stream()
    delivered = "".join(stream.push(lead[0]) for _ in range(2000))
    assert len(delivered) >= 1990
    assert set(delivered) == {REPLACEMENT}
