"""What sampled tokens come to: which of them are part of the answer, and where it ends."""

from __future__ import annotations

from trireme_coordinator.scheduler.config import SchedulerConfig
from trireme_coordinator.scheduler.lanes import Lanes
from trireme_coordinator.scheduler.sequence import Finish, Row, Sequence


class Answers:
    """Puts tokens behind those that their sequences have."""

    def __init__(self, config: SchedulerConfig, lanes: Lanes) -> None:
        self._config, self._lanes = config, lanes

    def accept(self, row: Row, tokens: list[int]) -> list[int]:
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
            self._lanes.move(sequence)
        return taken

    def finish(self, sequence: Sequence, reason: Finish, unread: int = 0) -> None:
        """Ends an answer from outside the model: a stop text was found, before the last `unread` tokens."""
        sequence.finish = reason
        if unread:
            del sequence.tokens[-unread:]
            sequence.computed = min(sequence.computed, len(sequence.tokens) - 1)
        self._lanes.rest(sequence)

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
        elif len(sequence.tokens) == self._config.context:
            self.finish(sequence, Finish.CONTEXT)
        return True
