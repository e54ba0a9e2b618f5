"""One frame in, one frame out: check, release, compute, sample. Runs on the compute thread, one frame at a time.

The frame object is changed into the one for the next stage, so that nothing is copied twice.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from trireme_proto.v1 import stage_pb2 as pb
from trireme_worker import frames
from trireme_worker.batch import Batch, Sampled
from trireme_worker.stage import StageModel


@dataclass
class Progress:
    """What an epoch has done so far on this stage."""

    epoch: int
    steps: int = 0
    busy_ns: int = 0


class Stepper:
    """Applies frames of the current epoch to a StageModel."""

    def __init__(self, model: StageModel) -> None:
        self.model = model
        self.progress = Progress(0)

    def begin(self, epoch: int) -> None:
        """Starts an epoch: frames of any other are refused from here on; all slots are free."""
        self.progress = Progress(epoch)
        self.model.kv.reset()

    def step(self, frame: pb.Frame, arrived_ns: int) -> list[Sampled]:
        """Computes a frame and makes it the next stage's; returns the sampled tokens (last stage). FrameRefused if it
        is wrong.

        `arrived_ns`: time.time_ns() when the frame came in.
        """
        started = time.time_ns()
        sampled = self._compute(frame)
        done = time.time_ns()
        frame.timings.add(
            wire_ns=max(0, arrived_ns - frame.sent_ns),
            wait_ns=max(0, started - arrived_ns),
            compute_ns=max(0, done - started),
        )
        frame.sent_ns = done
        self.progress.steps += 1
        self.progress.busy_ns += done - started
        return sampled

    def _compute(self, frame: pb.Frame) -> list[Sampled]:
        expected = self._expected()
        batch = frames.read_batch(frame, expected)
        for slot in frame.release:
            self.model.kv.release(slot)
        return self._advance(frame, batch, expected) if batch.rows else []

    def _advance(self, frame: pb.Frame, batch: Batch, expected: frames.Expected) -> list[Sampled]:
        model = self.model
        if model.first:
            hidden = model.embed(frames.read_token_ids(frame, batch, expected))
            frame.ClearField("token_ids")
        else:
            hidden = frames.read_activations(frame, batch, expected)
        model.forward(batch, hidden)
        if model.last:
            return model.sample(batch, hidden)
        frames.write_activations(frame, hidden)
        return []

    def _expected(self) -> frames.Expected:
        config = self.model.config
        return frames.Expected(
            epoch=self.progress.epoch,
            step=self.progress.steps + 1,
            slots=self.model.kv.slots,
            hidden_size=config.hidden_size,
            vocabulary=config.vocabulary,
        )
