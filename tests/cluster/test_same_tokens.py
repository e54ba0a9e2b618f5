"""One answer: the same token ids for any number of stages, threads and batch mates, and any prefill chunk."""

from __future__ import annotations

import asyncio
import itertools

import numpy as np
import pytest
from tests.cluster.conftest import Serve

from trireme import AsyncClient
from trireme_kernels import sample
from trireme_worker.batch import Batch, Row
from trireme_worker.pack import Pack, default_pack
from trireme_worker.stage import StageModel

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
TOKENS = 24
PROMPTS = [
    [0, *np.random.default_rng(i).integers(2, 4096, length).tolist()]
    for i, length in enumerate((1, 5, 16, 33, 40, 64, 90, 130))
]
HOW = [
    {"temperature": 0.0},
    {"temperature": 0.7, "top_p": 0.9, "seed": 11},
    {"temperature": 1.2, "top_k": 40, "seed": 2**64 - 1},
]


def by_hand(prompt: list[int], *, temperature: float, top_k: int = 0, top_p: float = 1.0, seed: int = 0) -> list[int]:
    """The answer without a server, a scheduler or a pipeline: one token after the other through the whole model."""
    model = StageModel(Pack.open(default_pack()), range(6), kv_tokens=512, slots=1)
    tokens, fed = list(prompt), 0
    while len(tokens) < len(prompt) + TOKENS:
        row = Row(0, fed, len(tokens) - fed)
        model.reserve(Batch((row,)))
        hidden = model.forward(Batch((row,)), model.embed(np.array(tokens[fed:], np.int32)))
        fed = len(tokens)
        tokens.append(sample(model.head(hidden[-1:])[0], temperature, top_k, top_p, seed, fed))
    return tokens[len(prompt) :]


@pytest.fixture(scope="module")
def expected() -> list[list[int]]:
    return [by_hand(prompt, **HOW[i % len(HOW)]) for i, prompt in enumerate(PROMPTS)]  # type: ignore[arg-type]


async def answers(client: AsyncClient, requests: list[int]) -> list[list[int]]:
    """The answers to several requests at once."""

    async def one(i: int) -> list[int]:
        how = {"top_k": 0, "top_p": 1.0} | HOW[i % len(HOW)]
        stream = client.generate(PROMPTS[i], max_tokens=TOKENS, ignore_eos=True, **how)
        return list((await stream.result()).token_ids)

    return await asyncio.gather(*(one(i) for i in requests))


@pytest.mark.parametrize(("stages", "threads"), list(itertools.product((1, 2, 3), (1, 2))))
async def test_same_tokens(serve: Serve, expected: list[list[int]], stages: int, threads: int) -> None:
    for chunk in (1, 7, 256):
        async with serve(stages=stages, threads=threads, prefill_chunk=chunk) as (server, client):
            assert {stage.node.address for stage in server.placed} == {f"127.0.0.{21 + i}" for i in range(stages)}
            alone = [(await answers(client, [i]))[0] for i in (1, 5)]
            assert alone == [expected[1], expected[5]], f"alone, chunk {chunk}"
            assert await answers(client, list(range(8))) == expected, f"among 8, chunk {chunk}"
