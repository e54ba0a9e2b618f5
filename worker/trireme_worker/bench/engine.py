"""A model that stands at a context, ready to take the same step again and again: the bare kernel loop.

The one file here that knows how a step is computed. No scheduler, no sampling parameters, no network: what a worker
adds to that shows when its tokens/s are put beside these.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

import trireme_kernels as kernels
from trireme_kernels.arrays import F32, U8, U16
from trireme_worker.bench import memory
from trireme_worker.bench.traffic import StepBytes, layer_bytes
from trireme_worker.head import OutputHead
from trireme_worker.pack import LayerWeights, ModelConfig
from trireme_worker.pack.reader import Head
from trireme_worker.team import Team

KV_DTYPE = "float32"
"""As the server keeps keys and values by default."""
HEAD = "int8+4bit"
"""As a pack keeps its head by default."""
_STORED = {"float32": np.float32, "float16": np.float16, "int8": np.int8}
_SMALL = 2.0**-9


class Made(Protocol):
    """What is to be told of weights beside their figures."""

    config: ModelConfig
    layout: str
    head_kind: str


class Weights(Made, Protocol):
    """What a stage takes out of a pack; `Pack` and `RandomPack` are both of that kind."""

    def layer(self, index: int) -> LayerWeights:
        """Weights of a layer."""

    def embedding(self) -> U16:
        """The embedding table, bfloat16 bits."""

    def head(self) -> Head:
        """The head, of kind `head_kind`."""

    def final_norm(self) -> F32:
        """Gain of the norm before the head."""


class Engine:
    """The first `layers` layers of a model and its head, on `threads` threads.

    `batch` sequences hold `context - count` tokens each, and a step gives each of them `count` more: decoding with
    count 1, prefill with count = context. The same step may be taken any number of times.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        layers: int,
        threads: int,
        context: int,
        count: int = 1,
        batch: int = 1,
        kv: str = KV_DTYPE,
    ) -> None:
        self.config = config = weights.config
        self._weights, self._context, self._count, self._batch = weights, context, count, batch
        each = -(-context // kernels.PAGE_TOKENS)
        self._format = kernels.KvFormat(config.kv_heads, config.head_dim, kv)
        memory.require(f"a cache of {batch * context} positions", layers * batch * context * self._format.token_bytes)
        self._pages = [_filled(self._format, batch * each) for _ in range(layers)]
        self._table = np.arange(batch * each, dtype=np.int32).reshape(batch, each)
        self._slots = np.repeat(np.arange(batch, dtype=np.int32), count)
        self._positions = np.tile(np.arange(context - count, context, dtype=np.int32), batch)
        self._tokens = (np.arange(batch * count) * 7919 % config.vocabulary).astype(np.int32)
        self._hidden = np.zeros((batch * count, config.hidden_size), np.float32)
        cos, sin = kernels.rope_tables(context, config.head_dim, config.rope_theta)
        bound = [weights.layer(i) for i in range(layers)]
        pages = (self._format, self._pages)
        self._program = kernels.LayerProgram(_shape(config), bound, cos, sin, *pages, threads=threads)
        self._team = Team(threads)
        self._head = OutputHead(weights.head(), weights.final_norm(), config.norm_eps, self._team)
        self._embedding = weights.embedding()

    def run_layers(self) -> None:
        """Embeds the step's tokens and applies the layers."""
        kernels.embed(self._embedding, self._tokens, self._hidden)
        self._program.run(self._hidden, self._table, self._slots, self._positions)

    def run_head(self) -> list[int]:
        """The most likely token to follow each sequence's last, greedily as a stage does it; after `run_layers`."""
        return [int(logits.argmax()) for logits in self._logits()]

    def run_step(self) -> None:
        """Layers and head."""
        self.run_layers()
        self.run_head()

    def step_bytes(self) -> StepBytes:
        """What a step reads; after a step, which decides how many rows of the head a first pass leaves."""
        return StepBytes(
            layer=layer_bytes(self._weights.layer(0), self.config),
            kv=self._batch * self._context * self._format.token_bytes,
            head=self._head.read_bytes(self._logits()),
            rows=self._tokens.size * self.config.hidden_size * self._embedding.itemsize,
        )

    def _logits(self) -> list[F32]:
        last = np.ascontiguousarray(self._hidden[self._count - 1 :: self._count])
        return self._head.largest(last, [1] * self._batch)

    def close(self) -> None:
        """Ends the threads."""
        self._program.close()
        self._team.close()


def _shape(config: ModelConfig) -> kernels.LayerShape:
    return kernels.LayerShape(
        hidden_size=config.hidden_size,
        ffn_size=config.ffn_size,
        heads=config.heads,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        norm_eps=config.norm_eps,
        activation=config.activation,
    )


def _filled(form: kernels.KvFormat, pages: int) -> U8:
    """Keys and values of a layer. Written, because pages that never were are all one page to the machine."""
    found, stored = form.empty(pages), np.dtype(_STORED[form.dtype])
    scales = 2 * kernels.PAGE_TOKENS * form.width * stored.itemsize  # where they begin, if there are any
    numbers = found[..., :scales].view(stored)
    drawn = np.random.default_rng(0).integers(1, 100, numbers.shape[1:])
    numbers[:] = drawn if stored == np.int8 else drawn * _SMALL
    found[..., scales:].view(np.float32)[:] = _SMALL
    return found
