"""The output head: from the activations that the last layer leaves to logits, whatever the head is stored as.

Owns which rows go through the 4-bit first pass: those whose token depends on a few of the largest logits alone. It
changes no token, only the bytes that are read. Knows nothing of sampling, slots or frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

import trireme_kernels as kernels
from trireme_kernels.head_first_pass import LOWEST
from trireme_worker.pack.reader import Head
from trireme_worker.team import Team

Float = NDArray[np.float32]
_TILES_A_CHOICE = 8
"""The first pass is for rows that want one logit for each 8 tiles of the vocabulary at most: with more, it would leave
out little.
"""


class OutputHead:
    """A final norm and a head, computed on a team's threads."""

    def __init__(self, weights: Head, gain: Float, norm_eps: float, team: Team) -> None:
        self.weights, self._gain, self._eps, self._team = weights, gain, norm_eps, team
        self.vocabulary = len(weights) if isinstance(weights, np.ndarray) else weights.vocabulary
        self._tiles = -(-self.vocabulary // kernels.HEAD_ROWS)

    def logits(self, hidden: Float) -> Float:
        """All logits of each row of hidden, float32 [T, hidden_size]: float32 [T, vocabulary]."""
        return self._all(self._normed(hidden))

    def largest(self, hidden: Float, keep: Sequence[int]) -> list[Float]:
        """The logits of each row, float32 [vocabulary], of which row i needs the `keep[i]` largest: others may be
        `LOWEST` (those that tie with the last of them are not). 0: all logits.
        """
        worth = [self._is_worth_it(count) for count in keep]
        some = [i for i, yes in enumerate(worth) if yes]
        rest = [i for i, yes in enumerate(worth) if not yes]
        normed = self._normed(hidden)
        found: dict[int, Float] = {}
        if some:
            found |= zip(some, self._some(normed[some], [keep[i] for i in some]), strict=True)
        if rest:
            found |= zip(rest, self._all(normed[rest]), strict=True)
        return [found[i] for i in range(len(keep))]

    def read_bytes(self, logits: Sequence[Float]) -> int:
        """Bytes of the head that are read to find these logits, all rows found in one step: each array once."""
        weights = self.weights
        if isinstance(weights, np.ndarray):
            return weights.nbytes + self._gain.nbytes
        rows, small = weights.levels.nbytes, weights.scales.nbytes + weights.totals.nbytes
        if weights.codes is None or weights.dither is None:
            return rows + small + self._gain.nbytes
        rescored = int((np.stack(logits) > LOWEST).any(axis=0).sum())
        return weights.codes.nbytes + weights.dither.nbytes + rescored * weights.width + small + self._gain.nbytes

    def _is_worth_it(self, keep: int) -> bool:
        has_codes = isinstance(self.weights, kernels.HeadWeights) and self.weights.codes is not None
        return has_codes and 0 < keep <= max(1, self._tiles // _TILES_A_CHOICE)

    def _normed(self, hidden: Float) -> Float:
        normed = np.empty_like(hidden)
        kernels.rms_norm(hidden, self._gain, self._eps, normed)
        return normed

    def _all(self, normed: Float) -> Float:
        weights, out = self.weights, np.empty((len(normed), self.vocabulary), np.float32)
        if isinstance(weights, kernels.HeadWeights):
            x = kernels.quantise_for_head(normed, weights)
            self._team.run(self._tiles, lambda begin, end: kernels.int8_head_logits(x, weights, out, begin, end))
        else:
            self._team.run(self._tiles, lambda begin, end: kernels.head_logits(normed, weights, out, begin, end))
        return out

    def _some(self, normed: Float, keep: Sequence[int]) -> Float:
        """The three steps of `trireme_kernels.head_first_pass`: the threads meet between them."""
        weights, tokens = self.weights, len(normed)
        if not isinstance(weights, kernels.HeadWeights):
            raise TypeError("the first pass is for heads with codes")
        x, tiles = kernels.quantise_for_head(normed, weights), self._tiles
        sums, tops = np.empty((tokens, 32 * tiles), np.int32), np.empty((tokens, tiles), np.float32)
        self._team.run(tiles, lambda begin, end: kernels.first_pass(x, weights, sums, tops, begin, end))
        least = np.concatenate([kernels.threshold(tops[i : i + 1], count) for i, count in enumerate(keep)])
        out = np.empty((tokens, self.vocabulary), np.float32)
        self._team.run(tiles, lambda begin, end: kernels.rescore(x, weights, sums, least, out, begin, end))
        return out
