"""Text to token ids: what a user's text may turn into, and what is refused."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from trireme_coordinator.text import TextCodec
from trireme_proto.errors import InvalidRequest, PackCorrupt, PromptTooLong
from trireme_proto.limits import LIMITS

BOS, EOS = 0, 1


def tokenizer(**changes) -> Tokenizer:
    """A byte-level BPE whose post-processor adds the begin-of-text token, as those of real models do."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": BOS, "</s>": EOS} | {letter: 2 + index for index, letter in enumerate(alphabet)}
    merges = [("h", "e"), ("l", "l")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<s>", "</s>"])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", BOS), ("</s>", EOS)]
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return made


SIZE = tokenizer().get_vocab_size()
CODEC = TextCodec(tokenizer(), BOS, SIZE)


def saved(path: Path, made: Tokenizer) -> Path:
    made.save(str(path / "tokenizer.json"))
    return path / "tokenizer.json"


def test_the_begin_of_text_token_is_added_once_and_only_on_demand():
    plain = CODEC.encode("he", add_bos=False)
    assert BOS not in plain
    assert EOS not in plain
    assert CODEC.encode("he", add_bos=True) == [BOS, *plain]
    assert CODEC.encode("", add_bos=True) == [BOS]
    assert CODEC.encode("", add_bos=False) == []
    assert TextCodec(tokenizer(), None, SIZE).encode("he", add_bos=True) == plain


@given(st.lists(st.sampled_from(["<s>", "</s>", "he", " ", "<", "s>", "\n"]), max_size=8).map("".join))
def test_special_tokens_typed_by_a_user_stay_text(text):
    token_ids = CODEC.encode(text, add_bos=False)
    assert not {BOS, EOS} & set(token_ids)
    assert CODEC.decode(token_ids) == text


@given(st.text(max_size=50))
def test_text_comes_back_as_it_was(text):
    assert CODEC.decode(CODEC.encode(text, add_bos=True)) == text


def test_decoding_leaves_special_tokens_out():
    assert CODEC.decode([BOS, *CODEC.encode("he", add_bos=False), EOS]) == "he"


@pytest.mark.parametrize("bad", [-1, SIZE, 1 << 32, 1 << 70])
def test_token_ids_outside_of_the_vocabulary_are_refused(bad):
    with pytest.raises(InvalidRequest, match="outside of the vocabulary"):
        CODEC.decode([2, bad])
    with pytest.raises(InvalidRequest, match="outside of the vocabulary"):
        CODEC.check_ids([bad])
    CODEC.check_ids([0, SIZE - 1])


def test_too_many_token_ids_are_refused():
    CODEC.check_ids([2] * LIMITS.request_tokens)
    with pytest.raises(InvalidRequest, match="at most"):
        CODEC.check_ids([2] * (LIMITS.request_tokens + 1))


