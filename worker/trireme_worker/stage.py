"""The computing part of a stage: a contiguous range of layers, with embedding on the first and head on the last.

Owns weights, KV cache and threads; decides nothing and knows nothing of frames, epochs or the network.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import count

import numpy as np
from numpy.typing import NDArray

import trireme_kernels as kernels
from trireme_kernels.threads.cpus import memory_nodes, thread_cpus
from trireme_proto.errors import PackCorrupt
from trireme_worker.batch import Batch, Row, Sampled
from trireme_worker.head import OutputHead
from trireme_worker.kv_cache import KVCache, pages_for
from trireme_worker.pack import LayerWeights, Pack, ProgressCallback
from trireme_worker.pack.files import ignore_progress
from trireme_worker.step_times import StepTimes
from trireme_worker.team import Team

Float = NDArray[np.float32]
ROWS_OF_LOGITS = 64
"""Rows whose logits are there at a time: 66 MB with a vocabulary of 128,256 and a first pass. More rows would read the
head less often, but are bound by arithmetic long before.
"""


class StageModel:
    """Layers `layers` of `pack`, with room for `kv_tokens` tokens in up to `slots` sequences, computed on `threads`
    threads. `layout`: lay the ternary weights out anew in memory, as "2bit" or "1.6bit", where the pack has the other
    (`report` hears of each layer); by default they stay mapped as they are packed. `kv_dtype`: keep keys and values in
    "float32" as they are computed, in "float16", or in "int8".

    Raises PackCorrupt for weights that cannot be laid out anew. Activations between stages are float32 [tokens,
    hidden_size].
    """

    _chunks = 0
    """Of rows that the head was computed for, ever."""

    def __init__(
        self,
        pack: Pack,
        layers: range,
        *,
        threads: int = 1,
        kv_tokens: int = 4096,
        slots: int = 16,
        layout: str | None = None,
        kv_dtype: str = "float32",
        report: ProgressCallback = ignore_progress,
    ) -> None:
        config = pack.config
        self.times = StepTimes()
        """What `forward` and `sample` spent on what; whoever calls them may put a new one here before."""
        self.config, self.layers, self.threads = config, layers, threads
        self.first, self.last = layers.start == 0, layers.stop == config.layers
        self._team = Team(threads)
        near = thread_cpus(threads) if memory_nodes() > 1 else []
        laid_out = _laid_out([pack.layer(i) for i in layers], layout, self._team, report)
        weights = [laid_out.pop(0).local(near) for _ in layers]  # never a second copy of more than one layer
        self._embedding = pack.embedding() if self.first else None
        self._head = OutputHead(pack.head(), pack.final_norm(), config.norm_eps, self._team) if self.last else None
        self.kv = KVCache(
            layers=len(layers),
            pages=pages_for(kv_tokens),
            kv_heads=config.kv_heads,
            head_dim=config.head_dim,
            slots=slots,
            context=config.context,
            dtype=kv_dtype,
        )
        cos, sin = kernels.rope_tables(config.context, config.head_dim, config.rope_theta)
        shape = kernels.LayerShape(
            hidden_size=config.hidden_size,
            ffn_size=config.ffn_size,
            heads=config.heads,
            kv_heads=config.kv_heads,
            head_dim=config.head_dim,
            norm_eps=config.norm_eps,
            activation=config.activation,
        )
        self._program = kernels.LayerProgram(shape, weights, cos, sin, self.kv.format, self.kv.memory, threads=threads)

    def embed(self, token_ids: NDArray[np.int32]) -> Float:
        """First stage: embedding rows of the tokens, float32 [T, hidden_size]."""
        if self._embedding is None:
            raise ValueError("only the first stage embeds tokens")
        hidden = np.empty((len(token_ids), self.config.hidden_size), np.float32)
        kernels.embed(self._embedding, token_ids, hidden)
        return hidden

    def reserve(self, batch: Batch) -> None:
        """Makes room in the KV cache for the batch's tokens; before `forward`. FrameRefused where there is none, or
        where a row does not continue what its slot holds.
        """
        for row in batch.rows:
            self.kv.extend(row.slot, row.position, row.count, row.uncertain)

    def forward(self, batch: Batch, hidden: Float) -> Float:
        """Applies the layers to `hidden` in place and returns it; keys and values go where `reserve` made room."""
        began = time.perf_counter_ns()
        self._program.run(hidden, self.kv.table, batch.slots(), batch.positions())
        self.times.layers(time.perf_counter_ns() - began, self._program.attention_share)
        return hidden

    @property
    def pulse(self) -> int:
        """Changes while `forward` and `sample` get on; to be looked at from another thread."""
        return self._program.pulse + self._chunks

    def head(self, hidden: Float) -> Float:
        """Last stage: logits of each row of `hidden`, float32 [T, vocabulary]."""
        return self._output().logits(hidden)

    def sample(self, batch: Batch, hidden: Float) -> list[Sampled]:
        """Last stage: the next token of each row that asks for one, and those after its drafts. `hidden` as `forward`
        returned it.
        """
        wanted = batch.sampled()
        if not wanted:
            return []
        return [each for at in range(0, len(wanted), ROWS_OF_LOGITS) for each in self._chosen(wanted, at, hidden)]

    def logits(self, token_ids: Sequence[int]) -> Float:
        """Whole model only: logits at each position of one sequence, float32 [T, vocabulary]. Leaves no pages
        behind.
        """
        batch = Batch((Row(0, 0, len(token_ids)),))
        self.reserve(batch)
        try:
            return self.head(self.forward(batch, self.embed(np.array(token_ids, np.int32))))
        finally:
            self.kv.release(0)

    def close(self) -> None:
        """Ends the threads."""
        self._team.close()
        self._program.close()

    def _chosen(self, wanted: Sequence[tuple[int, Row, int]], at: int, hidden: Float) -> list[Sampled]:
        ends, rows, positions = zip(*wanted[at : at + ROWS_OF_LOGITS], strict=True)
        began = time.perf_counter_ns()
        logits = self._output().largest(hidden[list(ends)], [_logits_that_count(row) for row in rows])
        self._chunks += 1
        computed = time.perf_counter_ns()
        chosen = [_choose(*each) for each in zip(rows, positions, logits, strict=True)]
        self.times.head_ns += computed - began
        self.times.sample_ns += time.perf_counter_ns() - computed
        return chosen

    def _output(self) -> OutputHead:
        if self._head is None:
            raise ValueError("only the last stage has the head")
        return self._head


def _laid_out(
    weights: list[LayerWeights], layout: str | None, team: Team, report: ProgressCallback
) -> list[LayerWeights]:
    """The layers in a layout; each thread of the team takes some of them."""
    todo = [i for i, layer in enumerate(weights) if layout not in (None, layer.qkv.layout)]
    found, done = list(weights), count(1)

    def share(begin: int, end: int) -> None:
        for i in todo[begin:end]:
            found[i] = weights[i].relaid(layout)
            report(next(done), len(todo))

    try:
        team.run(len(todo), share)
    except kernels.KernelInputError as fault:
        raise PackCorrupt("a layer holds bytes that stand for no ternary weights") from fault
    return found


def _logits_that_count(row: Row) -> int:
    """How many of the largest logits decide a row's token; 0: all."""
    how = row.sampling
    if how is None:
        return 0
    return 1 if how.temperature == 0 else how.top_k


def _choose(row: Row, position: int, logits: Float) -> Sampled:
    how = row.sampling
    if how is None:
        raise ValueError("the row does not ask for a token")
    token = kernels.sample(logits, how.temperature, how.top_k, how.top_p, how.seed, position)
    return Sampled(row.slot, position, token)
