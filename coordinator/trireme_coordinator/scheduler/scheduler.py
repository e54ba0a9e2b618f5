"""Micro-batches and their results, in order: continuous batching over a pipeline of stages.

Prefill chunks of one sequence may follow each other into the pipeline without waiting, because frames keep their order.
So do releases: a slot that is freed here can be given to another sequence at once, the stages will have freed it when
its first row arrives.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from collections.abc import Sequence as Items
from itertools import islice

from trireme_coordinator.scheduler.admission import Admission
from trireme_coordinator.scheduler.answers import Answers
from trireme_coordinator.scheduler.budget import PAGE_TOKENS, Budget
from trireme_coordinator.scheduler.config import SchedulerConfig
from trireme_coordinator.scheduler.cost import StepCost
from trireme_coordinator.scheduler.fair import FairQueue
from trireme_coordinator.scheduler.lanes import Lanes
from trireme_coordinator.scheduler.page_keys import PageKeys
from trireme_coordinator.scheduler.restoring import Restoring, Wanted
from trireme_coordinator.scheduler.rows import Rows
from trireme_coordinator.scheduler.sequence import Batch, Finish, Restored, Row, Sequence
from trireme_proto.errors import PipelineUnavailable

_EARLY = 0.25
"""Of a chunk's time: how much the first stage has left to do when it is sent the next one."""


