"""Names and values of KV pages outside their process: equal names are equal bytes, anything else is a miss."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest

from trireme_worker.page_value import HEADER_BYTES, PageIdentity, blank, opened, seal

IDENTITY = PageIdentity("a" * 64, 3, 7, "int8")
KEY = bytes(range(32))
SIZE = 640


def value(name: str, seed: int = 0) -> bytes:
    made = blank(SIZE)
    made[HEADER_BYTES:] = np.random.default_rng(seed).integers(0, 256, SIZE)
    seal(name, made)
    return made.tobytes()


def test_what_was_sealed_is_opened_without_a_copy() -> None:
    name = IDENTITY.name(KEY)
    sealed = value(name)
    found = opened(name, sealed, SIZE)
    assert found is not None
    assert found.tobytes() == sealed[HEADER_BYTES:]
    assert not found.flags.owndata


@pytest.mark.parametrize(
    "change",
    [{"pack_sha256": "b" * 64}, {"first_layer": 2}, {"end_layer": 8}, {"kv_dtype": "float16"}],
    ids=lambda change: next(iter(change)),
)
def test_a_name_stands_for_everything_that_pages_depend_on(change: dict[str, object]) -> None:
    other = dataclasses.replace(IDENTITY, **change)  # type: ignore[arg-type]
    assert other.stage != IDENTITY.stage
    assert other.name(KEY) != IDENTITY.name(KEY)


def test_a_name_depends_on_the_key_and_does_not_show_it() -> None:
    assert IDENTITY.name(KEY) == IDENTITY.name(KEY)
    assert len(IDENTITY.name(KEY)) == 64
    assert IDENTITY.name(KEY[::-1]) != IDENTITY.name(KEY)
    assert KEY.hex() not in IDENTITY.name(KEY)


def test_any_damage_is_a_miss() -> None:
    name, rng = IDENTITY.name(KEY), random.Random(1)
    good = value(name)
    bad = [b"", good[:-1], good + b"\0", good[:HEADER_BYTES], b"\0" * len(good), b"TKV2" + good[4:]]
    for _ in range(500):
        at = rng.randrange(len(good))
        bad.append(good[:at] + bytes([good[at] ^ (1 << rng.randrange(8))]) + good[at + 1 :])
    assert all(opened(name, each, SIZE) is None for each in bad)
    assert opened(name, good, SIZE - 64) is None


def test_the_value_of_another_page_is_a_miss() -> None:
    assert opened(IDENTITY.name(KEY), value(IDENTITY.name(KEY[::-1])), SIZE) is None
