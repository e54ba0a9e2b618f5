"""Stages that keep books and remember tokens instead of computing: what the scheduler's frames do to a real pipeline.

Each stage applies the frames in their order, at its own pace, to a real KVCache, and keeps the token ids that a slot's
keys and values would belong to. The last one "samples" with a hash of all that the slot holds, so that a token can only
be right when exactly the right tokens were fed.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from trireme_coordinator.scheduler import Batch, Scheduler, SchedulerConfig
from trireme_worker.kv_cache import KVCache

EOS = 0
VOCABULARY = 23


def next_token(tokens: Sequence[int], seed: int) -> int:
    """What the "model" says after these tokens; EOS once in 60 times. With an odd seed it mostly repeats itself."""
    drawn = zlib.crc32(bytes(tokens) + seed.to_bytes(8, "little"))
    if drawn % 60 == 0:
        return EOS
    return 1 + (len(tokens) % 5 if seed % 2 and drawn % 8 else drawn // 60 % (VOCABULARY - 1))


@dataclass
class FakeStage:
    """The books of one stage, and what its slots hold."""

    kv: KVCache
    store: dict[bytes, list[int]]
    """Tokens up to the end of each page that the page store has."""
    held: dict[int, list[int]] = field(default_factory=dict)
    fetches: dict[int, list[bytes]] = field(default_factory=dict)
    """Keys of the pages that are there to be restored."""
    steps: int = 0

    def apply(self, batch: Batch, token_ids: Sequence[int]) -> list[tuple[int, int]]:
        """Takes in a frame as a stage would, with these ids; returns (slot, token) of the rows that sample."""
        self.steps += 1
        assert batch.step == self.steps
        for share in batch.share:
            self.kv.share(share.slot, share.from_slot, share.pages)
            self.held[share.slot] = self.held[share.from_slot][: 16 * share.pages]
        for slot in batch.release:
            self.kv.release(slot)
            self.held.pop(slot, None)
        for restore in batch.restore:
            keys = self.fetches.pop(restore.fetch)
            assert self.kv.lengths[restore.slot] == len(self.held.get(restore.slot, [])) == 16 * restore.first_page
            self.kv.extend(restore.slot, 16 * restore.first_page, 16 * restore.pages)
            self.held[restore.slot] = list(self.store[keys[restore.pages - 1]])
            assert len(self.held[restore.slot]) == 16 * (restore.first_page + restore.pages)
        for fetch in batch.forget:
            self.fetches.pop(fetch, None)
        ids = list(token_ids)
        tokens = []
        for row in batch.rows:
            uncertain = 1 if row.follows else len(row.drafts)
            self.kv.extend(row.slot, row.position, row.count, uncertain)  # FrameRefused would fail the test
            held = self.held.setdefault(row.slot, [])
            held[row.position :] = [ids.pop(0) for _ in range(row.count)]
            ends = range(len(held) + 1 - row.sampled, len(held) + 1)
            tokens += [(row.slot, next_token(held[:end], row.sequence.sampling.seed)) for end in ends]
        for save in batch.save:
            assert save.first_page + len(save.keys) <= self.kv.certain_pages(save.slot)
            for number, key in enumerate(save.keys, save.first_page + 1):
                tokens_of = self.held[save.slot][: 16 * number]
                assert self.store.setdefault(key, tokens_of) == tokens_of
        assert ids == []
        assert self.kv.check_integrity() == ""
        return tokens


class FakePipeline:
    """As many stages as the configuration says, each somewhere in the stream of frames."""

    def __init__(self, config: SchedulerConfig) -> None:
        self._config = config
        self.store: dict[bytes, list[int]] = {}
        self.restart()

    def restart(self) -> None:
        """All stages have lost everything."""
        c = self._config
        self.stages = [
            FakeStage(
                KVCache(layers=0, pages=c.pages, kv_heads=1, head_dim=2, slots=c.slots, context=c.context), self.store
            )
            for _ in range(c.stages)
        ]
        self.sent: list[Batch] = []
        self.results: list[list[tuple[int, int]]] = []
        self.completed = 0
        self.chosen: dict[tuple[int, int, int], int] = {}  # (step, slot, position) -> token that the last stage sampled
        self.fed: list[list[int]] = []  # token ids of the frames that the first stage has computed

    def fetch(self, number: int, keys: Sequence[bytes]) -> int:
        """Has all stages hold the pages that the store has; returns how many."""
        have = list(takewhile(self.store.__contains__, keys))
        for stage in self.stages:
            stage.fetches[number] = have
        return len(have)

    def send(self, batch: Batch) -> None:
        self.sent.append(batch)

    def advance(self, stage: int) -> bool:
        """Lets a stage compute its next frame, if the one before it has done so."""
        ready = self.stages[stage - 1].steps if stage else len(self.sent)
        if self.stages[stage].steps == ready:
            return False
        step = self.stages[stage].steps
        if stage == 0 and not self._feed(self.sent[step]):
            return False
        tokens = self.stages[stage].apply(self.sent[step], self.fed[step])
        if stage == len(self.stages) - 1:
            self.results.append(tokens)
            rows = [row for row in self.sent[step].rows if row.sampled]
            last = dict(tokens)  # of each slot, the last one
            self.chosen |= {(step + 1, row.slot, row.position + row.count): last[row.slot] for row in rows}
        return True

    def waits(self) -> bool:
        """Whether the first stage has a frame that follows what has not been sampled yet."""
        step = self.stages[0].steps
        return step < len(self.sent) and not self._followed(self.sent[step])

    def _feed(self, batch: Batch) -> bool:
        if not self._followed(batch):
            return False
        self.fed.append(list(batch.token_ids))
        end = 0
        for row in batch.rows:
            end += row.count
            if row.follows:
                self.fed[-1][end - 1] = self.chosen[row.follows, row.slot, row.position]
        return True

    def _followed(self, batch: Batch) -> bool:
        return all((row.follows, row.slot, row.position) in self.chosen for row in batch.rows if row.follows)

    def result(self) -> tuple[int, list[tuple[int, int]]] | None:
        """The next step's result, if it is there."""
        if self.completed == len(self.results):
            return None
        self.completed += 1
        return self.completed, self.results[self.completed - 1]


def work(s: Scheduler, pipeline: FakePipeline, rounds: int) -> None:
    """Fills the pipeline, lets each stage compute a frame and takes one result in, so many times."""
    for _ in range(rounds):
        while (batch := s.schedule()) is not None:
            pipeline.send(batch)
        for stage in range(len(pipeline.stages)):
            pipeline.advance(stage)
        if (result := pipeline.result()) is not None:
            batch, _ = s.complete(*result)
            for row in batch.rows:
                if row.sequence.finish is not None:
                    s.drop(row.sequence)
        assert s.check_integrity() == ""
