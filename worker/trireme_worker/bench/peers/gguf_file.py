"""Random ternary models of the Llama architecture as GGUF files, written tensor by tensor.

Weights are drawn as bytes of llama.cpp's formats: TQ1_0 (54 bytes for 256 weights) and TQ2_0 (66 bytes), tables as Q6_K
(210 bytes), which is what llama.cpp's own quantiser gives the head of a ternary model. Each format's block and the
order of its parts: `ggml/src/ggml-common.h` of llama.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import gguf
import numpy as np

from trireme_kernels.arrays import U8
from trireme_proto.errors import ConfigurationError
from trireme_worker.bench.interleave import Report, silent
from trireme_worker.pack import ModelConfig
from trireme_worker.synth.weights import FIELDS_2BIT

Format = Literal["TQ1_0", "TQ2_0"]
FORMATS: tuple[Format, ...] = ("TQ1_0", "TQ2_0")
BLOCK = 256
"""Weights of a block; every row is a whole number of blocks."""
_Rng = np.random.Generator
_TRITS_5 = ((np.arange(243) * 256 + 242) // 243).astype(np.uint8)
_TRITS_4 = _TRITS_5[::3]
"""Bytes of TQ1_0 that stand for five trits, and for four."""


def check_widths(config: ModelConfig) -> None:
    """ConfigurationError where llama.cpp's ternary formats cannot hold a model of these sizes."""
    for size in (config.hidden_size, config.ffn_size, config.query_size):
        if size % BLOCK:
            raise ConfigurationError(
                f"{config.name} has matrices {size} wide; llama.cpp's ternary formats need multiples of {BLOCK}"
            )


def write_model(path: Path, config: ModelConfig, kind: Format, *, seed: int = 0, report: Report = silent) -> None:
    """A model of these sizes with random weights; memory of one tensor at a time."""
    check_widths(config)
    writer = gguf.GGUFWriter(path, "llama")
    _describe(writer, config, kind)
    tensors = list(_tensors(config, kind))
    for tensor in tensors:
        kind_number = gguf.GGMLQuantizationType[tensor.kind]
        shape = gguf.quant_shape_to_byte_shape(tensor.shape, kind_number)
        dtype = np.dtype(np.float32 if tensor.kind == "F32" else np.uint8)
        shape = tensor.shape if tensor.kind == "F32" else shape
        writer.add_tensor_info(tensor.name, shape, dtype, math.prod(shape) * dtype.itemsize, kind_number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    rng = np.random.default_rng(seed)
    for i, tensor in enumerate(tensors):
        report(i, len(tensors), f"writing {config.name} as {kind}")
        writer.write_tensor_data(tensor.draw(rng))
    writer.close()


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    kind: str
    shape: tuple[int, ...]

    def draw(self, rng: _Rng) -> U8:
        """The tensor's bytes, one row of the array for each row."""
        if self.kind == "F32":
            return np.ones(self.shape, np.float32).view(np.uint8)
        blocks = math.prod(self.shape) // BLOCK
        return _BLOCKS[self.kind](rng, blocks, self.shape[-1]).reshape(self.shape[0], -1)


def _describe(writer: gguf.GGUFWriter, config: ModelConfig, kind: Format) -> None:
    writer.add_name(config.name)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind}"])
    writer.add_vocab_size(config.vocabulary)
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.ffn_size)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_tokenizer_model("no_vocab")


def _tensors(config: ModelConfig, kind: Format) -> Iterator[_Tensor]:
    """All tensors; embedding and head are two also where the shape has one, so that the head can be Q6_K."""
    hidden, ffn, query, kv = config.hidden_size, config.ffn_size, config.query_size, config.kv_size
    yield _Tensor("token_embd.weight", "Q6_K", (config.vocabulary, hidden))
    yield _Tensor("output_norm.weight", "F32", (hidden,))
    yield _Tensor("output.weight", "Q6_K", (config.vocabulary, hidden))
    for i in range(config.layers):
        for name in ("attn_norm", "ffn_norm"):
            yield _Tensor(f"blk.{i}.{name}.weight", "F32", (hidden,))
        matrices = {
            "attn_q": (query, hidden),
            "attn_k": (kv, hidden),
            "attn_v": (kv, hidden),
            "attn_output": (hidden, query),
            "ffn_gate": (ffn, hidden),
            "ffn_up": (ffn, hidden),
            "ffn_down": (hidden, ffn),
        }
        for name, shape in matrices.items():
            yield _Tensor(f"blk.{i}.{name}.weight", kind, shape)


def _tq1(rng: _Rng, blocks: int, cols: int) -> U8:
    out = np.empty((blocks, 54), np.uint8)
    np.take(_TRITS_5, rng.integers(0, _TRITS_5.size, (blocks, 48), np.uint8), out=out[:, :48])
    np.take(_TRITS_4, rng.integers(0, _TRITS_4.size, (blocks, 4), np.uint8), out=out[:, 48:52])
    out[:, 52:] = _half(1 / math.sqrt(cols))
    return out


def _tq2(rng: _Rng, blocks: int, cols: int) -> U8:
    out = np.empty((blocks, 66), np.uint8)
    np.take(FIELDS_2BIT, rng.integers(0, FIELDS_2BIT.size, (blocks, 64), np.uint8), out=out[:, :64])
    out[:, 64:] = _half(1 / math.sqrt(cols))
    return out


def _q6(rng: _Rng, blocks: int, _cols: int) -> U8:
    """Low and high bits of the weights at random, 16 scales of 1 to 31, and one scale that keeps all of them small."""
    out = rng.integers(0, 256, (blocks, 210), np.uint8)
    out[:, 192:208] = out[:, 192:208] % 31 + 1
    out[:, 208:] = _half(1e-4)
    return out


def _half(value: float) -> U8:
    return np.array([value], np.float16).view(np.uint8)


_BLOCKS: dict[str, Callable[[_Rng, int, int], U8]] = {"TQ1_0": _tq1, "TQ2_0": _tq2, "Q6_K": _q6}
