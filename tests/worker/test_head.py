"""A stage's head: the same tokens from an int8 head with and without its first pass, whatever a row asks for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.support.packs import bundled

import trireme_kernels as kernels
from trireme_kernels.head_first_pass import LOWEST
from trireme_proto.errors import PackCorrupt
from trireme_worker import stage
from trireme_worker.actor import warm_up
from trireme_worker.batch import Batch, Row, SamplingParams
from trireme_worker.head import OutputHead
from trireme_worker.pack import LayerWeights, Pack, PackContents, default_pack, write_pack
from trireme_worker.pack.quantised_head import QuantisedHead
from trireme_worker.stage import StageModel
from trireme_worker.team import Team

GREEDY = SamplingParams(0.0, 0, 1.0, 0)
HOWS = {
    "greedy": [GREEDY] * 3,
    "greedy, whatever else is set": [SamplingParams(0.0, 3, 0.5, 1), SamplingParams(0.0, 0, 0.5, 1)],
    "top-k": [SamplingParams(1.5, k, 1.0, seed) for seed, k in enumerate((1, 2, 7, 16, 16))],
    "top-k of more than a first pass is for": [SamplingParams(1.5, k, 1.0, seed) for seed, k in enumerate((17, 5000))],
    "top-k and top-p": [SamplingParams(0.9, 12, p, seed) for seed, p in enumerate((0.2, 0.95))],
    "top-p": [SamplingParams(1.2, 0, p, seed) for seed, p in enumerate((0.3, 0.9, 1.0))],
    "mixed": [
        SamplingParams(1.2, 0, 0.9, 1),
        GREEDY,
        SamplingParams(2.0, 9, 1.0, 2),
        SamplingParams(1.0, 0, 1.0, 3),
        SamplingParams(0.5, 3, 0.8, 4),
    ],
}


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pack]:
    """The bundled model with each kind of head."""
    pack, found = bundled(), {"bf16": bundled()}
    for kind in ("int8", "int8+4bit"):
        folder = tmp_path_factory.mktemp("packs") / kind
        contents = PackContents(
            config=pack.config,
            embedding=[pack.embedding()],
            layers=[pack.layer(i) for i in range(pack.config.layers)],
            final_norm=pack.final_norm(),
            quantised_head=QuantisedHead(pack.config, kind, lambda: [pack.embedding()]),
            extra_files={"tokenizer.json": (Path(default_pack()) / "tokenizer.json").read_bytes()},
        )
        write_pack(folder, contents)
        found[kind] = Pack.open(folder)
    return found


def test_rows_come_in_groups_that_change_no_token(packs, monkeypatch):
    hows = HOWS["mixed"]
    wanted = tokens(packs["int8+4bit"], hows, 1)
    seen = []
    largest = OutputHead.largest
    monkeypatch.setattr(OutputHead, "largest", lambda self, x, keep: seen.append(len(keep)) or largest(self, x, keep))
    monkeypatch.setattr(stage, "ROWS_OF_LOGITS", 2)
    assert tokens(packs["int8+4bit"], hows, 1) == wanted
    assert seen == [2, 2, 1, 2, 2, 1]


def tokens(pack: Pack, hows: list[SamplingParams], threads: int) -> list[int]:
    """The first token of each of some sequences that differ, all in one step, and each one's next."""
    model = StageModel(pack, range(pack.config.layers), threads=threads, kv_tokens=256, slots=8)
    prompts = [[0, 300 + 17 * i, 40 + i] for i in range(len(hows))]
    try:
        batch = Batch(tuple(Row(i, 0, 3, how) for i, how in enumerate(hows)))
        model.reserve(batch)
        hidden = model.forward(batch, model.embed(np.array(prompts, np.int32).reshape(-1)))
        found = [each.token_id for each in model.sample(batch, hidden)]
        batch = Batch(tuple(Row(i, 3, 1, how) for i, how in enumerate(hows)))
        model.reserve(batch)
        hidden = model.forward(batch, model.embed(np.array(found, np.int32)))
        return found + [each.token_id for each in model.sample(batch, hidden)]
    finally:
        model.close()


@pytest.mark.parametrize("what", HOWS)
def test_the_first_pass_changes_no_token(packs: dict[str, Pack], what: str) -> None:
    """Nor do threads."""
    expected = tokens(packs["int8"], HOWS[what], 1)
    for threads in (1, 2, 3):
        assert tokens(packs["int8+4bit"], HOWS[what], threads) == expected
    assert tokens(packs["int8"], HOWS[what], 3) == expected


