"""Admission, micro-batches and results: continuous batching over a pipeline of stages.

Decode rows come first, then prefill chunks within a token budget. A sequence has one decode step under way at most;
prefill chunks of one sequence may follow each other into the pipeline without waiting, because frames keep their order.
So do releases: a slot that is freed here can be given to another sequence at once, the stages will have freed it when
its first row arrives.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from trireme_coordinator.scheduler.budget import Budget, pages_for
from trireme_coordinator.scheduler.sequence import Batch, Finish, Row, Sequence
from trireme_proto.errors import Overloaded, PipelineUnavailable


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """What the pipeline can hold and how it is fed."""

    stages: int
    slots: int
    """Sequences that can hold keys and values at once."""
    pages: int
    """KV pages of the stage that has the fewest."""
    context: int
    """Most tokens of a sequence."""
    prefill_chunk: int
    """Most prompt tokens in one micro-batch."""
    queue: int
    """Most sequences waiting for a slot."""


class Scheduler:
    """Holds all sequences of a pipeline. Every method is quick and never waits."""

    def __init__(self, config: SchedulerConfig) -> None:
        self.config = config
        self.budget = Budget(config.slots, config.pages)
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._step = 0
        self._under_way: deque[Batch] = deque()

    def submit(self, sequence: Sequence) -> None:
        """Puts a sequence into the queue. Overloaded when the queue is full; ValueError where it could never run."""
        if len(sequence.tokens) >= self.config.context or self._pages(sequence) > self.config.pages:
            raise ValueError(f"a prompt of {len(sequence.tokens)} tokens leaves no room for an answer")
        if len(self.waiting) >= self.config.queue:
            raise Overloaded(f"{len(self.waiting)} requests are waiting already; try again later.", retry_after=1.0)
        self.waiting.append(sequence)

    def schedule(self) -> Batch | None:
        """The next micro-batch; None where there is nothing to do or the pipeline is full."""
        if len(self._under_way) > self.config.stages:
            return None
        self._admit()
        rows = self._decode_rows()
        rows += self._prefill_rows()
        if not rows and not self.budget.releases:
            return None
        return self._emit(rows)

    def complete(self, step: int, tokens: list[tuple[int, int]]) -> tuple[Batch, dict[Sequence, int]]:
        """Takes a step's result, (slot, token id) for each row that sampled; returns its micro-batch, and the tokens
        that count.

        A token of a sequence that has been dropped since is ignored. Sets `finish` where the answer ends with the
        token; an end-of-text token is not part of the answer and is not returned. PipelineUnavailable, and nothing has
        changed, where it is not the result that is due: the stages and these books disagree.
        """
        batch = self._due(step, [slot for slot, _ in tokens])
        asked = [row.sequence for row in batch.rows if row.samples]
        results = zip(asked, (token for _, token in tokens), strict=True)
        return batch, {sequence: token for sequence, token in results if self._accept(sequence, token)}

    def finish(self, sequence: Sequence, reason: Finish) -> None:
        """Ends an answer from outside the model: a stop text was found."""
        sequence.finish = reason

    def drop(self, sequence: Sequence) -> None:
        """Forgets a sequence, finished or not: its slot is parked for its session, or freed on every stage by the next
        frame.
        """
        if sequence in self.waiting:
            self.waiting.remove(sequence)
            return
        if sequence.slot is None:
            return
        self.running.remove(sequence)
        if sequence.session_id and sequence.computed:
            self.budget.park(sequence.slot, sequence.session_id, tuple(sequence.tokens[: sequence.computed]))
        else:
            self.budget.free(sequence.slot)
        sequence.slot = None

    def restart(self) -> None:
        """The pipeline was rebuilt and holds nothing: every running sequence starts over from its tokens, in the old
        order.
        """
        for sequence in reversed(self.running):
            sequence.slot, sequence.computed = None, 0
            sequence.setbacks += 1
            self.waiting.appendleft(sequence)
        self.running.clear()
        self._under_way.clear()
        self._step = 0
        self.budget.reset()

    def idle(self) -> bool:
        """Whether nothing is waiting, running or under way."""
        return not (self.waiting or self.running or self._under_way or self.budget.releases)

    def check_integrity(self) -> str:
        """Empty where the books add up; else what does not."""
        if sorted(s.slot for s in self.running if s.slot is not None) != sorted(self.budget.running_slots):
            return "running sequences and running slots differ"
        return self.budget.check_integrity()

    def _admit(self) -> None:
        """In order of arrival, as long as the first one in the queue fits."""
        while self.waiting and self._place(self.waiting[0]):
            self.running.append(self.waiting.popleft())

    def _place(self, sequence: Sequence) -> bool:
        pages = self._pages(sequence)
        parked = self.budget.unpark(sequence.session_id, pages, sequence.tokens)
        if parked is not None:
            sequence.slot, sequence.computed = parked.slot, len(parked.tokens)
        else:
            sequence.slot, sequence.computed = self.budget.reserve(pages), 0
        if not sequence.generated:  # one that starts over in mid-answer keeps what was true when it first started
            sequence.cached = sequence.computed
        return sequence.slot is not None

    def _pages(self, sequence: Sequence) -> int:
        """Pages of the longest that it can become."""
        return pages_for(min(sequence.prompt_length + sequence.max_tokens, self.config.context))

    def _decode_rows(self) -> list[Row]:
        """A share of the sequences that wait for a decode step, so that every stage has a micro-batch to work on."""
        ready = [s for s in self.running if s.decodes and s.finish is None]
        if not ready:
            return []
        decoding = sum(1 for s in self.running if s.generated and s.finish is None)
        share = -(-decoding // self.config.stages)
        return [self._row(s, 1, prefill=False) for s in ready[:share]]

    def _prefill_rows(self) -> list[Row]:
        rows: list[Row] = []
        left = self.config.prefill_chunk
        for sequence in self.running:
            if left and sequence.pending and not sequence.decodes:
                count = min(left, sequence.pending)
                rows.append(self._row(sequence, count, prefill=True))
                left -= count
        return rows

    def _row(self, sequence: Sequence, count: int, *, prefill: bool) -> Row:
        if sequence.slot is None:
            raise ValueError("a sequence without a slot cannot be scheduled")
        position = sequence.computed
        sequence.computed += count
        return Row(sequence, sequence.slot, position, count, samples=sequence.pending == 0, prefill=prefill)

    def _emit(self, rows: list[Row]) -> Batch:
        self._step += 1
        release, self.budget.releases = tuple(self.budget.releases), []
        token_ids = tuple(token for row in rows for token in row.token_ids)
        batch = Batch(self._step, release, tuple(rows), token_ids)
        self._under_way.append(batch)
        return batch

    def _due(self, step: int, slots: list[int]) -> Batch:
        """Takes the oldest micro-batch off the list, if this can be its result."""
        if not self._under_way:
            raise PipelineUnavailable(f"A stage sent a result of step {step}; none is due.")
        batch = self._under_way[0]
        asked = [row.slot for row in batch.rows if row.samples]
        if (step, slots) != (batch.step, asked):
            raise PipelineUnavailable(f"A stage sent a wrong result of step {step}; that of {batch.step} is due.")
        return self._under_way.popleft()

    def _accept(self, sequence: Sequence, token: int) -> bool:
        """Whether the token becomes part of its sequence's answer."""
        if sequence.slot is None or sequence.finish is not None:
            return False
        sequence.setbacks = 0
        if token in sequence.eos_token_ids:
            sequence.finish = Finish.EOS
            return False
        sequence.tokens.append(token)
        if sequence.generated == sequence.max_tokens:
            sequence.finish = Finish.LENGTH
        elif len(sequence.tokens) == self.config.context:
            sequence.finish = Finish.CONTEXT
        return True
