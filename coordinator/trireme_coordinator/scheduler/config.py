"""What the pipeline can hold and how it is fed, and how much of it a sequence can come to need."""

from __future__ import annotations

from dataclasses import dataclass

from trireme_coordinator.scheduler.budget import pages_for
from trireme_coordinator.scheduler.sequence import Sequence


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

    def longest(self, sequence: Sequence) -> int:
        """Tokens that it can have in the end."""
        return min(sequence.prompt_length + sequence.max_tokens, self.context)

    def most_pages(self, sequence: Sequence) -> int:
        """Pages that it can need in the end: what it reserves when it is admitted."""
        return pages_for(self.longest(sequence))
