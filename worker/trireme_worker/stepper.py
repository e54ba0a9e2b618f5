"""One frame in, one frame out: check, release, restore, compute, sample, save. Runs on the compute thread, one
frame at a time.

The frame object is changed into the one for the next stage, so that nothing is copied twice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from numpy.typing import NDArray

from trireme_proto.errors import FrameRefused
from trireme_proto.v1 import stage_pb2 as pb
from trireme_worker import frames
from trireme_worker.batch import Batch, Restore, Sampled, Save
from trireme_worker.page_store import PageStore
from trireme_worker.stage import StageModel
from trireme_worker.step_times import StepTimes


@dataclass
class Progress:
    """What an epoch has done so far on this stage."""

    epoch: int
    stage: int = 0
    steps: int = 0
    busy_ns: int = 0


class Stepper:
    """Applies frames of the current epoch to a StageModel."""

    def __init__(self, model: StageModel, pages: PageStore | None = None) -> None:
        """`pages`: where full KV pages are kept outside this process; without it nothing is saved or restored."""
        self.model, self.pages = model, pages
        self.progress = Progress(0)
        self._chosen: dict[int, tuple[int, Sampled]] = {}  # by slot, the token that was sampled last, and in which step

    @property
    def pulse(self) -> int:
        """Changes while a step gets on; to be looked at from another thread."""
        return self.model.pulse

    def begin(self, epoch: int, stage: int) -> None:
        """Starts an epoch as stage `stage` of the pipeline: frames of any other are refused from here on; all slots are
        free.
        """
        self.progress = Progress(epoch, stage)
        self._chosen.clear()
        self.reset()

    def reset(self) -> None:
        """Frees all slots, and what was fetched for them."""
        self.model.kv.reset()
        if self.pages is not None:
            self.pages.reader.forget_all()

    def step(self, frame: pb.Frame, arrived_ns: int) -> list[Sampled]:
        """Computes a frame and makes it the next stage's; returns the sampled tokens (last stage). FrameRefused if it
        is wrong.

        `arrived_ns`: time.time_ns() when the frame came in.
        """
        started = time.time_ns()
        times = self.model.times = StepTimes()
        sampled = self._compute(frame)
        done = time.time_ns()
        frame.timings.add(
            wire_ns=max(0, arrived_ns - frame.sent_ns),
            wait_ns=max(0, started - arrived_ns),
            compute_ns=max(0, done - started),
            linear_ns=times.linear_ns,
            attention_ns=times.attention_ns,
            head_ns=times.head_ns,
            sample_ns=times.sample_ns,
        )
        frame.sent_ns = done
        self.progress.steps += 1
        self.progress.busy_ns += done - started
        self._save(frame)  # before the next frame, which may free the slots
        return sampled

    def _compute(self, frame: pb.Frame) -> list[Sampled]:
        model, expected = self.model, self._expected()
        batch, shares = frames.read_batch(frame, expected), frames.read_shares(frame, expected)
        restores, saves = frames.read_restores(frame, expected), frames.read_saves(frame, expected)
        read = frames.read_token_ids if model.first else frames.read_activations
        values = read(frame, batch, expected)
        if model.first and model.last:  # else the frame came with what the last stage sampled
            self._follow(batch, values)
        for share in shares:
            model.kv.share(share.slot, share.from_slot, share.pages)
        for slot in frame.release:
            model.kv.release(slot)
        self._restore(restores, frame.forget)
        model.reserve(batch)
        self._check(saves)  # the last thing that can refuse the frame; from here on kernels run
        return self._advance(frame, batch, values) if batch.rows else []

    def _restore(self, restores: Sequence[Restore], forget: Sequence[int]) -> None:
        if restores and self.pages is None:
            raise FrameRefused("this stage has no page store to restore from")
        if self.pages is not None:
            for restore in restores:
                contents = self.pages.reader.take(restore.fetch, restore.pages)
                self.model.kv.restore(restore.slot, restore.first_page, contents)
            for fetch in forget:
                self.pages.reader.forget(fetch)

    def _save(self, frame: pb.Frame) -> None:
        """Hands pages that are full now over to be kept."""
        if self.pages is not None:
            for save in frames.read_saves(frame, self._expected()):
                self.pages.writer.save(save.first_page, save.keys, partial(self.model.kv.copy_page, save.slot))

    def _check(self, saves: Sequence[Save]) -> None:
        """Only what nobody writes to any more can be saved."""
        for save in saves:
            held, end = self.model.kv.certain_pages(save.slot), save.first_page + len(save.keys)
            if end > held:
                raise FrameRefused(f"slot {save.slot} holds {held} full pages, {end} are to be saved")

    def _advance(self, frame: pb.Frame, batch: Batch, values: NDArray[Any]) -> list[Sampled]:
        model = self.model
        hidden = model.forward(batch, model.embed(values) if model.first else values)
        frame.ClearField("token_ids")
        if model.last:
            sampled = model.sample(batch, hidden)
            self._chosen.update((each.slot, (frame.step, each)) for each in sampled)
            return sampled
        frames.write_activations(frame, hidden)
        return []

    def _follow(self, batch: Batch, token_ids: NDArray[Any]) -> None:
        """Puts what was sampled into the rows that follow it."""
        end = 0
        for row in batch.rows:
            end += row.count
            if row.follows:
                step, chosen = self._chosen.get(row.slot, (0, None))
                if chosen is None or (step, chosen.position) != (row.follows, row.position):
                    raise FrameRefused(f"step {row.follows} sampled nothing for position {row.position} of its slot")
                token_ids[end - 1] = chosen.token_id

    def _expected(self) -> frames.Expected:
        config = self.model.config
        return frames.Expected(
            epoch=self.progress.epoch,
            step=self.progress.steps + 1,
            stage=self.progress.stage,
            slots=self.model.kv.slots,
            hidden_size=config.hidden_size,
            vocabulary=config.vocabulary,
        )
