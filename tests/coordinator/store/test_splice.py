"""The rule of an idempotent append, against the plain meaning of "write these tokens at that position"."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trireme_coordinator.store.splice import fresh_tokens
from trireme_proto.errors import Internal
from trireme_proto.limits import LIMITS

tokens = st.lists(st.integers(-1, 4), max_size=6)


@given(tokens.map(lambda ids: [abs(token) for token in ids]), st.integers(-1, 8), tokens)
def test_fresh_tokens_make_exactly_the_overwritten_list(held, position, token_ids):
    contradicts = (
        not 0 <= position <= len(held)
        or any(not 0 <= token < 4 for token in token_ids)
        or any(have != want for have, want in zip(held[position:], token_ids, strict=False))
    )
    overlap = held[position : position + len(token_ids)]
    if contradicts:
        with pytest.raises(Internal):
            fresh_tokens(len(held), position, token_ids, overlap, 4)
        return
    fresh = fresh_tokens(len(held), position, token_ids, overlap, 4)
    written = held[:position] + token_ids + held[position + len(token_ids) :]
    assert [*held, *fresh] == written


def test_a_gap_is_told_apart_from_other_tokens():
    with pytest.raises(Internal, match="beyond its end"):
        fresh_tokens(3, 4, [1], [], 4)
    with pytest.raises(Internal, match="other tokens"):
        fresh_tokens(3, 2, [1], [2], 4)


def test_a_session_does_not_grow_beyond_the_limit():
    limit = LIMITS.request_tokens
    assert list(fresh_tokens(limit - 1, limit - 1, [1], [], 4)) == [1]
    with pytest.raises(Internal):
        fresh_tokens(limit, limit, [1], [], 4)
