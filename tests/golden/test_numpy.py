"""Our engine against the NumPy reference, for every kind of checkpoint: module by module, layer by layer, end to end.

Modules and layers get the reference's own inputs, because one activation level that flips at a rounding border is
amplified by what follows. A pack's tables are bfloat16, so kinds with wider tables differ in the embedding: it is
injected, too.
"""

import numpy as np
import pytest
from tests.golden import models
from tests.reference import Reference
from tests.reference_checkpoints import KINDS, random_checkpoint
from tests.reference_metrics import agreement

import trireme_kernels as kernels
from trireme_worker.batch import Batch, Row
from trireme_worker.convert import convert
from trireme_worker.kv_cache import KVCache
from trireme_worker.pack import Pack
from trireme_worker.stage import StageModel

TOKENS = models.small_windows()[0].tolist()


@pytest.fixture(scope="module", params=sorted(KINDS))
def pair(request, tmp_path_factory):
    """The reference and the pack of one random checkpoint of each kind."""
    folder = tmp_path_factory.mktemp("models")
    checkpoint = random_checkpoint(folder / request.param, KINDS[request.param], seed=7)
    convert(checkpoint, folder / "pack", head="bf16")
    cache = KVCache(layers=1, pages=1, kv_heads=1, head_dim=2, slots=1, context=1)
    half = cache.format.dtype == "float16"  # the reference rounds keys and values as the engine's cache does
    return Reference(checkpoint, integer=True, half_kv=half), Pack.open(folder / "pack")


def _linear(matrix: kernels.PackedMatrix, x: np.ndarray) -> np.ndarray:
    q, out = np.empty((len(x), matrix.padded_cols), np.int8), np.empty((len(x), matrix.padded_rows), np.float32)
    scale, total = np.empty(len(x), np.float32), np.empty(len(x), np.int32)
    kernels.quantise_rows(x, q, scale, total)
    kernels.ternary_linear(matrix, q, scale, total, out)
    return out


def test_modules(pair):
    """Norms and linear layers of all layers, on the reference's inputs: 1e-6 relative."""
    reference, pack = pair
    hidden = reference.embedding[TOKENS]
    for index in range(pack.config.layers):
        steps, weights = reference.block(index, hidden), pack.layer(index)
        _close(_norm(steps["hidden"], weights.attention_norm, pack), steps["normed"])
        _close(_linear(weights.qkv, steps["normed"]), steps["qkv"])
        _close(_linear(weights.output, steps["o_in"]), steps["o"])
        _close(_norm(steps["middle"], weights.ffn_norm, pack), steps["ffn_normed"])
        gate_up = _linear(weights.gate_up, steps["ffn_normed"]).reshape(len(TOKENS), -1, 2, 16)
        _close(gate_up[:, :, 0].reshape(len(TOKENS), -1), steps["gate"])
        _close(gate_up[:, :, 1].reshape(len(TOKENS), -1), steps["up"])
        _close(_linear(weights.down, steps["down_in"]), steps["down"])
        if pack.config.sub_norms:
            _close(_norm(steps["attended"], weights.attention_sub_norm, pack), steps["o_in"])
            _close(_norm(steps["gated"], weights.ffn_sub_norm, pack), steps["down_in"])
        hidden = steps["out"]


def test_layers(pair):
    """Whole layers on the reference's hidden states: equal but for the few rows where a level flips."""
    reference, pack = pair
    hidden = reference.embedding[TOKENS]
    for index in range(pack.config.layers):
        expected = reference.block(index, hidden)["out"]
        stage = StageModel(pack, range(index, index + 1), kv_tokens=len(TOKENS), slots=1)
        batch = Batch((Row(0, 0, len(TOKENS)),))
        stage.reserve(batch)
        found = stage.forward(batch, hidden.copy())
        stage.close()
        errors = np.abs(found - expected).max(axis=1) / np.abs(expected).max()
        assert np.median(errors) < 1e-6
        assert np.mean(errors < 1e-5) > 0.8
        assert errors.max() < 0.05
        hidden = expected


def test_end_to_end(pair):
    reference, pack = pair
    model = StageModel(pack, range(pack.config.layers), kv_tokens=len(TOKENS), slots=1)
    found = agreement(reference.logits(TOKENS), model.logits(TOKENS))
    model.close()
    assert found.kl < 3e-3
    assert found.argmax >= 0.9


def _norm(x, gain, pack):
    out = np.empty_like(x)
    kernels.rms_norm(x, gain, pack.config.norm_eps, out)
    return out


def _close(found, expected):
    """Within 1e-6 of the largest value of the row; padding columns are left out."""
    scale = np.abs(expected).max(axis=1, keepdims=True)
    assert (np.abs(found[:, : expected.shape[1]] - expected) <= 1e-6 * scale).all()
