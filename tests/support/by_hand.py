"""An answer computed the slow way, from the logits of the whole sequence for each token: no cache, batch or stage."""

from __future__ import annotations

from collections.abc import Sequence

import trireme_kernels as kernels
from trireme_coordinator.scheduler import SamplingParams
from trireme_worker.pack import Pack
from trireme_worker.stage import StageModel


def answer_by_hand(
    pack: Pack, prompt: Sequence[int], max_tokens: int, how: SamplingParams, kv_dtype: str = "float32"
) -> list[int]:
    """The `max_tokens` tokens that follow a prompt."""
    model = StageModel(pack, range(pack.config.layers), kv_dtype=kv_dtype)
    tokens = list(prompt)
    try:
        for position in range(len(prompt), len(prompt) + max_tokens):
            logits = model.logits(tokens)[-1]
            tokens.append(kernels.sample(logits, how.temperature, how.top_k, how.top_p, how.seed, position))
    finally:
        model.close()
    return tokens[len(prompt) :]
