"""Cases of the embedding and of every output head."""

import itertools
from collections.abc import Iterator

import numpy as np

from trireme_kernels.cases.common import Case, Cases, Random, bfloats, blank, floats
from trireme_kernels.head_first_pass import first_pass, threshold
from trireme_kernels.head_int8 import quantise_for_head
from trireme_kernels.head_weights import HEAD_KINDS, quantise_head


def lookup(rng: Random) -> Cases:
    """The first and the last row, repeated ids, no ids."""
    for ids in ([0, 9, 9, 4], [], [7]):
        yield {"table": bfloats(rng, 10, 33), "ids": np.array(ids, np.int32), "out": blank(len(ids), 33)}


def logits(rng: Random) -> Cases:
    """Vocabularies and widths off the unit, part of the rows, no tokens."""
    shapes: tuple[tuple[int, int, int, Case], ...] = (
        (1, 64, 32, {}),
        (3, 45, 21, {}),
        (2, 100, 16, {"begin": 1, "end": 3}),
        (2, 70, 5, {"begin": 2}),
        (0, 32, 16, {}),
    )
    for tokens, vocabulary, width, part in shapes:
        table = bfloats(rng, vocabulary, width)
        yield {"x": floats(rng, tokens, width), "table": table, "out": blank(tokens, vocabulary), **part}


def heads(rng: Random) -> Cases:
    """Both kinds; vocabularies and widths off the unit; a row of zeros, tiny and large rows."""
    for kind, (vocabulary, width) in itertools.product(HEAD_KINDS, ((1, 1), (40, 70), (33, 128))):
        table = bfloats(rng, vocabulary, width)
        table[-1] = 0
        table[0, 0] = 0x7F00  # 1.7e38
        table[vocabulary // 2, :] = 0x0001
        yield {"table": table, "kind": kind, "seed": vocabulary}


def head_rows(rng: Random) -> Cases:
    """Rows as for the quantiser: ordinary, zero, faulty."""
    for vocabulary, width in ((3, 70), (5, 64)):
        head = quantise_head(bfloats(rng, vocabulary, width))
        x = floats(rng, 4, width)
        x[1], x[2, 5] = 0, np.nan
        yield {"x": x, "head": head}


def _head_cases(rng: Random) -> Iterator[Case]:
    shapes = ((1, 64, 128), (3, 45, 21), (6, 100, 64), (0, 40, 16), (2, 1, 3), (1, 1000, 256), (9, 33, 40))
    for tokens, vocabulary, width in shapes:
        head = quantise_head(bfloats(rng, vocabulary, width), "int8+4bit", seed=tokens)
        x = floats(rng, tokens, width)
        x[1:2, 0] = 30.0  # one large activation, as models have
        x[2:, -1] = np.inf
        yield {"x": quantise_for_head(x, head), "head": head}


def int8_logits(rng: Random) -> Cases:
    """All rows, part of them."""
    for case in _head_cases(rng):
        part = {"begin": 1, "end": case["head"].tiles} if case["head"].vocabulary > 99 else {}
        yield {**case, "out": blank(len(case["x"].scale), case["head"].vocabulary), **part}


def first_passes(rng: Random) -> Cases:
    """The same."""
    for case in int8_logits(rng):
        tokens, tiles = len(case.pop("out")), case["head"].tiles
        yield {**case, "sums": np.full((tokens, 32 * tiles), 99, np.int32), "tops": blank(tokens, tiles)}


def thresholds(rng: Random) -> Cases:
    """One, some, all and more than there are; ties."""
    for keep, (tokens, tiles) in itertools.product((1, 3, 7, 8), ((2, 7), (1, 9), (0, 8))):
        yield {"tops": np.round(floats(rng, tokens, tiles) * 3), "keep": keep}


def rescores(rng: Random) -> Cases:
    """After a first pass; one threshold keeps everything, one nothing."""
    for case in int8_logits(rng):
        tokens, tiles = len(case["out"]), case["head"].tiles
        sums, tops = np.zeros((tokens, 32 * tiles), np.int32), blank(tokens, tiles)
        first_pass(case["x"], case["head"], sums, tops)
        for least in (threshold(tops, 1), threshold(tops, 9), np.full(tokens, np.inf, np.float32)):
            yield {**case, "sums": sums, "least": least}


def largest(rng: Random) -> Cases:
    """One, some, more than there are tiles."""
    for case, keep in itertools.product(_head_cases(rng), (1, 3, 50)):
        yield {**case, "keep": keep, "out": blank(len(case["x"].scale), case["head"].vocabulary)}