def test_greedy_and_top_k_rows_ask_for_few_logits(packs: dict[str, Pack], monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes them fast; all others need the sum over the whole vocabulary."""
    asked: list[list[int]] = []
    real = OutputHead.largest
    monkeypatch.setattr(OutputHead, "largest", lambda head, x, keep: asked.append(list(keep)) or real(head, x, keep))
    tokens(packs["int8+4bit"], HOWS["mixed"], 1)
    assert asked == [[0, 1, 9, 0, 3]] * 2
    tokens(packs["int8+4bit"], HOWS["greedy, whatever else is set"], 1)
    assert asked[2:] == [[1, 1]] * 2


def test_a_warm_up_goes_both_ways_through_a_head(packs: dict[str, Pack], monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no request waits for a compiler."""
    asked: list[list[int]] = []
    real = OutputHead.largest
    monkeypatch.setattr(OutputHead, "largest", lambda head, x, keep: asked.append(list(keep)) or real(head, x, keep))
    model = StageModel(packs["int8+4bit"], range(6))
    warm_up(model)
    model.close()
    assert sorted(asked) == [[0], [1]]


def test_batch_mates_change_no_token(packs: dict[str, Pack]) -> None:
    together = tokens(packs["int8+4bit"], HOWS["mixed"], 2)
    for kind in ("int8", "int8+4bit"):
        alone = [tokens(packs[kind], HOWS["mixed"][: i + 1], 1)[i] for i in range(5)]
        assert together[:5] == alone


def head_of(pack: Pack, threads: int) -> OutputHead:
    return OutputHead(pack.head(), pack.final_norm(), pack.config.norm_eps, Team(threads))


def hidden_rows(pack: Pack, count: int) -> np.ndarray:
    """Rows like those that a model ends with: near some token."""
    rows = np.random.default_rng(5).integers(0, pack.config.vocabulary, count)
    near = (pack.embedding()[rows].astype(np.uint32) << 16).view(np.float32)
    return near + 0.02 * np.random.default_rng(6).standard_normal(near.shape, np.float32)


def test_only_what_is_asked_for_is_found(packs: dict[str, Pack]) -> None:
    """Row by row: all logits, or the largest with the same bits and LOWEST for most others."""
    pack = packs["int8+4bit"]
    head, hidden = head_of(pack, 2), hidden_rows(pack, 5)
    whole, keep = head.logits(hidden), [0, 1, 16, 17, 3]
    for full, found, count in zip(whole, head.largest(hidden, keep), keep, strict=True):
        counted = full >= np.sort(full)[-count] if count else np.ones(full.size, bool)
        assert (found[counted] == full[counted]).all()
        left_out = (found == LOWEST).mean()
        assert left_out > 0.5 if count in (1, 3, 16) else left_out == 0


def test_logits_are_those_of_the_whole_head(packs: dict[str, Pack]) -> None:
    """What `trireme logits` writes: nothing is left out, and bf16 is near."""
    ids = [0, *range(300, 330)]
    found = {}
    for kind, pack in packs.items():
        model = StageModel(pack, range(pack.config.layers), threads=2)
        found[kind] = model.logits(ids)
        model.close()
    assert (found["int8"] == found["int8+4bit"]).all()
    assert (found["int8"] > LOWEST).all()
    assert 0 < np.abs(found["int8"] - found["bf16"]).max() < 0.3


def test_a_row_that_is_not_finite_is_refused(packs: dict[str, Pack]) -> None:
    for kind in ("int8", "int8+4bit"):
        head, hidden = head_of(packs[kind], 1), hidden_rows(packs[kind], 2)
        hidden[1, 3] = np.nan
        good, bad = head.largest(hidden, [1, 1])
        assert np.isfinite(good).all()
        with pytest.raises(kernels.KernelInputError, match="not finite"):
            kernels.sample(bad, 0.0, 0, 1.0, 0, 0)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("layout", [None, "2bit", "1.6bit"])
def test_the_layout_changes_no_bit(threads: int, layout: str | None) -> None:
    """And every layer that is laid out anew is reported once."""
    pack, seen = bundled(), []
    ids = [0, *range(300, 320)]
    plain = StageModel(pack, range(6))
    model = StageModel(pack, range(6), threads=threads, layout=layout, report=lambda *done: seen.append(done))
    try:
        assert (model.logits(ids) == plain.logits(ids)).all()
        assert sorted(seen) == ([(i, 6) for i in range(1, 7)] if layout == "1.6bit" else [])
    finally:
        plain.close()
        model.close()


def test_bytes_that_are_no_weights_are_a_corrupt_pack() -> None:
    class Damaged:
        config, embedding, head, final_norm = (
            bundled().config,
            bundled().embedding,
            bundled().head,
            bundled().final_norm,
        )

        @staticmethod
        def layer(index: int) -> LayerWeights:
            layer = bundled().layer(index)
            data = np.array(layer.down.data)
            data[100] = 0xFF
            return replace(layer, down=replace(layer.down, data=data))

    with pytest.raises(PackCorrupt, match="no ternary weights"):
        StageModel(Damaged(), range(2, 4), layout="1.6bit")
