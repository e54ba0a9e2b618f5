"""The measured loop computes what a worker computes, and a step reads the bytes that are counted."""

from dataclasses import replace

import numpy as np
import pytest

import trireme_kernels as kernels
from trireme_worker.batch import Batch, Row
from trireme_worker.bench.engine import Engine
from trireme_worker.bench.models import find
from trireme_worker.bench.random_weights import RandomPack
from trireme_worker.pack import default_pack
from trireme_worker.stage import StageModel
from trireme_worker.synth.shapes import tiny

HEADS = ("bf16", "int8", "int8+4bit")


def step(weights, **sizes):
    engine = Engine(weights, layers=weights.config.layers, **sizes)
    try:
        engine.run_layers()
        return engine.run_head(), engine.run_head(), engine._hidden.copy(), engine.step_bytes()
    finally:
        engine.close()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("layout", ["2bit", "1.6bit"])
def test_a_prefill_gives_the_logits_of_a_stage(layout, head):
    """The bundled pack, the same tokens: the most likely next token is the serving path's."""
    weights, layers = find(str(default_pack()), layout, head=head)
    assert weights.head_kind == head
    engine = Engine(weights, layers=layers, threads=2, context=21, count=21)
    stage = StageModel(weights, range(layers), threads=1, kv_tokens=32, slots=1)
    try:
        logits = stage.logits(engine._tokens.tolist())
        engine.run_step()
        assert engine.run_head() == [int(logits[-1].argmax())]
    finally:
        engine.close()
        stage.close()


def test_a_decode_step_is_that_of_a_stage_behind_the_same_keys_and_values(model):
    """The stage's pages hold what the engine's hold, in the same order."""
    engine = Engine(model, layers=2, threads=1, context=40, batch=3)
    stage = StageModel(model, range(2), threads=1, kv_tokens=3 * 48, slots=3)
    try:
        for pages, filled in zip(stage.kv.memory, engine._pages, strict=True):
            pages[:] = filled
        for slot in range(3):
            stage.kv.extend(slot, 0, 39)
        batch = Batch(tuple(Row(slot, 39, 1) for slot in range(3)))
        stage.reserve(batch)
        stage.kv.table[:, :3] = engine._table
        expected = stage.forward(batch, stage.embed(engine._tokens))
        engine.run_layers()
        assert (engine._hidden == expected).all()
        assert engine.run_head() == stage.head(expected).argmax(axis=1).tolist()
    finally:
        engine.close()
        stage.close()


def test_a_step_may_be_taken_again_and_on_any_number_of_threads(model):
    results = [step(model, threads=threads, context=33, batch=2) for threads in (1, 1, 2, 3)]
    for chosen, again, hidden, sizes in results:
        assert chosen == again == results[0][0]
        assert (hidden == results[0][2]).all()
        assert np.isfinite(hidden).all()
        assert sizes == results[0][3]


@pytest.mark.parametrize(("context", "batch", "count"), [(1, 1, 1), (20, 3, 1), (20, 1, 20)])
def test_counted_bytes_are_those_of_the_arrays(model, context, batch, count):
    config = model.config
    sizes = step(model, threads=1, context=context, batch=batch, count=count)[3]
    layer = model.layer(0)
    packed = sum(
        kernels.packed_bytes(m.rows, m.cols, m.layout) + m.padded_rows // 16 * 4
        for m in (layer.qkv, layer.output, layer.gate_up, layer.down)
    )
    gains = 4 * (2 * config.hidden_size + config.query_size + config.ffn_size)
    assert sizes.layer == packed + gains
    assert sizes.kv == batch * context * 2 * (config.kv_heads * max(config.head_dim, 32)) * 4  # heads padded to 32
    assert sizes.rows == batch * count * config.hidden_size * 2
    assert sizes.total(7) == 7 * (sizes.layer + sizes.kv) + sizes.head + sizes.rows


@pytest.mark.parametrize("batch", [1, 3])
def test_counted_bytes_of_the_head_are_those_that_are_read(batch):
    """Of the levels behind a first pass: those rows that some sequence's first pass leaves."""
    config = replace(tiny(), vocabulary=3000)
    weights = {head: RandomPack(config, "2bit", head=head) for head in HEADS}
    sizes = {head: step(each, threads=2, context=5, batch=batch)[3].head for head, each in weights.items()}
    rows, width, gain = 3000, 64, 4 * 64
    assert config.hidden_size == width
    assert sizes["bf16"] == rows * config.hidden_size * 2 + gain
    assert sizes["int8"] == rows * (width + 8) + gain
    codes = -(-rows // 32) * 32 * width // 2 + width + 8 * rows + gain
    rescored, rest = divmod(sizes["int8+4bit"] - codes, width)
    assert rest == 0
    assert batch <= rescored < rows


def test_integer_heads_choose_the_same(model):
    """Greedily, on any number of threads; the random head is the hardest for a first pass."""
    levels = RandomPack(model.config, model.layout, seed=3)
    exact = levels.head()
    levels._head = kernels.HeadWeights(exact.hidden_size, exact.levels, exact.scales, exact.totals)
    chosen = [step(each, threads=n, context=9, batch=4)[0] for each in (model, levels) for n in (1, 2, 3)]
    assert chosen == [chosen[0]] * 6
