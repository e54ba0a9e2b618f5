"""Admission, micro-batches and results: continuous batching over a pipeline of stages.

Decode rows come first, then prefill chunks within a token budget, in fair turns (`fair.py`). A sequence has one decode
step under way at most; prefill chunks of one sequence may follow each other into the pipeline without waiting, because
frames keep their order. So do releases: a slot that is freed here can be given to another sequence at once, the stages
will have freed it when its first row arrives.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Sequence as Items
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from trireme_coordinator.scheduler.budget import PAGE_TOKENS, Budget, pages_for
from trireme_coordinator.scheduler.cost import StepCost
from trireme_coordinator.scheduler.fair import FairQueue, Shares
from trireme_coordinator.scheduler.page_keys import PageKeys
from trireme_coordinator.scheduler.restoring import Restoring, Wanted
from trireme_coordinator.scheduler.sequence import Batch, Finish, Restored, Row, Sequence
from trireme_proto.errors import Overloaded, PipelineUnavailable
from trireme_proto.limits import LIMITS

Key = TypeVar("Key")
_EARLY = 0.25
"""Of a chunk's time: how much the first stage has left to do when it is sent the next one."""
_GAP = 0.01
"""Of a round; a smaller one is not worth that whoever comes meanwhile waits for a step more."""


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
    """Most sequences of one tenant waiting for a slot."""
    sharing: bool = True
    """Whether sequences of a tenant that begin alike share their pages."""
    speculation: bool = True
    """Whether next tokens are guessed and verified where that pays."""
    ahead: bool = False
    """Whether the next decode step is sent before this one's tokens are known, where that pays: stages must be able to
    take the token from each other."""


