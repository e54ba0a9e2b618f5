"""Frames through stages by hand, without a network: the numbers of the whole model, whatever the micro-batches."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
from tests.support.frames import KV_TOKENS, SLOTS, activation_frame, pipeline, row, stepper, through, token_frame
from tests.support.packs import bundled

import trireme_kernels as kernels
from trireme_proto.errors import FrameRefused
from trireme_proto.v1 import stage_pb2 as pb
from trireme_worker.actor import warm_up
from trireme_worker.batch import Batch, Row
from trireme_worker.stage import StageModel
from trireme_worker.stepper import Stepper

SAMPLING = pb.RowSampling(temperature=0.8, top_k=40, top_p=0.9, seed=11)


def close(stages: list[Stepper]) -> None:
    for stage in stages:
        stage.model.close()


@pytest.fixture(scope="module")
def whole() -> StageModel:
    return StageModel(bundled(), range(bundled().config.layers))


@pytest.mark.parametrize("cuts", [(), (3,), (1, 5)])
def test_token_by_token_as_the_logits_say(whole: StageModel, cuts: tuple[int, ...]) -> None:
    stages, tokens = pipeline(cuts), [0, 300, 301, 302]
    fed = 0
    for step in range(1, 13):
        frame = token_frame(step, [row(2, fed, len(tokens) - fed, SAMPLING)], tokens[fed:])
        sampled = through(stages, frame)
        expected = kernels.sample(
            whole.logits(tokens)[-1], SAMPLING.temperature, SAMPLING.top_k, SAMPLING.top_p, SAMPLING.seed, len(tokens)
        )
        assert [(s.slot, s.position, s.token_id) for s in sampled] == [(2, len(tokens), expected)]
        fed = len(tokens)
        tokens.append(expected)
    close(stages)


@pytest.mark.parametrize("seed", range(4))
def test_any_micro_batches_give_the_same_tokens(whole: StageModel, seed: int) -> None:
    """Sequences cut into random chunks and mixed at random; each ends with the token that the whole sequence has."""
    rng = random.Random(seed)
    edges = sorted({0, 6, *rng.sample(range(1, 6), rng.randint(0, 2))})
    stages = pipeline(edges[1:-1])
    sequences = [[rng.randrange(4096) for _ in range(rng.randint(1, 50))] for _ in range(SLOTS)]
    fed, step, found = [0] * SLOTS, 0, {}
    while any(fed[i] < len(tokens) for i, tokens in enumerate(sequences)):
        rows, ids = [], []
        for slot in rng.sample(range(SLOTS), rng.randint(1, SLOTS)):
            count = min(rng.choice([1, 3, 16, 40]), len(sequences[slot]) - fed[slot])
            if count:
                last = fed[slot] + count == len(sequences[slot])
                rows.append(row(slot, fed[slot], count, SAMPLING if last else None))
                ids += sequences[slot][fed[slot] : fed[slot] + count]
                fed[slot] += count
        if rows:
            step += 1
            found |= {s.slot: s for s in through(stages, token_frame(step, rows, ids))}
    assert sorted(found) == list(range(SLOTS))
    for slot, tokens in enumerate(sequences):
        how = (SAMPLING.temperature, SAMPLING.top_k, SAMPLING.top_p, SAMPLING.seed, len(tokens))
        assert found[slot].token_id == kernels.sample(whole.logits(tokens)[-1], *how)
        assert found[slot].position == len(tokens)
    close(stages)


def test_every_activation_is_the_same_wherever_the_model_is_cut() -> None:
    tokens, results = list(range(300, 325)), []
    for cuts in ((), (2,), (1, 2, 3, 4, 5)):
        stages, frame = pipeline(cuts), token_frame(1, [row(0, 0, 25)], tokens)
        for stage in stages[:-1]:
            stage.step(frame, 0)
            frame = pb.Frame.FromString(frame.SerializeToString())
        last = stages[-1].model
        batch = Batch((Row(0, 0, 25),))
        hidden = np.frombuffer(frame.activations, np.float32).reshape(25, -1).copy() if cuts else None
        last.reserve(batch)
        results.append(last.forward(batch, last.embed(np.array(tokens, np.int32)) if hidden is None else hidden))
        close(stages)
    assert all(a.tobytes() == b.tobytes() for a, b in pairwise(results))


def test_what_a_frame_becomes() -> None:
    first, last = pipeline((3,))
    frame = token_frame(1, [row(0, 0, 2), row(1, 0, 1)], [5, 6, 7])
    frame.sent_ns = 1000
    assert first.step(frame, arrived_ns=3000) == []
    assert not frame.token_ids
    assert len(frame.activations) == 3 * bundled().config.hidden_size * 4
    assert (len(frame.timings), frame.timings[0].wire_ns) == (1, 2000)
    assert frame.timings[0].compute_ns > 0
    assert frame.sent_ns > 3000
    assert last.step(frame, arrived_ns=frame.sent_ns + 5) == []  # nobody asked for a token
    assert [t.wire_ns for t in frame.timings] == [2000, 5]
    for stage in (first, last):
        assert stage.progress.steps == 1
        assert stage.progress.busy_ns > 0
    close([first, last])


def test_clocks_that_disagree_give_no_negative_times() -> None:
    only = stepper(range(6), stage=0)
    frame = token_frame(1, [row(0, 0, 1)], [5])
    frame.sent_ns = 2**62
    only.step(frame, arrived_ns=1)
    assert frame.timings[0].wire_ns == 0
    close([only])


def test_releases_come_before_rows() -> None:
    only = stepper(range(6), stage=0)
    full = [row(slot, 0, 256) for slot in range(2)]
    only.step(token_frame(1, full, [1] * 512), 0)
    assert only.model.kv.pages_used == 32
    again = token_frame(2, [row(0, 0, 256), row(2, 0, 100)], [1] * 356, release=[0, 3])
    only.step(again, 0)  # 8 pages were free: it fits only because slot 0 was freed first; freeing slot 3 is nothing
    assert only.model.kv.lengths.tolist() == [256, 256, 100, 0, 0, 0]
    only.step(token_frame(3, [], [], release=[0, 1, 2]), 0)
    assert only.model.kv.pages_used == 0
    close([only])


def test_shared_pages_give_the_same_tokens_as_computed_ones(whole: StageModel) -> None:
    stages = pipeline((3,))
    common, rng = [0, *range(300, 339)], random.Random(1)
    through(stages, token_frame(1, [row(0, 0, 40)], common))
    tails = {slot: [rng.randrange(4096) for _ in range(9 + slot)] for slot in (1, 2)}
    frame = token_frame(2, [], [], release=[0])
    for slot, tail in tails.items():
        frame.share.add(slot=slot, from_slot=slot - 1, pages=2)
        frame.rows.append(row(slot, 32, len(tail), SAMPLING))
        frame.token_ids.extend(tail)
    sampled = through(stages, frame)
    assert [stage.model.kv.pages_used for stage in stages] == [2 + 1 + 1] * 2
    for (slot, tail), found in zip(tails.items(), sampled, strict=True):
        tokens = common[:32] + tail
        how = (SAMPLING.temperature, SAMPLING.top_k, SAMPLING.top_p, SAMPLING.seed, len(tokens))
        assert (found.slot, found.position) == (slot, len(tokens))
        assert found.token_id == kernels.sample(whole.logits(tokens)[-1], *how)
    close(stages)


def test_drafts_are_sampled_at_every_position_and_may_be_written_again(whole: StageModel) -> None:
    stages, tokens = pipeline((3,)), [0, *range(300, 315)]

    def follows(tokens: list[int]) -> int:
        how = (SAMPLING.temperature, SAMPLING.top_k, SAMPLING.top_p, SAMPLING.seed, len(tokens))
        return kernels.sample(whole.logits(tokens)[-1], *how)

    through(stages, token_frame(1, [row(0, 0, 15)], tokens[:15]))
    first = follows(tokens)
    second = follows([*tokens, first])
    wrong = (second + 1) % 4096
    fed = [tokens[15], first, wrong, 5]
    sampled = through(stages, token_frame(2, [pb.Row(slot=0, position=15, count=4, sampling=SAMPLING, drafts=3)], fed))
    assert [s.position for s in sampled] == [16, 17, 18, 19]
    assert [s.token_id for s in sampled[:2]] == [first, second]
    third = through(stages, token_frame(3, [row(0, 17, 1, SAMPLING)], [second]))
    assert [(s.position, s.token_id) for s in third] == [(18, follows([*tokens, first, second]))]
    close(stages)


def test_steps_follow_each_other_without_gaps_and_refused_ones_do_not_count() -> None:
    only = stepper(range(6), stage=0)
    for step in (0, 2, 1):
        if step == 1:
            only.step(token_frame(step, [row(0, 0, 1)], [5]), 0)
        else:
            with pytest.raises(FrameRefused, match="step"):
                only.step(token_frame(step, [row(0, 0, 1)], [5]), 0)
    with pytest.raises(FrameRefused, match="step is 1, expected 2"):
        only.step(token_frame(1, [row(0, 1, 1)], [5]), 0)  # the same frame twice
    close([only])


def test_an_epoch_begins_empty_and_at_step_one() -> None:
    only = stepper(range(6), stage=0)
    only.step(token_frame(1, [row(0, 0, 40)], [5] * 40), 0)
    only.begin(2, 0)
    assert (only.model.kv.pages_used, only.progress.steps, only.progress.busy_ns) == (0, 0, 0)
    with pytest.raises(FrameRefused, match="epoch is 1, expected 2"):
        only.step(token_frame(1, [row(0, 0, 1)], [5]), 0)
    frame = token_frame(1, [row(0, 0, 1)], [5])
    frame.epoch = 2
    only.step(frame, 0)
    close([only])


def test_logits_leave_nothing_behind(whole: StageModel) -> None:
    logits = whole.logits([0, 300, 301])
    assert logits.shape == (3, bundled().config.vocabulary)
    assert (logits[:2] == whole.logits([0, 300])).all()
    with pytest.raises(kernels.KernelInputError):
        whole.logits([0, 4096])
    assert (whole.kv.pages_used, whole.kv.check_integrity()) == (0, "")


def test_only_the_ends_embed_and_have_the_head() -> None:
    middle = StageModel(bundled(), range(2, 4))
    with pytest.raises(ValueError, match="first stage"):
        middle.embed(np.zeros(1, np.int32))
    with pytest.raises(ValueError, match="last stage"):
        middle.head(np.zeros((1, 256), np.float32))
    middle.close()


@pytest.mark.parametrize("layers", [range(6), range(2), range(2, 4), range(4, 6)], ids=str)
def test_warming_up_leaves_nothing_behind(layers: range) -> None:
    model = StageModel(bundled(), layers, kv_tokens=KV_TOKENS, slots=SLOTS)
    warm_up(model)
    assert (model.kv.pages_used, model.kv.slots_used) == (0, 0)
    model.close()


def test_activations_are_not_taken_from_a_frame_of_another_size() -> None:
    middle = stepper(range(2, 4), stage=1)
    frame = activation_frame(1, [row(0, 0, 3)])
    frame.rows[0].count = 2
    with pytest.raises(FrameRefused, match="bytes of activations is 3072, expected 2048"):
        middle.step(frame, 0)
    close([middle])
