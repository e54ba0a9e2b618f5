"""Whatever happens in whatever order: the books add up, every sequence gets its tokens, nobody waits for ever.

A state machine drives the scheduler against stages that keep real books (tests/support/fake_stages.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.support.fake_stages import EOS, VOCABULARY, FakePipeline, next_token

from trireme_coordinator.scheduler import (
    Batch,
    Finish,
    PageKeys,
    Restored,
    SamplingParams,
    Scheduler,
    SchedulerConfig,
    Sequence,
    Wanted,
)
from trireme_coordinator.scheduler.budget import pages_for
from trireme_proto.errors import Overloaded, PipelineUnavailable

CONTEXT = 70
SESSIONS = ("", "a", "b", "c")
TENANTS = ("x", "y")


@dataclass
class Request:
    """A sequence, what it must become, and what has been told of it."""

    sequence: Sequence
    answer: list[int]
    reason: Finish
    stop_after: int | None
    told: list[int] = field(default_factory=list)


def expected(prompt: list[int], seed: int, max_tokens: int, stop_after: int | None) -> tuple[list[int], Finish]:
    """The one answer that the request can have."""
    tokens = list(prompt)
    while True:
        token = next_token(tokens, seed)
        if token == EOS:
            return tokens[len(prompt) :], Finish.EOS
        tokens.append(token)
        generated = len(tokens) - len(prompt)
        if generated == max_tokens:
            return tokens[len(prompt) :], Finish.LENGTH
        if len(tokens) == CONTEXT:
            return tokens[len(prompt) :], Finish.CONTEXT
        if generated == stop_after:
            return tokens[len(prompt) :], Finish.STOP


class SchedulerMachine(RuleBasedStateMachine):
    @initialize(
        stages=st.integers(1, 4),
        slots=st.integers(1, 8),
        extra_pages=st.integers(0, 12),
        chunk=st.integers(1, 40),
        queue=st.integers(1, 8),
        sharing=st.booleans(),
        speculation=st.booleans(),
        ahead=st.booleans(),
        stored=st.booleans(),
    )
    def begin(
        self,
        stages: int,
        slots: int,
        extra_pages: int,
        chunk: int,
        queue: int,
        sharing: bool,
        speculation: bool,
        ahead: bool,
        stored: bool,
    ) -> None:
        pages = pages_for(CONTEXT) + extra_pages
        self.config = SchedulerConfig(stages, slots, pages, CONTEXT, chunk, queue, sharing, speculation, ahead)
        self.scheduler = Scheduler(self.config, PageKeys(b"secret") if stored else None)
        self.scheduler.cost.gap = 0.5  # messages take as long as computing: going ahead pays
        self.wanted: list[Wanted] = []
        self.fetches = 0
        self.pipeline = FakePipeline(self.config)
        self.live: list[Request] = []
        self.logs: dict[str, list[int]] = {}

    # ---------------------------------------------------------------- what can happen

    @rule(
        session=st.sampled_from(SESSIONS),
        length=st.sampled_from([0, 1, 2, 15, 16, 17, 31, 45, 60, CONTEXT - 1]),
        change=st.none() | st.integers(0, CONTEXT),
        max_tokens=st.sampled_from([1, 2, 7, 40, 1000]),
        stop_after=st.none() | st.integers(1, 10),
        seed=st.integers(0, 2**64 - 1),
        text=st.integers(0, 2),
        tenant=st.sampled_from(TENANTS),
        priority=st.integers(0, 2),
    )
    def submit(
        self,
        session: str,
        length: int,
        change: int | None,
        max_tokens: int,
        stop_after: int | None,
        seed: int,
        text: int = 0,
        tenant: str = "x",
        priority: int = 0,
    ) -> None:
        """A prompt of `length` tokens of one of three texts; on a session, which is a tenant's own, after what it
        holds, in which one token may be changed.
        """
        tenant = TENANTS[SESSIONS.index(session) % 2] if session else tenant
        log = list(self.logs.get(session, [])) if session else []
        if change is not None and change < len(log):
            log[change] = (log[change] + 1) % VOCABULARY
        tokens = log + [(text + i * i) % VOCABULARY for i in range(length)]
        if not 0 < len(tokens) < CONTEXT:
            tokens = [seed % VOCABULARY]
        how = SamplingParams(0.0, 0, 1.0, seed)
        sequence = Sequence(list(tokens), how, max_tokens, frozenset({EOS}), session, tenant, priority)
        if self.scheduler.waiting.count(tenant) >= self.config.queue:
            with pytest.raises(Overloaded):
                self.scheduler.submit(sequence)
            return
        self.scheduler.submit(sequence)
        self.live.append(Request(sequence, *expected(tokens, seed, max_tokens, stop_after), stop_after))

    @rule(how_many=st.integers(2, 8), seed=st.integers(0, 2**32))
    def crowd(self, how_many: int, seed: int) -> None:
        """Short prompts with answers that may become long."""
        for i in range(how_many):
            self.submit(SESSIONS[i % len(SESSIONS)], 1, None, 1000, None, seed + i, priority=i % 3)

    @rule()
    def fill(self) -> None:
        while self._schedule():
            pass

    @rule(stage=st.integers(0, 3))
    def compute(self, stage: int) -> None:
        self.pipeline.advance(stage % self.config.stages)

    @rule()
    def complete(self) -> None:
        if (result := self.pipeline.result()) is not None:
            self._take(*result)

    @rule(rounds=st.integers(1, 30))
    def work(self, rounds: int) -> None:
        """The pipeline at its usual pace: always full, results as they come."""
        for _ in range(rounds):
            self.fill()
            for stage in range(self.config.stages):
                self.compute(stage)
            self.complete()

    @rule(which=st.integers(0, 20), fetches=st.booleans(), most=st.integers(0, 4))
    def answer(self, which: int, fetches: bool, most: int) -> None:
        """One of those who wait for pages gets some, or none, or is not there any more."""
        if not self.wanted:
            return
        wanted, pages = self.wanted.pop(which % len(self.wanted)), 0
        self.fetches += fetches
        if fetches and wanted.current:
            pages = min(most, self.pipeline.fetch(self.fetches, wanted.keys))
        self.scheduler.fetched(wanted, self.fetches if fetches else 0, pages, Restored(0, pages, 0, 0.0))

    @rule(which=st.integers(0, 20))
    def drop(self, which: int) -> None:
        if self.live:
            request = self.live.pop(which % len(self.live))
            self.scheduler.drop(request.sequence)
            self._log(request)

    @rule(session=st.sampled_from(SESSIONS[1:]))
    def forget(self, session: str) -> None:
        self.scheduler.budget.evict(session)
        self.logs.pop(session, None)

    @rule()
    def lose_the_pipeline(self) -> None:
        self.scheduler.restart()
        self.pipeline.restart()

    @precondition(lambda self: self._under_way())
    @rule(step=st.integers(-2, 2), slot=st.integers(0, 3))
    def wrong_result(self, step: int, slot: int) -> None:
        batch = self._under_way()[0]
        asked = [row.slot for row in batch.rows for _ in range(row.sampled)]
        if step == 0 and asked == [slot]:
            return
        with pytest.raises(PipelineUnavailable):
            self.scheduler.complete(batch.step + step, [(slot, 1)])

    # ---------------------------------------------------------------- what must always hold

    @invariant()
    def books_add_up(self) -> None:
        assert self.scheduler.check_integrity() == ""
        assert len(self._under_way()) <= self.config.stages + 1
        assert self.scheduler.budget.pages_reserved <= self.config.pages

    @invariant()
    def a_stage_that_has_seen_all_frames_agrees(self) -> None:
        first, budget = self.pipeline.stages[0], self.scheduler.budget
        while self.pipeline.advance(0):
            pass
        if self.pipeline.waits():  # it has not seen all frames
            return
        held = {s.slot: s.tokens[: s.computed] for s in self.scheduler.running}
        held |= {parked.slot: list(parked.tokens) for parked in budget._parked.values()}
        lengths = {s.slot: s.fed for s in self.scheduler.running}
        lengths |= {parked.slot: parked.held for parked in budget._parked.values()}
        untold = {*budget.releases, *(share.slot for share in budget.shares)}
        untold |= {restore.slot for restore in self.scheduler._restoring._restores.values()}
        for slot in set(range(self.config.slots)) - untold:
            assert first.held.get(slot, [])[: len(held.get(slot, []))] == held.get(slot, [])
            assert first.kv.lengths[slot] == lengths.get(slot, 0) == len(first.held.get(slot, []))
        if not untold:
            assert first.kv.pages_used <= budget.pages_reserved

    @invariant()
    def tenants_share_nothing(self) -> None:
        tenants = {s.slot: s.tenant for s in self.scheduler.running}
        for session, parked in self.scheduler.budget._parked.items():
            tenants[parked.slot] = TENANTS[SESSIONS.index(session) % 2]
        first, owners = self.pipeline.stages[0], {}
        for slot, tenant in tenants.items():
            for page in first.kv.table[slot, : pages_for(int(first.kv.lengths[slot]))].tolist():
                assert owners.setdefault(page, tenant) == tenant
                assert self.config.sharing or first.kv._owners[page] == 1

    @invariant()
    def nothing_wrong_was_told(self) -> None:
        for request in self.live:
            assert request.told == request.answer[: len(request.told)]
            assert request.sequence.finish is None

    def teardown(self) -> None:
        """Everybody who is left gets the whole answer, in a bounded number of steps."""
        if not hasattr(self, "scheduler"):
            return
        self._drain(50 + 20 * sum(CONTEXT for _ in self.live))
        assert self.live == []
        for session in SESSIONS:
            self.scheduler.budget.evict(session)
        self._drain(50)
        assert [stage.kv.pages_used for stage in self.pipeline.stages] == [0] * self.config.stages

    # ---------------------------------------------------------------- helpers

    def _schedule(self) -> bool:
        under_way = self._under_way()
        batch = self.scheduler.schedule()
        self.wanted += self.scheduler.wanted()
        if batch is None:
            return False
        assert len(under_way) <= self.config.stages
        assert len({row.slot for row in batch.rows}) == len(batch.rows)
        assert sum(row.count for row in batch.rows if row.prefill) <= self.config.prefill_chunk
        assert sum(len(row.drafts) for row in batch.rows) <= self.config.prefill_chunk
        assert all(
            row.count == 1 + len(row.drafts) and row.position >= row.sequence.prompt_length
            for row in batch.rows
            if not row.prefill
        )
        awaited = {row.sequence for b in under_way for row in b.rows if row.samples and row.sequence.slot is not None}
        scheduled = {row.sequence for row in batch.rows if not row.follows}
        assert not awaited & scheduled, "a sequence whose token is awaited was scheduled"
        followed = {row.sequence: row.position + row.count for b in under_way for row in b.rows if row.current}
        assert all(followed[row.sequence] == row.position for row in batch.rows if row.follows)
        self.pipeline.send(batch)
        return True

    def _drain(self, rounds: int) -> None:
        while not self.scheduler.idle():
            rounds -= 1
            assert rounds, "somebody waits for ever"
            self.answer(0, fetches=True, most=4)
            self.work(1)

    def _under_way(self) -> list[Batch]:
        return list(self.scheduler._under_way)

    def _take(self, step: int, tokens: list[tuple[int, int]]) -> None:
        batch, accepted = self.scheduler.complete(step, tokens)
        assert batch is self.pipeline.sent[step - 1]
        by_sequence = {request.sequence: request for request in self.live}
        for sequence, found in accepted.items():
            request = by_sequence[sequence]  # a dropped one is told nothing
            for n, token in enumerate(found, 1):
                request.told.append(token)
                last = n == len(found) and sequence.finish is not None  # it would have ended anyway
                if len(request.told) == request.stop_after and not last:
                    self.scheduler.finish(sequence, Finish.STOP, unread=len(found) - n)
                    break
        for row in batch.rows:
            if row.sequence.finish is not None and row.sequence in by_sequence:
                self._end(by_sequence[row.sequence])

    def _end(self, request: Request) -> None:
        assert (request.told, request.sequence.finish) == (request.answer, request.reason)
        assert request.sequence.cached < request.sequence.prompt_length
        self.live.remove(request)
        self.scheduler.drop(request.sequence)
        self._log(request)

    def _log(self, request: Request) -> None:
        sequence = request.sequence
        if sequence.session_id:
            self.logs[sequence.session_id] = sequence.tokens[: sequence.prompt_length] + request.told


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