class Scheduler:
    """Holds all sequences of a pipeline. Every method is quick however many there are, and never waits.

    A running sequence is in one of three places: in `_prefilling` as long as it has tokens to feed before its next
    decode step, in `_ready` when it waits for that step, in neither when its token is under way.
    """

    def __init__(self, config: SchedulerConfig, keys: PageKeys | None = None) -> None:
        """`keys`: names pages for the page store; None: there is none."""
        self.config = config
        self._restoring = Restoring(keys)
        self.budget = Budget(config.slots, config.pages, sharing=config.sharing)
        self.cost = StepCost(config.stages)
        self.running: dict[Sequence, None] = {}
        self._admission, self._compute = Shares(), Shares()
        self.waiting = FairQueue(self._admission)
        self._prefilling = FairQueue(self._compute)
        self._ready: OrderedDict[Sequence, None] = OrderedDict()
        self._decoding: set[Sequence] = set()
        self._priorities: Counter[int] = Counter()  # of the running ones
        self._tenants: Counter[str] = Counter()  # sequences of each, waiting or running
        self._arrivals = self._turns = self._step = 0
        self._under_way: deque[Batch] = deque()
        self._decode_batches = 0  # of those under way
        self._first_free = 0  # when the first stage will have worked off what it was sent, about
        self._blocked: tuple[Sequence, int] | None = None  # who had no room, and `budget.freed` at that time

    def submit(self, sequence: Sequence) -> None:
        """Puts a sequence into the queue. Overloaded when its tenant's is full; ValueError where it could never run."""
        if len(sequence.tokens) >= self.config.context or self._pages(sequence) > self.config.pages:
            raise ValueError(f"a prompt of {len(sequence.tokens)} tokens leaves no room for an answer")
        if (waiting := self.waiting.count(sequence.tenant)) >= self.config.queue:
            raise Overloaded(f"{waiting} requests are waiting already; try again later.", retry_after=1.0)
        if not self._tenants[sequence.tenant]:
            self._admission.enter(sequence.tenant)
            self._compute.enter(sequence.tenant)
        self._tenants[sequence.tenant] += 1
        self._arrivals += 1
        sequence.arrival = self._arrivals
        self.waiting.add(sequence, sequence.arrival)

    def schedule(self, now_ns: int | None = None) -> Batch | None:
        """The next micro-batch; None where there is nothing to do or the pipeline is full. `now_ns`: any clock's time,
        by which prefill chunks are paced (`wait_ns`); without it they are not.
        """
        if len(self._under_way) > self.config.stages:
            return None
        self._admit(now_ns or 0)
        if now_ns is not None and self.wait_ns(now_ns):
            return None
        rows = self._decode_rows()
        rows += self._prefill_rows()
        rows = rows or self._rows_ahead()
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
        if not (self._prefilling and self._decoding and self._under_way):
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
        return batch, {row.sequence: taken for row, found in sampled if (taken := self._accept(row, found))}

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
            self._move(sequence)

    def learn(self, batch: Batch, compute_ns: Items[int], round_ns: int) -> None:
        """A micro-batch took each stage so long to compute, and so long from being sent to its result, waiting times
        not counted.
        """
        self.cost.learn(len(batch.token_ids), compute_ns, round_ns)

    def finish(self, sequence: Sequence, reason: Finish, unread: int = 0) -> None:
        """Ends an answer from outside the model: a stop text was found, before the last `unread` tokens."""
        sequence.finish = reason
        if unread:
            del sequence.tokens[-unread:]
            sequence.computed = min(sequence.computed, len(sequence.tokens) - 1)
        self._rest(sequence)

    def drop(self, sequence: Sequence) -> None:
        """Forgets a sequence. One that finished has its slot parked for its session; what a caller gave up is freed on
        every stage by the next frame.
        """
        if sequence.slot is not None:
            if sequence.session_id and sequence.finish is not None:
                held = tuple(sequence.tokens[: sequence.computed])
                self.budget.park(sequence.slot, sequence.session_id, held, sequence.fed)
            else:
                self.budget.free(sequence.slot)
            self._leave(sequence)
        elif not self.waiting.remove(sequence):
            return
        _count_down(self._tenants, sequence.tenant)

    def restart(self) -> None:
        """The pipeline was rebuilt and holds nothing: every running sequence starts over from its tokens, in the old
        order.
        """
        for sequence in list(self.running):
            self._leave(sequence)
            sequence.setbacks += 1
            self.waiting.add(sequence, sequence.arrival)
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

    # ---------------------------------------------------------------- who runs

    def _admit(self, now_ns: int) -> None:
        """Whose turn it is comes first, as long as that one fits."""
        while (first := self.waiting.first()) is not None and self._place(first):
            self._admission.chosen(first.tenant)
            self._admission.charge(first.tenant, first.pending)
            self.waiting.remove(first)
            self.running[first] = None
            first.placed_ns = now_ns
            self._priorities[first.priority] += 1
            if not self._restoring.want(first):
                self._move(first)

    def _place(self, sequence: Sequence) -> bool:
        """Gives it a slot, taken from lower priorities if need be."""
        if self._blocked == (sequence, self.budget.freed):
            return False
        if not self._find_room(sequence):
            victims = self._victims(sequence)
            for victim in victims:
                self._preempt(victim)
            if not victims or not self._find_room(sequence):
                self._blocked = (sequence, self.budget.freed)
                return False
        sequence.admissions += 1
        if (
            sequence.generated == sequence.answered
        ):  # one that starts over in mid-answer keeps what was true when it first started
            sequence.cached = sequence.computed
        return True

    def _find_room(self, sequence: Sequence) -> bool:
        pages = self._pages(sequence)
        parked = self.budget.unpark(sequence.session_id, pages, sequence.tokens)
        if parked is not None:
            sequence.slot, sequence.computed, sequence.fed = parked.slot, len(parked.tokens), parked.held
        elif (found := self.budget.reserve(pages, sequence.tenant, sequence.tokens)) is not None:
            sequence.slot = found[0]
            sequence.computed = sequence.fed = found[1] * PAGE_TOKENS
            self.budget.evict(sequence.session_id)  # what is kept for the session is not what it goes on from
        return sequence.slot is not None

    def _victims(self, sequence: Sequence) -> list[Sequence]:
        """Running ones of its tenant, of the lowest priorities and the youngest first, whose room would do; empty where
        even all of them would not.
        """
        if all(priority >= sequence.priority for priority in self._priorities):
            return []
        lower = [
            s
            for s in self.running
            if s.tenant == sequence.tenant and s.priority < sequence.priority and s.finish is None
        ]
        lower.sort(key=lambda s: (s.priority, -s.arrival))
        found: list[Sequence] = []
        for victim in lower:
            found.append(victim)
            if self.budget.would_fit(self._pages(sequence), [v.slot for v in found if v.slot is not None]):
                return found
        return []

    def _preempt(self, victim: Sequence) -> None:
        """Back into the queue, at its old place. It goes on later from its tokens, which are its whole state."""
        if victim.slot is not None:
            self.budget.free(victim.slot)
        self._leave(victim)
        self.waiting.add(victim, victim.arrival)

    def _pages(self, sequence: Sequence) -> int:
        return pages_for(self._longest(sequence))

    def _longest(self, sequence: Sequence) -> int:
        """Tokens that it can have in the end."""
        return min(sequence.prompt_length + sequence.max_tokens, self.config.context)

    def _leave(self, sequence: Sequence) -> None:
        """It does not run any more, and has nothing computed."""
        self._rest(sequence)
        self._restoring.leave(sequence)
        del self.running[sequence]
        _count_down(self._priorities, sequence.priority)
        sequence.slot, sequence.computed, sequence.fed = None, 0, 0

    def _rest(self, sequence: Sequence) -> None:
        """It gets no more rows."""
        self._prefilling.remove(sequence)
        self._ready.pop(sequence, None)
        self._decoding.discard(sequence)

    def _move(self, sequence: Sequence) -> None:
        """To where its next row will come from."""
        if sequence.decodes:
            self._ready[sequence] = None
            self._decoding.add(sequence)
        elif sequence.pending:
            self._turns += 1
            self._prefilling.add(sequence, self._turns)

    # ---------------------------------------------------------------- what they compute

    def _decode_rows(self) -> list[Row]:
        """Everybody who is ready, where a prefill chunk goes with them, so that nobody waits for a second one.

        Else a share, so that every stage has a micro-batch to work on; and none while enough micro-batches are under
        way, so that small ones, which cost almost as much as large ones, grow together.
        """
        count = len(self._ready)
        if not self._prefilling:
            share = self.cost.rows(len(self._decoding))
            enough = -(-len(self._decoding) // share)
            count = min(count, share) if self._decode_batches < enough else 0
        guesses = self.config.prefill_chunk if self.config.speculation and not self._prefilling else 0
        price, rows = self.cost.price(count), []
        for _ in range(count):
            sequence, _ = self._ready.popitem(last=False)
            drafts = self._drafts(sequence, guesses, price)
            guesses -= len(drafts)
            rows.append(self._row(sequence, 1, drafts, prefill=False))
        return rows

    def _drafts(self, sequence: Sequence, most: int, price: float) -> tuple[int, ...]:
        """Guesses that go with its decode row; never so many that they could outgrow what it has reserved."""
        if not most or not sequence.drafts.pays(price):
            return ()
        room = self._longest(sequence) - len(sequence.tokens) - 1
        return sequence.drafts.guess(sequence.tokens, min(most, room, LIMITS.draft_tokens), price)

    def _prefill_rows(self) -> list[Row]:
        """The token budget, to the tenant that has been served least, and there to one request after the other."""
        rows: list[Row] = []
        left, again = self.config.prefill_chunk, []
        while left and (sequence := self._prefilling.first()) is not None:
            self._compute.chosen(sequence.tenant)
            self._prefilling.remove(sequence)
            self._catch_up(sequence)
            count = self._chunk(sequence, left)
            rows.append(self._row(sequence, count, prefill=True))
            left -= count
            if sequence.pending:
                again.append(sequence)
        for sequence in again:
            self._move(sequence)
        return rows

    def _catch_up(self, sequence: Sequence) -> None:
        """Takes over what another one with the same beginning has computed meanwhile."""
        if sequence.slot is None or sequence.computed % PAGE_TOKENS or self._restoring.restores(sequence):
            return
        computed = self.budget.share_more(sequence.slot, sequence.tenant, sequence.tokens) * PAGE_TOKENS
        if computed > sequence.computed:
            sequence.cached += computed - sequence.computed if sequence.generated == sequence.answered else 0
            sequence.computed = sequence.fed = computed
            sequence.saved = max(sequence.saved, computed // PAGE_TOKENS)

    def _chunk(self, sequence: Sequence, most: int) -> int:
        """Tokens to feed of it; to the end of a page where it goes on, so that others can share all of it."""
        end = sequence.computed + min(most, sequence.pending)
        whole = end - end % PAGE_TOKENS
        if end < len(sequence.tokens) and self.config.prefill_chunk >= PAGE_TOKENS and whole > sequence.computed:
            end = whole
        return end - sequence.computed

    def _rows_ahead(self) -> list[Row]:
        """The decode step after the one that is under way, for the same sequences, if they are all that there are: the
        stages take the tokens from each other, and the way to here and back costs no time between two steps.
        """
        if not self.config.ahead or len(self._under_way) != 1 or self.waiting or self.cost.gap < _GAP:
            return []
        rows = self._under_way[0].rows
        if not rows or len(rows) != len(self.running) or not all(self._goes_on(row) for row in rows):
            return []
        if self.config.speculation:
            willing = [row.sequence.drafts.stands_back(self.cost.gap) for row in rows]  # each of them counts its turns
            if not all(willing):
                return []
        return [self._row(row.sequence, 1, prefill=False, follows=self._under_way[0].step) for row in rows]

    def _goes_on(self, row: Row) -> bool:
        """Whether one token of its sequence is under way, and will not be the last, as far as can be told."""
        s = row.sequence
        under_way = row.current and s.finish is None and row.samples and not row.drafts and s.pending == 0
        return under_way and len(s.tokens) + 1 < self._longest(s)

    def _row(
        self,
        sequence: Sequence,
        count: int,
        drafts: tuple[int, ...] = (),
        *,
        prefill: bool,
        follows: int = 0,
    ) -> Row:
        if sequence.slot is None:
            raise ValueError("a sequence without a slot cannot be scheduled")
        position, samples = sequence.computed, follows > 0 or sequence.pending == count
        sequence.computed += count
        sequence.fed = sequence.computed + len(drafts)
        sequence.drafted += len(drafts)
        self._compute.charge(sequence.tenant, count + len(drafts))
        if not prefill:
            self._admission.charge(sequence.tenant, count)
        total = count + len(drafts)
        return Row(sequence, sequence.slot, position, total, samples, prefill, sequence.admissions, drafts, follows)

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

    # ---------------------------------------------------------------- what comes back

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

    def _accept(self, row: Row, tokens: list[int]) -> list[int]:
        """The tokens that become part of its sequence's answer: the first, and each one after a right guess."""
        sequence = row.sequence
        if not row.current or sequence.finish is not None:
            return []
        sequence.setbacks = 0
        taken: list[int] = []
        while self._append(sequence, tokens[len(taken)]):
            taken.append(tokens[len(taken)])
            if sequence.finish is not None or len(taken) > len(row.drafts) or row.drafts[len(taken) - 1] != taken[-1]:
                break
        if not (row.prefill or row.follows):
            sequence.drafts.gained(max(0, len(taken) - 1))
        if row.drafts:
            self._verify(sequence, row.drafts, taken)
        if sequence.finish is None:
            self._move(sequence)
        return taken

    def _verify(self, sequence: Sequence, drafts: tuple[int, ...], taken: list[int]) -> None:
        """Right guesses are computed already; the last token of an answer never counts as that."""
        right = sum(1 for guess, token in zip(drafts, taken, strict=False) if guess == token)
        sequence.accepted += right
        sequence.drafts.learn(len(drafts), right)
        sequence.computed = max(sequence.computed, min(sequence.computed + right, len(sequence.tokens) - 1))

    def _append(self, sequence: Sequence, token: int) -> bool:
        """Whether the token is part of the answer; sets `finish` where the answer ends with it."""
        if token in sequence.eos_token_ids:
            self.finish(sequence, Finish.EOS)
            return False
        sequence.tokens.append(token)
        if sequence.generated == sequence.max_tokens:
            self.finish(sequence, Finish.LENGTH)
        elif len(sequence.tokens) == self.config.context:
            self.finish(sequence, Finish.CONTEXT)
        return True


def _count_down(counts: Counter[Key], key: Key) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
