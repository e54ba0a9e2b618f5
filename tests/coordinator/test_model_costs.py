"""What a model costs, held against the files of real packs."""

from __future__ import annotations

import pytest

from trireme_coordinator.model_costs import costs_of, model_costs
from trireme_proto.errors import ConfigurationError
from trireme_worker.pack import Pack, default_pack
from trireme_worker.synth.shapes import SHAPES


def test_the_bundled_pack_costs_what_its_files_hold() -> None:
    pack, costs = Pack.open(default_pack(), verify=False), costs_of(str(default_pack()))
    assert costs.name == "trireme-tiny"
    for i in range(6):
        assert costs.layer_bytes[i] == pytest.approx(pack.layer_bytes(i), rel=0.01)  # but for the file's header
    assert costs.embedding_bytes == pytest.approx(pack.embedding_bytes(), rel=0.001)
    assert costs.shared_bytes == costs.embedding_bytes == costs.head_bytes
    assert sum(costs.layer_macs) == pack.config.ternary_parameters
    assert costs.kv_bytes == 2 * pack.config.kv_size * 4


def test_layouts_heads_and_kv_types() -> None:
    shape = SHAPES["70b"]
    plain = model_costs(shape, layout="2bit", head="bf16")
    assert sum(plain.layer_bytes) == pytest.approx(shape.ternary_parameters / 4, rel=0.001)
    assert sum(model_costs(shape).layer_bytes) == pytest.approx(shape.ternary_parameters / 5, rel=0.002)
    table = shape.vocabulary * shape.hidden_size
    assert (plain.head_bytes, plain.head_read_bytes, plain.shared_bytes) == (2 * table, 2 * table, 0)
    small = model_costs(shape)
    assert (small.head_bytes, small.head_read_bytes) == (1.5 * table, 0.5 * table)
    assert model_costs(SHAPES["2b4t"], head="int8").shared_bytes == 0  # the embedding stays bfloat16
    assert model_costs(shape, kv_dtype="float16").kv_bytes * 2 == plain.kv_bytes


def test_what_is_neither_a_shape_nor_a_pack_is_one_sentence() -> None:
    with pytest.raises(ConfigurationError, match=r"'71b' is neither a shape .* did you mean 7b"):
        costs_of("71b")
