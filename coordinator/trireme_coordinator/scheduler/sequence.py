"""One request as the scheduler sees it, and the micro-batches that it is cut into.

    tokens     [ p0 p1 p2 p3 | g0 g1 ]   prompt, then what was generated
    computed     ^^^^^^^^^^^^^^^^        positions whose keys and values the stages hold, or will hold
                                         once the frames that are under way have passed

A sequence whose `computed` is one short of its tokens waits for its next decode step. One whose tokens are all computed
has its next token under way, and is not scheduled again until that is there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from trireme_coordinator.scheduler.budget import Share
from trireme_coordinator.scheduler.drafts import Drafts


class Finish(Enum):
    """Why an answer ended."""

    EOS = "eos"
    STOP = "stop"
    LENGTH = "length"
    CONTEXT = "context"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose a token; all resolved, nothing left to a default."""

    temperature: float
    top_k: int
    top_p: float
    seed: int


@dataclass(frozen=True, slots=True)
class Restored:
    """What came of looking for pages in the page store."""

    found: int
    """Pages that all stages could have had."""
    pages: int
    """Pages that were restored; the others were computed, because that was quicker, or reading took too long."""
    bytes: int
    """Read by all stages together."""
    seconds: float
    """From the question to the answer."""
    reading_s: float = 0.0
    """Of these, reading what was found."""


@dataclass(eq=False, slots=True)
class Sequence:
    """A request's tokens and progress. The scheduler alone changes the fields below the line."""

    tokens: list[int]
    """Prompt (with the session's earlier tokens) and, after it, the generated tokens."""
    sampling: SamplingParams
    max_tokens: int
    """Most tokens to generate, at least 1."""
    eos_token_ids: frozenset[int] = frozenset()
    session_id: str = ""
    tenant: str = ""
    """Whose request it is: tenants get equal shares, and see nothing of each other."""
    priority: int = 0
    """Higher ones of a tenant go first, and take the room of lower ones where there is none."""
    answered: int = 0
    """How many of the tokens given are of the answer: one that was interrupted goes on."""
    # ------------------------------------------------------------------
    prompt_length: int = field(init=False)
    cached: int = field(default=0, init=False)
    """Prompt tokens whose keys and values were still held when the request was admitted."""
    computed: int = field(default=0, init=False)
    fed: int = field(default=0, init=False)
    """Positions that the stages have pages for: more than are computed when guesses went with the last row."""
    drafts: Drafts = field(default_factory=Drafts, init=False)
    drafted: int = field(default=0, init=False)
    """Tokens that were guessed."""
    accepted: int = field(default=0, init=False)
    """Guesses that were right."""
    slot: int | None = field(default=None, init=False)
    arrival: int = field(default=0, init=False)
    """Its number in the order of arrival, which it keeps when it has to start over."""
    admissions: int = field(default=0, init=False)
    """Times that it was given a slot: what was sent before the last time does not count any more."""
    finish: Finish | None = field(default=None, init=False)
    page_keys: list[bytes] = field(default_factory=list, init=False)
    """Of its first pages, as far as they were needed."""
    saved: int = field(default=0, init=False)
    """Pages that the stages have been told to keep in the page store, or that came from there."""
    restored: Restored | None = field(default=None, init=False)
    """How its last admission found its pages; None where it did not look for any."""
    placed_ns: int = field(default=0, init=False)
    """When it was given a slot, by the clock that `schedule` is told; the last time."""
    setbacks: int = field(default=0, init=False)
    """Times that it had to start over since its last token."""
    trace_id: str = field(default="", init=False)
    """Of its request, for log lines."""
    told_ns: int = field(default=0, init=False)
    """When its last token came, for whoever measures; 0: none has."""

    def __post_init__(self) -> None:
        self.prompt_length = len(self.tokens) - self.answered
        if self.prompt_length < 1 or self.max_tokens < 1:
            raise ValueError("a sequence has at least one token to begin with, and at least one to generate")

    @property
    def generated(self) -> int:
        return len(self.tokens) - self.prompt_length

    @property
    def pending(self) -> int:
        """Tokens still to be fed."""
        return len(self.tokens) - self.computed

    @property
    def decodes(self) -> bool:
        """Whether its next row is a decode step: one token, after the first one was generated."""
        return self.pending == 1 and self.generated > 0


@dataclass(frozen=True, slots=True)
class Row:
    """`count` tokens of a sequence from `position` on; `samples`: the last of them asks for the next token, and, where
    guesses (`drafts`) are the last ones, so does every token from the one before them on.
    """

    sequence: Sequence
    slot: int
    position: int
    count: int
    samples: bool
    prefill: bool
    admission: int
    """Which of the sequence's admissions it belongs to."""
    drafts: tuple[int, ...] = ()
    follows: int = 0
    """The step under way that samples its one token, which is not known yet; 0: it is known."""

    @property
    def sampled(self) -> int:
        """Tokens that come back for it."""
        return 1 + len(self.drafts) if self.samples else 0

    @property
    def certain(self) -> int:
        """Tokens of the sequence, from its beginning, that are computed with this row and are no guesses."""
        return self.position + self.count - len(self.drafts) - bool(self.follows)

    @property
    def current(self) -> bool:
        """Whether its sequence still runs on what this row has fed."""
        return self.sequence.slot is not None and self.sequence.admissions == self.admission

    @property
    def token_ids(self) -> list[int]:
        return [0] if self.follows else [*self.sequence.tokens[self.position : self.certain], *self.drafts]


@dataclass(frozen=True, slots=True)
class Restore:
    """`slot` gets the first `pages` pages of a fetch, behind the `first_page` full ones that it holds."""

    slot: int
    fetch: int
    first_page: int
    pages: int


@dataclass(frozen=True, slots=True)
class Save:
    """Pages `first_page`, `first_page` + 1, ... of `slot` are full for good; `keys` are their names."""

    slot: int
    first_page: int
    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """One micro-batch. `token_ids` are those of the rows, concatenated; `share`, `release`, `restore`, `forget`: what
    is to be done with pages before, in this order; `save`: and after.
    """

    step: int
    share: tuple[Share, ...]
    release: tuple[int, ...]
    rows: tuple[Row, ...]
    token_ids: tuple[int, ...]
    restore: tuple[Restore, ...] = ()
    forget: tuple[int, ...] = ()
    save: tuple[Save, ...] = ()

    @property
    def decodes(self) -> bool:
        """Whether decode rows are in it: they come first."""
        return bool(self.rows) and not self.rows[0].prefill
