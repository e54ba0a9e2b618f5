"""KV pages on their way out of a stage and back in, beside the computation: one store, a writer and a reader.

Nothing here makes whoever computes wait. A store that does not answer is left alone for a while, by both; what goes
wrong with it is counted and never raised.
"""

from __future__ import annotations

import time
from typing import Protocol

from trireme_proto.limits import LIMITS
from trireme_worker.heap import Heap
from trireme_worker.page_health import Clock, Counters, Patience
from trireme_worker.page_reader import PageReader, ReadablePages
from trireme_worker.page_value import PageIdentity
from trireme_worker.page_writer import PageWriter, WritablePages


class Pages(ReadablePages, WritablePages, Protocol):
    """Where values are kept."""

    def close(self) -> None: ...


class PageStore:
    """Pages of one stage, `page_bytes` each, in `pages`."""

    def __init__(
        self,
        pages: Pages,
        identity: PageIdentity,
        page_bytes: int,
        *,
        waiting_bytes: int = LIMITS.waiting_page_bytes,
        fetched_bytes: int = LIMITS.fetched_page_bytes,
        clock: Clock = time.monotonic,
    ) -> None:
        """`waiting_bytes`, `fetched_bytes`: the most that may wait to be written, and be held for frames to come."""
        self.page_bytes, self.counters = page_bytes, Counters()
        self.patience, heap = Patience(self.counters, clock), Heap()
        self.writer = PageWriter(
            pages,
            identity,
            page_bytes,
            waiting_bytes=waiting_bytes,
            counters=self.counters,
            patience=self.patience,
            heap=heap,
        )
        self.reader = PageReader(
            pages,
            identity,
            page_bytes,
            fetched_bytes=fetched_bytes,
            counters=self.counters,
            patience=self.patience,
            heap=heap,
            used=self.writer.used,
            clock=clock,
        )
        self._pages = pages

    def close(self) -> None:
        """Ends the threads and gives back the connections; what has not been written is lost."""
        self.writer.close()
        self.reader.close()
        self._pages.close()
