"""The tensors of a checkpoint, checked against its sizes and assembled into layers.

All names, dtypes and shapes are checked before the first byte is converted; nothing is quietly left out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from trireme_kernels.matrix import PackedMatrix
from trireme_kernels.packing import interleave_gate_up
from trireme_proto.errors import CheckpointUnsupported
from trireme_worker.convert.checkpoint import Checkpoint
from trireme_worker.convert.hf_config import Quantisation
from trireme_worker.convert.names import EMBEDDING, HEAD, IGNORED, Accepted, expected_tensors
from trireme_worker.convert.ternary import Ternary, absmean, pack_matrix, row_scales, unpack_quarters
from trireme_worker.pack.config import ModelConfig
from trireme_worker.pack.jsontext import shown
from trireme_worker.pack.weights import Float, LayerWeights


class Layers:
    """Assembles the layers of `checkpoint`, packed in `layout`. CheckpointUnsupported, at once: its tensors are not
    those of `config`.
    """

    def __init__(self, checkpoint: Checkpoint, config: ModelConfig, quantisation: Quantisation, layout: str) -> None:
        self._checkpoint, self._config, self._quantisation = checkpoint, config, quantisation
        self._layout = layout
        self._check()

    def __iter__(self) -> Iterator[LayerWeights]:
        for index in range(self._config.layers):
            yield self._layer(f"model.layers.{index}.")

    def _layer(self, prefix: str) -> LayerWeights:
        config, attention, mlp = self._config, f"{prefix}self_attn.", f"{prefix}mlp."
        parts = [self._ternary(f"{attention}{name}_proj") for name in "qkv"]
        gate, up = self._ternary(f"{mlp}gate_proj"), self._ternary(f"{mlp}up_proj")
        output, down = self._ternary(f"{attention}o_proj"), self._ternary(f"{mlp}down_proj")
        return LayerWeights(
            attention_norm=self._floats(f"{prefix}input_layernorm.weight"),
            qkv=self._packed(np.concatenate([w for w, _ in parts]), np.concatenate([s for _, s in parts])),
            attention_sub_norm=self._floats(f"{attention}attn_sub_norm.weight") if config.sub_norms else None,
            output=self._packed(*output),
            ffn_norm=self._floats(f"{prefix}post_attention_layernorm.weight"),
            gate_up=self._packed(_alternating(gate[0], up[0]), np.stack([gate[1], up[1]], axis=1).reshape(-1)),
            ffn_sub_norm=self._floats(f"{mlp}ffn_sub_norm.weight") if config.sub_norms else None,
            down=self._packed(*down),
        )

    def _packed(self, weights: Ternary, scales: Float) -> PackedMatrix:
        return pack_matrix(weights, scales, self._layout)

    def _ternary(self, name: str) -> tuple[Ternary, Float]:
        """Ternary weights of a projection and its scale for each 16 rows."""
        weight = f"{name}.weight"
        if not self._quantisation.packed:
            weights, scale = absmean(lambda: self._checkpoint.float_chunks(weight))
            return weights, row_scales(len(weights), scale)
        packed = self._checkpoint.raw(weight).reshape(self._checkpoint.tensors[weight].shape)
        try:
            weights = unpack_quarters(packed)
        except ValueError as fault:
            raise CheckpointUnsupported(f"{weight} {fault}") from fault
        return weights, row_scales(len(weights), self._scale(f"{weight}_scale"))

    def _scale(self, name: str) -> np.float32:
        scale = np.float32(self._checkpoint.floats(name).reshape(-1)[0])
        if not scale > 0:
            raise CheckpointUnsupported(f"{name} is not a positive number")
        return np.float32(1.0) / scale if self._quantisation.scale_divides else scale

    def _floats(self, name: str) -> Float:
        return self._checkpoint.floats(name)

    def _check(self) -> None:
        expected = expected_tensors(self._config, packed=self._quantisation.packed)
        for name, accepted in expected.items():
            self._check_tensor(name, accepted)
        for name in self._checkpoint.tensors:
            if name not in expected and not name.endswith(IGNORED) and not self._is_tied_copy(name):
                raise CheckpointUnsupported(f"the tensor {shown(name)} is none that this architecture has")

    def _check_tensor(self, name: str, accepted: Accepted) -> None:
        tensor = self._checkpoint.tensors.get(name)
        if tensor is None:
            raise CheckpointUnsupported(f"the tensor {name} is missing")
        if tensor.dtype not in accepted.dtypes:
            mode = "offline" if self._quantisation.packed else "online"
            hint = f", as quantization_mode {mode} asks for" if name.endswith("_proj.weight") else ""
            raise CheckpointUnsupported(f"{name} is of dtype {tensor.dtype}, not {' or '.join(accepted.dtypes)}{hint}")
        if tensor.shape not in accepted.shapes:
            sizes = f"{list(tensor.shape)}, its config says {list(accepted.shapes[0])}"
            raise CheckpointUnsupported(f"{name} is of shape {sizes}")

    def _is_tied_copy(self, name: str) -> bool:
        """Some tools save the head although it is the embedding; it must then be the same, bit by bit."""
        if name != HEAD or self._checkpoint.tensors[HEAD].dtype != self._checkpoint.tensors[EMBEDDING].dtype:
            return False
        return bool(np.array_equal(self._checkpoint.raw(HEAD), self._checkpoint.raw(EMBEDDING)))


def _alternating(gate: Ternary, up: Ternary) -> Ternary:
    merged: NDArray[np.int8] = interleave_gate_up(gate, up).astype(np.int8, copy=False)
    return merged