class Scheduler:
    """Holds all sequences of a pipeline. Every method is quick however many there are, and never waits.

    It owns the micro-batches under way; `admission.py` decides who runs, `rows.py` what is computed for them,
    `answers.py` what the tokens come to.
    """

    def __init__(self, config: SchedulerConfig, keys: PageKeys | None = None) -> None:
        """`keys`: names pages for the page store; None: there is none."""
        self.config = config
        self._restoring = Restoring(keys)
        self.budget = Budget(config.slots, config.pages, sharing=config.sharing)
        self.cost = StepCost(config.stages)
        self._lanes = Lanes()
        self._admission = Admission(config, self.budget, self._lanes, self._restoring)
        self._rows = Rows(config, self.budget, self.cost, self._lanes, self._restoring, self._admission)
        self._answers = Answers(config, self._lanes)
        self._step = 0
        self._under_way: deque[Batch] = deque()
        self._decode_batches = 0  # of those under way
        self._first_free = 0  # when the first stage will have worked off what it was sent, about

    @property
    def waiting(self) -> FairQueue:
        """Sequences that have no slot."""
        return self._admission.waiting

    @property
    def running(self) -> Mapping[Sequence, None]:
        """Sequences that have one."""
        return self._admission.running

    def submit(self, sequence: Sequence) -> None:
        """Puts a sequence into the queue. Overloaded when its tenant's is full; ValueError where it could never run."""
        self._admission.submit(sequence)

    def schedule(self, now_ns: int | None = None) -> Batch | None:
        """The next micro-batch; None where there is nothing to do or the pipeline is full. `now_ns`: any clock's time,
        by which prefill chunks are paced (`wait_ns`); without it they are not.
        """
        if len(self._under_way) > self.config.stages:
            return None
        self._admission.admit(now_ns or 0)
        if now_ns is not None and self.wait_ns(now_ns):
            return None
        rows = self._rows.decode(self._decode_batches)
        rows += self._rows.prefill()
        rows = rows or self._rows.ahead(self._under_way)
        if not (rows or self.budget.releases or self._restoring.pending):
            return None
        batch = self._emit(rows)
        if now_ns is not None:
            self._first_free = max(self._first_free, now_ns) + int(self.cost.prefill_ns * len(batch.token_ids))
        return batch

    def wait_ns(self, now_ns: int) -> int:
        """Nanoseconds after which `schedule` should be called even if nothing happens; 0 where it need not be.

        While others decode, a prefill chunk is sent when the first stage has nearly worked off the one before. The
        pipeline is as busy as if it had been sent at once, and decode rows, which go with the next chunk, do not queue
        behind a heap of them.
        """
        if not (self._lanes.prefilling and self._lanes.decoding and self._under_way):
            return 0
        early = int(_EARLY * self.cost.prefill_ns * self.config.prefill_chunk)
        return max(0, self._first_free - early - now_ns)

    def complete(self, step: int, tokens: list[tuple[int, int]]) -> tuple[Batch, dict[Sequence, list[int]]]:
        """Takes a step's result, (slot, token id) for each token sampled; returns its micro-batch, and the tokens that
        count.

        What was sampled after a wrong guess, or for a sequence that has been dropped or preempted since, is ignored.
        Sets `finish` where the answer ends with the last token; an end-of-text token is not part of the answer and is
        not returned. PipelineUnavailable, and nothing has changed, where it is not the result that is due: the stages
        and these books disagree.
        """
        batch = self._due(step, [slot for slot, _ in tokens])
        results = iter(tokens)
        sampled = [(row, [token for _, token in islice(results, row.sampled)]) for row in batch.rows if row.samples]
        return batch, {row.sequence: taken for row, found in sampled if (taken := self._answers.accept(row, found))}

    def wanted(self) -> list[Wanted]:
        """Pages that admitted sequences wait for, each to be answered with `fetched`; to be asked after `schedule`."""
        return self._restoring.wanted()

    def fetched(self, wanted: Wanted, fetch: int, pages: int, found: Restored) -> None:
        """All stages hold the first `pages` of the wanted pages, as `fetch` (0: nothing was fetched); without any it
        goes on as it is.
        """
        sequence = wanted.sequence
        slot = sequence.slot if wanted.current else None
        if slot is None or not pages:
            if fetch:
                self._restoring.forget(fetch)
        else:
            self._restoring.restore(sequence, slot, fetch, wanted.first_page, pages)
            sequence.computed = sequence.fed = (wanted.first_page + pages) * PAGE_TOKENS
            sequence.cached += 0 if sequence.generated else pages * PAGE_TOKENS
        if slot is not None:
            sequence.restored = found
            self._lanes.move(sequence)

    def learn(self, batch: Batch, compute_ns: Items[int], round_ns: int) -> None:
        """A micro-batch took each stage so long to compute, and so long from being sent to its result, waiting times
        not counted.
        """
        self.cost.learn(len(batch.token_ids), compute_ns, round_ns)

    def finish(self, sequence: Sequence, reason: Finish, unread: int = 0) -> None:
        """Ends an answer from outside the model: a stop text was found, before the last `unread` tokens."""
        self._answers.finish(sequence, reason, unread)

    def drop(self, sequence: Sequence) -> None:
        """Forgets a sequence. One that finished has its slot parked for its session; what a caller gave up is freed on
        every stage by the next frame.
        """
        self._admission.drop(sequence)

    def restart(self) -> None:
        """The pipeline was rebuilt and holds nothing: every running sequence starts over from its tokens, in the old
        order.
        """
        self._admission.restart()
        self._under_way.clear()
        self._step = self._decode_batches = self._first_free = 0
        self.budget.reset()
        self._restoring.reset()

    def idle(self) -> bool:
        """Whether nothing is waiting, running or under way."""
        return not (self.waiting or self.running or self._under_way or self.budget.releases or self._restoring.pending)

    def check_integrity(self) -> str:
        """Empty where the books add up; else what does not."""
        if sorted(s.slot for s in self.running if s.slot is not None) != sorted(self.budget.running_slots):
            return "running sequences and running slots differ"
        return self.budget.check_integrity()

    def _emit(self, rows: list[Row]) -> Batch:
        self._step += 1
        release, self.budget.releases = tuple(self.budget.releases), []
        share, self.budget.shares = tuple(self.budget.shares), []
        restored, forget = self._restoring.emit()
        token_ids = tuple(token for row in rows for token in row.token_ids)
        pages = tuple(restored.values()), forget, self._restoring.saves(rows)
        batch = Batch(self._step, share, release, tuple(rows), token_ids, *pages)
        for sequence, restore in restored.items():  # there only from the next frame on
            certain = (restore.first_page + restore.pages) * PAGE_TOKENS
            self.budget.filled(restore.slot, sequence.tenant, sequence.tokens, certain)
        for row in rows:
            self.budget.filled(row.slot, row.sequence.tenant, row.sequence.tokens, row.certain)
        self._under_way.append(batch)
        self._decode_batches += batch.decodes
        return batch

    def _due(self, step: int, slots: list[int]) -> Batch:
        """Takes the oldest micro-batch off the list, if this can be its result."""
        if not self._under_way:
            raise PipelineUnavailable(f"A stage sent a result of step {step}; none is due.")
        batch = self._under_way[0]
        asked = [row.slot for row in batch.rows for _ in range(row.sampled)]
        if (step, slots) != (batch.step, asked):
            raise PipelineUnavailable(f"A stage sent a wrong result of step {step}; that of {batch.step} is due.")
        self._decode_batches -= batch.decodes
        return self._under_way.popleft()
