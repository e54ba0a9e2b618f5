"""The requests that clients send, and their right answers: computed without server, scheduler, cache reuse or pipeline.

Requests come in chains: each turn continues the session of the one before. A request's name says which it is; its
answer is the same whoever asks, whenever, however often.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trireme_kernels import sample
from trireme_worker.batch import Batch, Row
from trireme_worker.pack import Pack, default_pack
from trireme_worker.stage import StageModel

_ANSWERS = (6, 24, 60, 110, 170)
_PROMPTS = (1, 7, 30, 60)


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of a chain."""

    name: str
    prompt: tuple[int, ...]
    tokens: int
    how: dict[str, Any]
    """Sampling, as the client library's keywords."""


Chain = tuple[Turn, ...]


def make_chains(seed: int, count: int = 14) -> tuple[Chain, ...]:
    """A third has three short turns on one session, the others one turn of any length; every other one is greedy."""
    draw = random.Random(f"requests/{seed}")
    return tuple(_chain(draw, n) for n in range(count))


def _chain(draw: random.Random, number: int) -> Chain:
    turns = 3 if number % 3 == 0 else 1
    how = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 0}
    if number % 2:
        how = {"temperature": 0.8, "top_k": draw.choice((0, 40)), "top_p": 0.95, "seed": draw.randrange(1 << 64)}
    return tuple(_turn(draw, f"{number}.{turn}", how, short=turns > 1, first=turn == 0) for turn in range(turns))


def _turn(draw: random.Random, name: str, how: dict[str, Any], *, short: bool, first: bool) -> Turn:
    length = draw.choice(_PROMPTS[:3] if short else _PROMPTS)
    prompt = (*((0,) if first else ()), *(draw.randrange(2, 4096) for _ in range(length)))
    return Turn(name, prompt, draw.choice(_ANSWERS[1:2] if short else _ANSWERS), how)


def right_answers(chains: Sequence[Chain]) -> dict[str, tuple[int, ...]]:
    """All tokens of each request, by its name. Takes some seconds."""
    pack = Pack.open(default_pack())
    answers: dict[str, tuple[int, ...]] = {}
    for chain in chains:
        model = StageModel(pack, range(pack.config.layers), kv_tokens=pack.config.context, slots=1)
        said = _Said(model)
        try:
            answers |= {turn.name: said.answer(turn) for turn in chain}
        finally:
            model.close()
    return answers


class _Said:
    """A conversation, one token after the other through the whole model."""

    def __init__(self, model: StageModel) -> None:
        self._model, self._tokens, self._fed = model, list[int](), 0

    def answer(self, turn: Turn) -> tuple[int, ...]:
        self._tokens += turn.prompt
        for _ in range(turn.tokens):
            row = Row(0, self._fed, len(self._tokens) - self._fed)
            self._model.reserve(Batch((row,)))
            ids = np.array(self._tokens[self._fed :], np.int32)
            hidden = self._model.forward(Batch((row,)), self._model.embed(ids))
            self._fed = len(self._tokens)
            how = turn.how
            logits = self._model.head(hidden[-1:])[0]
            self._tokens.append(sample(logits, how["temperature"], how["top_k"], how["top_p"], how["seed"], self._fed))
        return tuple(self._tokens[-turn.tokens :])
