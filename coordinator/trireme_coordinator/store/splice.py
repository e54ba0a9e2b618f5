"""The rule of an idempotent append: what is new, what is already there, and what contradicts it. Pure.

held:        [ 0 ........ expected_count ........ held )
token_ids:                [ overlap, must be equal | fresh )
"""

from __future__ import annotations

from collections.abc import Sequence

from trireme_proto.errors import Internal
from trireme_proto.limits import LIMITS


def fresh_tokens(
    held: int, expected_count: int, token_ids: Sequence[int], overlap: Sequence[int], vocabulary: int
) -> Sequence[int]:
    """Those of `token_ids` that a session with `held` tokens does not have yet.

    `overlap` is what the session has at [expected_count, expected_count + len(token_ids)), as far as it goes. Internal
    where it differs, where there is a gap before `expected_count`, where a token id is outside of [0, vocabulary), and
    where the session would grow beyond LIMITS.request_tokens.
    """
    if not 0 <= expected_count <= held:
        raise Internal("A session was to be continued beyond its end.")
    if len(overlap) != min(held - expected_count, len(token_ids)) or list(token_ids[: len(overlap)]) != list(overlap):
        raise Internal("A session already holds other tokens at this position.")
    if any(not 0 <= token_id < vocabulary for token_id in token_ids):
        raise Internal("A token id is outside of the vocabulary.")
    if expected_count + len(token_ids) > LIMITS.request_tokens:
        raise Internal("A session would hold more tokens than the limit.")
    return token_ids[len(overlap) :]
