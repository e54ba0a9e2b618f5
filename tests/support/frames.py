"""Frames as a well-behaved sender makes them, and stages to feed them to."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from tests.support.packs import bundled

from trireme_proto.v1 import stage_pb2 as pb
from trireme_worker import frames
from trireme_worker.batch import Sampled
from trireme_worker.stage import StageModel
from trireme_worker.stepper import Stepper

SLOTS, KV_TOKENS = 6, 640


def stepper(layers: range, *, stage: int, epoch: int = 1) -> Stepper:
    """A stage with these layers of the bundled model, as stage `stage` of a pipeline at `epoch`."""
    made = Stepper(StageModel(bundled(), layers, kv_tokens=KV_TOKENS, slots=SLOTS))
    made.begin(epoch, stage)
    return made


def pipeline(cuts: Sequence[int]) -> list[Stepper]:
    """Stages that end before these layers, and a last one."""
    edges = [0, *cuts, bundled().config.layers]
    return [stepper(range(a, b), stage=i) for i, (a, b) in enumerate(pairwise(edges))]


def row(slot: int, position: int, count: int, sampling: pb.RowSampling | None = None) -> pb.Row:
    return pb.Row(slot=slot, position=position, count=count, sampling=sampling)


def token_frame(step: int, rows: Sequence[pb.Row], ids: Sequence[int], release: Sequence[int] = ()) -> pb.Frame:
    """For the first stage."""
    return pb.Frame(epoch=1, step=step, rows=rows, token_ids=ids, release=release)


def activation_frame(step: int, rows: Sequence[pb.Row], seed: int = 0, timings: int = 1) -> pb.Frame:
    """For another stage: random activations."""
    tokens = sum(r.count for r in rows)
    frame = pb.Frame(epoch=1, step=step, rows=rows, timings=[pb.StageTiming()] * timings)
    shape = (tokens, bundled().config.hidden_size)
    frames.write_activations(frame, np.random.default_rng(seed).standard_normal(shape).astype(np.float32))
    return frame


def through(stages: Sequence[Stepper], frame: pb.Frame) -> list[Sampled]:
    """Passes a frame through all stages, over the wire's bytes between them."""
    sampled: list[Sampled] = []
    for stage in stages:
        frame = pb.Frame.FromString(frame.SerializeToString())
        sampled = stage.step(frame, arrived_ns=frame.sent_ns)
    return sampled
