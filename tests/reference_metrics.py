"""How far one model's logits are from another's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Agreement:
    """Over all positions; logarithms are natural."""

    kl: float
    """Mean Kullback-Leibler divergence, expected || found."""
    argmax: float
    """Share of positions with the same most probable token."""
    perplexity: float
    """Perplexity found / expected - 1, on the given next tokens; 0 where none were given."""


def agreement(expected: NDArray, found: NDArray, following: NDArray | None = None) -> Agreement:
    """Of logits [T, vocabulary]; `following`: the token that really follows each position."""
    p, q = log_softmax(expected), log_softmax(found)
    kl = float((np.exp(p) * (p - q)).sum(-1).mean())
    argmax = float((expected.argmax(-1) == found.argmax(-1)).mean())
    if following is None:
        return Agreement(kl, argmax, 0.0)
    rows = np.arange(len(following))
    return Agreement(kl, argmax, float(np.exp(p[rows, following].mean() - q[rows, following].mean()) - 1))


def log_softmax(logits: NDArray) -> NDArray[np.float64]:
    """Over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
