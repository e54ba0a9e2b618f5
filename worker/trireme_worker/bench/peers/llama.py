"""One GGUF model in llama.cpp, standing at a context, ready to take the same step again and again.

Uses llama-cpp-python's plain bindings of llama.h: a trial is one `llama_decode`, without the package's own wrapper.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any, Self

import llama_cpp
import numpy as np

from trireme_proto.errors import Internal
from trireme_worker.bench.interleave import Trial
from trireme_worker.pack import ModelConfig


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _silence(_level: int, _text: bytes, _data: ctypes.c_void_p) -> None:
    """llama.cpp tells a lot while it loads."""


class LlamaModel:
    """A model, mapped from its file."""

    def __init__(self, path: Path, config: ModelConfig) -> None:
        llama_cpp.llama_log_set(_silence, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        self.config = config
        self.pointer = _made(llama_cpp.llama_model_load_from_file(str(path).encode(), params), "load the model")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_fault: object) -> None:
        llama_cpp.llama_model_free(self.pointer)


class LlamaStep:
    """`batch` sequences that hold `context - count` tokens each; a step gives each of them `count` more."""

    def __init__(self, model: LlamaModel, *, threads: int, context: int, count: int = 1, batch: int = 1) -> None:
        self._vocabulary, self._held, self._batch = model.config.vocabulary, context - count, batch
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_seq_max = context * batch, batch
        params.n_batch = params.n_ubatch = max(512, count * batch)
        self._context = _made(llama_cpp.llama_init_from_model(model.pointer, params), "make a context")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._tokens = _Tokens(batch, self._held, count, self._vocabulary)
        self._hold()
        llama_cpp.llama_set_n_threads(self._context, threads, threads)

    def trial(self) -> Trial:
        """The step, with the choice of the most likely token; the tokens before it stay."""
        return Trial(self._run, prepare=self._rewind)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_fault: object) -> None:
        self._tokens.close()
        llama_cpp.llama_free(self._context)

    def _hold(self) -> None:
        """The tokens before the step: computed for one sequence, copied to the others."""
        if not self._held:
            return
        every = os.cpu_count() or 1
        llama_cpp.llama_set_n_threads(self._context, every, every)
        with _Tokens(1, 0, self._held, self._vocabulary) as tokens:
            self._decode(tokens)
        for sequence in range(1, self._batch):
            llama_cpp.llama_memory_seq_cp(self._memory, 0, sequence, -1, -1)

    def _rewind(self) -> None:
        for sequence in range(self._batch):
            llama_cpp.llama_memory_seq_rm(self._memory, sequence, self._held, -1)

    def _run(self) -> list[int]:
        self._decode(self._tokens)
        return [self._choose(row) for row in range(-self._batch, 0)]

    def _decode(self, tokens: _Tokens) -> None:
        if code := llama_cpp.llama_decode(self._context, tokens.batch):
            raise Internal(f"llama.cpp refused a step with code {code}")

    def _choose(self, row: int) -> int:
        logits = llama_cpp.llama_get_logits_ith(self._context, row)
        return int(np.ctypeslib.as_array(logits, (self._vocabulary,)).argmax())


class _Tokens:
    """A llama_batch: `count` tokens from a position on for each of some sequences, logits for the last of each."""

    def __init__(self, sequences: int, position: int, count: int, vocabulary: int) -> None:
        self.batch: Any = llama_cpp.llama_batch_init(sequences * count, 0, 1)
        self.batch.n_tokens = sequences * count
        for i in range(sequences * count):
            sequence, offset = divmod(i, count)
            self.batch.token[i] = i * 7919 % vocabulary
            self.batch.pos[i] = position + offset
            self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, sequence
            self.batch.logits[i] = offset == count - 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_fault: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees its memory."""
        llama_cpp.llama_batch_free(self.batch)


def _made(pointer: Any, what: str) -> Any:
    if not pointer:
        raise Internal(f"llama.cpp could not {what}")
    return pointer
