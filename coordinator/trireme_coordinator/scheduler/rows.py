"""What goes into the next micro-batch: decode rows, prefill chunks within a token budget, the step ahead.

Decode rows come first, then prefill chunks, in fair turns (`fair.py`). A sequence has one decode step under way at
most, or two where the second follows the first; chunks of one sequence may follow each other without waiting.
"""

from __future__ import annotations

from collections.abc import Sequence as Items

from trireme_coordinator.scheduler.admission import Admission
from trireme_coordinator.scheduler.budget import PAGE_TOKENS, Budget
from trireme_coordinator.scheduler.config import SchedulerConfig
from trireme_coordinator.scheduler.cost import StepCost
from trireme_coordinator.scheduler.lanes import Lanes
from trireme_coordinator.scheduler.restoring import Restoring
from trireme_coordinator.scheduler.sequence import Batch, Row, Sequence
from trireme_proto.limits import LIMITS

_GAP = 0.01
"""Of a round; a smaller one is not worth that whoever comes meanwhile waits for a step more."""


class Rows:
    """Makes rows of those who run. What a row feeds counts as computed from then on."""

    def __init__(
        self,
        config: SchedulerConfig,
        budget: Budget,
        cost: StepCost,
        lanes: Lanes,
        restoring: Restoring,
        admission: Admission,
    ) -> None:
        self._config, self._budget, self._cost, self._lanes = config, budget, cost, lanes
        self._restoring, self._admission = restoring, admission

    def decode(self, decode_batches: int) -> list[Row]:
        """Everybody who is ready, where a prefill chunk goes with them, so that nobody waits for a second one.

        Else a share, so that every stage has a micro-batch to work on; and none while enough micro-batches are under
        way, so that small ones, which cost almost as much as large ones, grow together. `decode_batches`: those
        that are under way.
        """
        count = len(self._lanes.ready)
        if not self._lanes.prefilling:
            share = self._cost.rows(len(self._lanes.decoding))
            enough = -(-len(self._lanes.decoding) // share)
            count = min(count, share) if decode_batches < enough else 0
        guesses = self._config.prefill_chunk if self._config.speculation and not self._lanes.prefilling else 0
        price, rows = self._cost.price(count), []
        for _ in range(count):
            sequence, _ = self._lanes.ready.popitem(last=False)
            drafts = self._drafts(sequence, guesses, price)
            guesses -= len(drafts)
            rows.append(self._row(sequence, 1, drafts, prefill=False))
        return rows

    def prefill(self) -> list[Row]:
        """The token budget, to the tenant that has been served least, and there to one request after the other."""
        rows: list[Row] = []
        left, again = self._config.prefill_chunk, []
        while left and (sequence := self._lanes.prefilling.first()) is not None:
            self._lanes.shares.chosen(sequence.tenant)
            self._lanes.prefilling.remove(sequence)
            self._catch_up(sequence)
            count = self._chunk(sequence, left)
            rows.append(self._row(sequence, count, prefill=True))
            left -= count
            if sequence.pending:
                again.append(sequence)
        for sequence in again:
            self._lanes.move(sequence)
        return rows

    def ahead(self, under_way: Items[Batch]) -> list[Row]:
        """The decode step after the one that is under way, for the same sequences, if they are all that there are: the
        stages take the tokens from each other, and the way to here and back costs no time between two steps.
        """
        if not self._config.ahead or len(under_way) != 1 or self._admission.waiting or self._cost.gap < _GAP:
            return []
        rows = under_way[0].rows
        if not rows or len(rows) != len(self._admission.running) or not all(self._goes_on(row) for row in rows):
            return []
        if self._config.speculation:
            willing = [row.sequence.drafts.stands_back(self._cost.gap) for row in rows]  # each of them counts its turns
            if not all(willing):
                return []
        return [self._row(row.sequence, 1, prefill=False, follows=under_way[0].step) for row in rows]

    def _drafts(self, sequence: Sequence, most: int, price: float) -> tuple[int, ...]:
        """Guesses that go with its decode row; never so many that they could outgrow what it has reserved."""
        if not most or not sequence.drafts.pays(price):
            return ()
        room = self._config.longest(sequence) - len(sequence.tokens) - 1
        return sequence.drafts.guess(sequence.tokens, min(most, room, LIMITS.draft_tokens), price)

    def _catch_up(self, sequence: Sequence) -> None:
        """Takes over what another one with the same beginning has computed meanwhile."""
        if sequence.slot is None or sequence.computed % PAGE_TOKENS or self._restoring.restores(sequence):
            return
        computed = self._budget.share_more(sequence.slot, sequence.tenant, sequence.tokens) * PAGE_TOKENS
        if computed > sequence.computed:
            sequence.cached += computed - sequence.computed if sequence.generated == sequence.answered else 0
            sequence.computed = sequence.fed = computed
            sequence.saved = max(sequence.saved, computed // PAGE_TOKENS)

    def _chunk(self, sequence: Sequence, most: int) -> int:
        """Tokens to feed of it; to the end of a page where it goes on, so that others can share all of it."""
        end = sequence.computed + min(most, sequence.pending)
        whole = end - end % PAGE_TOKENS
        if end < len(sequence.tokens) and self._config.prefill_chunk >= PAGE_TOKENS and whole > sequence.computed:
            end = whole
        return end - sequence.computed

    def _goes_on(self, row: Row) -> bool:
        """Whether one token of its sequence is under way, and will not be the last, as far as can be told."""
        s = row.sequence
        under_way = row.current and s.finish is None and row.samples and not row.drafts and s.pending == 0
        return under_way and len(s.tokens) + 1 < self._config.longest(s)

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
        self._lanes.shares.charge(sequence.tenant, count + len(drafts))
        if not prefill:
            self._admission.shares.charge(sequence.tenant, count)
        total = count + len(drafts)
        return Row(sequence, sequence.slot, position, total, samples, prefill, sequence.admissions, drafts, follows)
