"""A micro-batch as arrays: what a stage computes in one step. Knows nothing of protobuf or the network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose a token; ranges as in trireme_kernels.sample."""

    temperature: float
    top_k: int
    top_p: float
    seed: int


@dataclass(frozen=True, slots=True)
class Row:
    """`count` tokens of one sequence from `position` on, the last `drafts` of them guesses; `sampling`: sample the
    token that follows the last of them, and those that follow the `drafts` before it. `follows`: its one token is the
    last one that this step sampled for the slot; 0: it was given.
    """

    slot: int
    position: int
    count: int
    sampling: SamplingParams | None = None
    drafts: int = 0
    follows: int = 0

    @property
    def uncertain(self) -> int:
        """Tokens at its end that the next row may leave out."""
        return 1 if self.follows else self.drafts


@dataclass(frozen=True, slots=True)
class Share:
    """`slot` gives up what it holds and gets the first `pages` pages of `from_slot`, which are full, to read."""

    slot: int
    from_slot: int
    pages: int


@dataclass(frozen=True, slots=True)
class Restore:
    """`slot` gets the first `pages` pages of a fetch, behind the `first_page` full ones that it holds."""

    slot: int
    fetch: int
    first_page: int
    pages: int


@dataclass(frozen=True, slots=True)
class Save:
    """Pages `first_page`, `first_page` + 1, ... of `slot` go to the page store, under these keys."""

    slot: int
    first_page: int
    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Sampled:
    """The token chosen for `position` of a slot."""

    slot: int
    position: int
    token_id: int


@dataclass(frozen=True)
class Batch:
    """Rows of several sequences, their tokens concatenated in the order of the rows."""

    rows: tuple[Row, ...]

    @property
    def tokens(self) -> int:
        return sum(row.count for row in self.rows)

    def slots(self) -> NDArray[np.int32]:
        """Slot of each token, int32 [tokens]."""
        return np.repeat(np.array([r.slot for r in self.rows], np.int32), [r.count for r in self.rows])

    def positions(self) -> NDArray[np.int32]:
        """Position of each token in its sequence, int32 [tokens]."""
        parts = [np.arange(r.position, r.position + r.count, dtype=np.int32) for r in self.rows]
        return np.concatenate(parts) if parts else np.zeros(0, np.int32)

    def sampled(self) -> list[tuple[int, Row, int]]:
        """(index of a token in the batch, its row, position of the token to sample after it), for each to sample."""
        found, end = [], 0
        for row in self.rows:
            end += row.count
            if row.sampling is not None:
                after = row.position + row.count
                found += [(end - back - 1, row, after - back) for back in range(row.drafts, -1, -1)]
        return found
