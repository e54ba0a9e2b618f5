"""KV pages of the page store, as the scheduler sees them: what is missing, what was fetched, what is to be kept.

A sequence that is admitted with pages missing waits beside the queues while they are looked for (`wanted`), and goes on
from what was found (`fetched`). Frames carry what follows: `restore` puts fetched pages into a slot, `forget` frees
fetches that nobody needs any more, `save` names the pages that a frame fills, each once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trireme_coordinator.scheduler.page_keys import PageKeys
from trireme_coordinator.scheduler.prefix import PAGE_TOKENS
from trireme_coordinator.scheduler.sequence import Restore, Row, Save, Sequence

_LEAST_PAGES = 2
"""Pages that are worth asking for: fewer are computed in about the time of the question."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Pages that a sequence could go on from: those called `keys`, behind its first `first_page` ones."""

    sequence: Sequence
    admission: int
    first_page: int
    keys: tuple[bytes, ...]

    @property
    def current(self) -> bool:
        """Whether the sequence still waits for them."""
        return self.sequence.slot is not None and self.sequence.admissions == self.admission


class Restoring:
    """The books of one scheduler. Without `keys` there is no page store, and nothing happens here."""

    def __init__(self, keys: PageKeys | None) -> None:
        self._keys = keys
        self._wanted: list[Wanted] = []
        self._restores: dict[Sequence, Restore] = {}
        self._forget: list[int] = []

    @property
    def pending(self) -> bool:
        """Whether the stages must be told something, even where there is nothing to compute."""
        return bool(self._forget)

    def want(self, sequence: Sequence) -> bool:
        """Whether an admitted sequence is to wait for pages."""
        first, last = sequence.computed // PAGE_TOKENS, (len(sequence.tokens) - 1) // PAGE_TOKENS
        sequence.saved = first
        if self._keys is None or sequence.computed % PAGE_TOKENS or last - first < _LEAST_PAGES:
            return False
        self._keys.extend(sequence.page_keys, sequence.tenant, sequence.tokens, last)
        keys = tuple(sequence.page_keys[first:last])
        self._wanted.append(Wanted(sequence, sequence.admissions, first, keys))
        return True

    def wanted(self) -> list[Wanted]:
        """What has come to be wanted since the last call; each is to be answered with `Scheduler.fetched`."""
        wanted, self._wanted = self._wanted, []
        return wanted

    def restore(self, sequence: Sequence, slot: int, fetch: int, first_page: int, pages: int) -> None:
        """The next frame puts fetched pages into the sequence's slot."""
        self._restores[sequence] = Restore(slot, fetch, first_page, pages)
        sequence.saved = first_page + pages

    def restores(self, sequence: Sequence) -> bool:
        """Whether the next frame restores pages of the sequence."""
        return sequence in self._restores

    def forget(self, fetch: int) -> None:
        """Nobody needs a fetch any more."""
        self._forget.append(fetch)

    def leave(self, sequence: Sequence) -> None:
        """A sequence does not run any more: what was to be restored for it is not."""
        if (restore := self._restores.pop(sequence, None)) is not None:
            self.forget(restore.fetch)

    def emit(self) -> tuple[dict[Sequence, Restore], tuple[int, ...]]:
        """What the frame that is being made restores and forgets."""
        restores, self._restores = self._restores, {}
        forget, self._forget = tuple(self._forget), []
        return restores, forget

    def saves(self, rows: Iterable[Row]) -> tuple[Save, ...]:
        """The pages that these rows fill."""
        return tuple(save for row in rows if (save := self._save(row)) is not None)

    def reset(self) -> None:
        """The stages have lost everything."""
        self._wanted, self._restores, self._forget = [], {}, []

    def _save(self, row: Row) -> Save | None:
        sequence, first, pages = row.sequence, row.sequence.saved, row.certain // PAGE_TOKENS
        if self._keys is None or pages <= first:
            return None
        self._keys.extend(sequence.page_keys, sequence.tenant, sequence.tokens, pages)
        sequence.saved = pages
        return Save(row.slot, first, tuple(sequence.page_keys[first:pages]))