def test_a_text_beyond_the_limit_is_refused():
    with pytest.raises(PromptTooLong, match="bytes"):
        CODEC.encode("\N{EURO SIGN}" * (LIMITS.prompt_bytes // 3 + 1), add_bos=True)


def test_a_text_that_is_not_unicode_is_refused():
    with pytest.raises(InvalidRequest, match="Unicode"):
        CODEC.encode("a\ud800", add_bos=True)


def test_a_prompt_without_room_is_refused_and_one_that_just_fits_is_not():
    assert CODEC.encode("abc", add_bos=True, most_tokens=4) == CODEC.encode("abc", add_bos=True)
    with pytest.raises(PromptTooLong, match="4 tokens; there is room for 3"):
        CODEC.encode("abc", add_bos=True, most_tokens=3)
    with pytest.raises(PromptTooLong):
        CODEC.encode("abc", add_bos=True, most_tokens=-5)


def test_a_text_that_cannot_fit_is_refused_before_it_is_tokenized():
    started = time.thread_time()
    with pytest.raises(PromptTooLong, match="more tokens"):
        CODEC.encode("a" * (1 << 20), add_bos=True, most_tokens=4096)
    assert time.thread_time() - started < 0.05  # of this thread; tokenizing takes 0.5 s


@pytest.mark.parametrize("change", ["normalizer", "unknown"])
def test_the_early_refusal_does_not_touch_texts_that_a_tokenizer_shortens(change):
    if change == "normalizer":
        made = tokenizer(normalizer=normalizers.Strip())
    else:
        made = Tokenizer(models.BPE(vocab={"<unk>": 0, "a": 1}, merges=[], unk_token="<unk>", fuse_unk=True))  # noqa: S106
    codec = TextCodec(made, None, made.get_vocab_size())
    text = " " * 5000 if change == "normalizer" else "\N{EURO SIGN}" * 5000
    assert len(codec.encode(text, add_bos=False, most_tokens=3)) <= 1


@pytest.mark.parametrize("character", ["a", " ", "e\N{COMBINING ACUTE ACCENT}"])
def test_a_mebibyte_of_one_character_takes_no_more_than_other_text_does(character):
    text = character * ((1 << 20) // len(character.encode()))
    started = time.thread_time()
    token_ids = CODEC.encode(text, add_bos=False)
    assert time.thread_time() - started < 10.0  # about 0.6 s on a quiet machine; quadratic it would be hours
    assert CODEC.decode(token_ids) == text


def test_encoding_leaves_other_threads_running():
    """The event loop must go on while a long prompt is tokenized in a thread."""
    thread = threading.Thread(target=CODEC.encode, args=("he" * (1 << 19), False))
    longest, last = 0.0, time.perf_counter()
    thread.start()
    turns = 0
    while thread.is_alive():
        now = time.perf_counter()
        longest, last, turns = max(longest, now - last), now, turns + 1
    thread.join()
    assert turns > 1000


def test_truncation_and_padding_in_the_file_are_not_followed(tmp_path):
    made = tokenizer()
    made.enable_truncation(3)
    made.enable_padding(length=10)
    codec = TextCodec.open(saved(tmp_path, made), BOS, SIZE)
    assert len(codec.encode("abcdef", add_bos=True)) == 7


def test_a_tokenizer_is_read_from_its_file(tmp_path):
    codec = TextCodec.open(saved(tmp_path, tokenizer()), BOS, SIZE)
    assert codec.encode("hello", add_bos=True) == CODEC.encode("hello", add_bos=True)


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff\xfe", b'{"model": 1}', b"[" * 100_000])
def test_a_file_that_is_no_tokenizer_is_a_typed_error(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PackCorrupt, match=r"tokenizer\.json") as raised:
        TextCodec.open(path, BOS, SIZE)
    assert str(tmp_path) not in str(raised.value)


@pytest.mark.parametrize(("bos", "size"), [(BOS, SIZE - 1), (SIZE, SIZE), (-1, SIZE)])
def test_a_tokenizer_that_does_not_fit_the_model_is_refused(tmp_path, bos, size):
    with pytest.raises(PackCorrupt, match="vocabulary"):
        TextCodec.open(saved(tmp_path, tokenizer()), bos, size)


def test_a_mutated_file_is_a_typed_error_or_a_tokenizer(tmp_path):
    """Structure knocked out of a real file, one key at a time: never another kind of error."""
    whole = json.loads(tokenizer().to_str())
    for key in [*whole, *(f"model.{name}" for name in whole["model"])]:
        for value in (None, 7, "x", [], {}):
            changed = json.loads(json.dumps(whole))
            place = changed["model"] if key.startswith("model.") else changed
            place[key.removeprefix("model.")] = value
            (tmp_path / "tokenizer.json").write_text(json.dumps(changed))
            try:
                TextCodec.open(tmp_path / "tokenizer.json", None, SIZE).encode("hello <s>", add_bos=True)
            except PackCorrupt:
                continue
